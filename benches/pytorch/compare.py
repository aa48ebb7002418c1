"""Holds lft against PyTorch, transformers and torchdiffeq on the same work, in alternation.

    cargo build --release && python3 benches/pytorch/compare.py --models teacher,70m

It installs nothing. It needs the Python packages torch, transformers, torchdiffeq and tabulate, and the program
target/release/lft (or --lft PATH). Models `70m` and `410m` have Pythia's shapes and random weights, which are
written once to a temporary folder and read by both sides.

Each piece of work runs in processes of its own, one per contender. They take turns: in every round each one
works for about --seconds. A ratio is PyTorch's time over lft's in the same round, so that above 1 lft is ahead;
the table shows its median and quartiles over the rounds, against the better of eager and compiled PyTorch.
Memory is the peak resident size of the process.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
try:
    import torch
    from tabulate import tabulate
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    import torchdiffeq  # noqa: F401  (work.py uses it; better to miss it here than there)
except ImportError as missing:
    sys.exit(f"{missing}. This comparison needs: pip install torch transformers torchdiffeq tabulate")

# name: (hidden, layers, heads, intermediate), block, batch, tokens in a sequence
SHAPES = {
    "teacher": (None, "6,18", 8, 256),
    "70m": ((512, 6, 8, 2048), "1,4", 4, 256),
    "410m": ((1024, 24, 16, 4096), "6,18", 1, 512),
}
OF_A_MODEL = ["latents", "logits", "fm", "fw", "evaluate", "generate", "ode_field"]
OF_NONE = ["ode_tiny", "ode_dopri5", "ode_rk4", "ode_midpoint", "ode_euler"]
GOALS = {"latents": 1.2, "fm": 1.5, "fw": 1.5, "evaluate": 1.2, "generate": 2.0, "ode_field": 1.2, "ode_tiny": 20.0,
         "ode_dopri5": 2.0, "ode_rk4": 2.0, "ode_midpoint": 2.0, "ode_euler": 2.0}
NEW_TOKENS = 32


def random_model(name, folder, tokenizer):
    """Writes a model of Pythia's shape with random weights, unless it is there, and returns its folder."""
    hidden, layers, heads, intermediate = SHAPES[name][0]
    path = folder / name
    if not (path / "config.json").exists():
        torch.manual_seed(0)
        config = GPTNeoXConfig(vocab_size=50304, hidden_size=hidden, num_hidden_layers=layers, use_cache=False,
                               num_attention_heads=heads, intermediate_size=intermediate, rotary_pct=0.25,
                               bos_token_id=0, eos_token_id=0)
        GPTNeoXForCausalLM(config).save_pretrained(path)
        for file in pathlib.Path(tokenizer).glob("tokenizer*.json"):
            (path / file.name).write_bytes(file.read_bytes())
    return path


class Worker:
    """A process that does one piece of work on command."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                        env={**os.environ, **environment})
        self._expect("ready")
        self.count = 1

    def _expect(self, word):
        answer = self.process.stdout.readline().strip()
        if answer != word:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} answered {answer!r} and not {word!r}")

    def run(self, count):
        """Seconds for doing the work so many times."""
        start = time.perf_counter()
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        self._expect("done")
        return time.perf_counter() - start

    def warm_up(self, seconds):
        self.run(1)
        once = min(self.run(1) for _ in range(2))
        self.count = max(1, round(seconds / once))

    def seconds(self):
        return self.run(self.count) / self.count

    def peak(self):
        """Peak resident memory in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def contenders(work, model, options):
    path, (_, block, batch, length) = model or (None, (None, "0,0", 0, 0))
    environment = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    flags = ["--model", str(path), "--text", str(ROOT / "data/corpus/valid.txt"), "--block", block,
             "--batch", str(batch), "--seq-len", str(length), "--tokens", str(NEW_TOKENS)]
    python = [sys.executable, str(HERE / "work.py"), work, *flags]
    flags = [flag.replace("--seq-len", "--seq_len") for flag in flags] if model else []
    lft = [options.lft, "--quiet", "--device", "cpu", "run", str(HERE / "work.lua"), "--", "--work", work, *flags]
    yield "lft", Worker(lft, environment)
    yield "eager", Worker(python, environment)
    if work != "generate" and not options.eager_only:
        yield "compiled", Worker([*python, "--compile"], environment)


def measure(work, model, options):
    """One row: medians of every contender, and the ratios of the better PyTorch to lft."""
    workers = dict(contenders(work, model, options))
    try:
        for worker in workers.values():
            worker.warm_up(options.seconds)
        rounds = [{name: worker.seconds() for name, worker in workers.items()} for _ in range(options.rounds)]
        medians = {name: statistics.median(r[name] for r in rounds) for name in workers}
        rival = min((name for name in workers if name != "lft"), key=medians.get)
        ratios = sorted(r[rival] / r["lft"] for r in rounds)
        quarter = len(ratios) // 4
        return {
            "work": work, "lft ms": medians["lft"] * 1e3, "eager ms": medians["eager"] * 1e3,
            "compiled ms": medians["compiled"] * 1e3 if "compiled" in medians else None,
            "ratio": statistics.median(ratios), "quartiles": f"{ratios[quarter]:.2f}..{ratios[-1 - quarter]:.2f}",
            "goal": GOALS.get(work), "lft MiB": workers["lft"].peak(), f"PyTorch MiB": workers[rival].peak(),
        }
    finally:
        for worker in workers.values():
            worker.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="teacher,70m,410m", help="which of teacher, 70m, 410m")
    parser.add_argument("--work", default="all", help=f"which of {', '.join(OF_A_MODEL + OF_NONE)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="about so long each turn takes")
    parser.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    parser.add_argument("--lft", default=str(ROOT / "target/release/lft"))
    parser.add_argument("--tokenizer", default=str(ROOT / "data/teacher"), help="folder of the random models' tokenizer")
    parser.add_argument("--weights", default=str(pathlib.Path(tempfile.gettempdir()) / "lft-random-models"))
    parser.add_argument("--json", help="also writes the rows to this file")
    options = parser.parse_args()
    chosen = OF_A_MODEL + OF_NONE if options.work == "all" else options.work.split(",")
    rows = []
    for name in options.models.split(","):
        path = ROOT / "data/teacher" if name == "teacher" else random_model(name, pathlib.Path(options.weights), options.tokenizer)
        for work in (work for work in chosen if work in OF_A_MODEL):
            rows.append({"model": name, **measure(work, (path, SHAPES[name]), options)})
            print(f"{name} {work}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    for work in (work for work in chosen if work in OF_NONE):
        rows.append({"model": "", **measure(work, None, options)})
        print(f"{work}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    print(tabulate(rows, headers="keys", floatfmt=".4g", tablefmt="github"))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
