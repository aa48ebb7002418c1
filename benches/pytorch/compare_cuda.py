"""Holds lft against PyTorch and transformers on one CUDA card, at Pythia-410M's shape in bf16 with random weights.

    cargo build --release --features cuda && python3 benches/pytorch/compare_cuda.py

It installs nothing; it needs the Python packages torch and transformers, and the program target/release/lft (or
--lft PATH). Both sides read one model, written to a temporary folder. lft is one process that works on command;
PyTorch works in this one. They take turns: in every round each works for about --seconds, and the table shows medians
over the rounds. Training keeps the weights in f32 and multiplies in bf16 on both sides (torch.autocast).

`eager` runs transformers' model, `compiled` the same weights in plain PyTorch (plain.py) under torch.compile, which is
the faster of the two there.
"""

import argparse
import copy
import gc
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch._inductor.config
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from flow import VelocityField, matching_loss, walking_loss
from plain import layers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOALS = {"latents": 1.0, "logits": 1.3, "fm_teacher": 1.2, "fw_teacher": 1.2, "generate": 4.0}
WORKS = ["latents", "logits", "fm", "fm_teacher", "fw", "fw_teacher", "generate"]


def random_model(folder):
    """Pythia-410M's shape, written once; returns its folder."""
    path = pathlib.Path(folder)
    if not (path / "config.json").exists():
        torch.manual_seed(0)
        config = GPTNeoXConfig(vocab_size=50304, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                               intermediate_size=4096, rotary_pct=0.25, bos_token_id=0, eos_token_id=0)
        GPTNeoXForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


class Lft:
    """The lft process."""

    def __init__(self, options, model):
        command = [options.lft, "--quiet", "--device", "cuda", "run", str(HERE / "work_cuda.lua"), "--", "--model", str(model),
                   "--block", options.block, "--batch", str(options.batch), "--seq_len", str(options.seq_len),
                   "--tokens", str(options.tokens)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.expect("ready")

    def expect(self, word):
        answer = self.process.stdout.readline().strip()
        if answer != word:
            sys.exit(f"lft answered {answer!r} and not {word!r}")

    def run(self, work, count):
        start = time.perf_counter()
        self.process.stdin.write(f"{work} {count}\n")
        self.process.stdin.flush()
        self.expect("done")
        return (time.perf_counter() - start) / count

    def memory(self, work):
        """MiB of tensors at the highest point of the work beyond those before it, by CUDA's memory pool."""
        self.process.stdin.write(f"{work} 0\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return round(int(answer) / 2**20) if answer.isdigit() else float("nan")


class Torch:
    """The same works in PyTorch."""

    def __init__(self, options, path, compiled):
        m, n = map(int, options.block.split(","))
        model = GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation="sdpa").cuda().eval()
        model.requires_grad_(False)
        ids = torch.tensor([[(i * 7919 + j * 104729) % 4000 for j in range(1, options.seq_len + 1)]
                            for i in range(1, options.batch + 1)], device="cuda")
        self.options = options
        parts = self.plain(model, m, n) if compiled else self.transformers(model, m, n)

        compile = torch.compile if compiled else lambda function: function
        velocity = VelocityField(model.config).cuda()
        adamw = torch.optim.AdamW(velocity.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        latents, both, logits = map(compile, parts)
        with torch.no_grad():
            x0, x1 = (x.float() for x in parts[1](ids))

        def training(loss, teacher):
            objective = compile(lambda x0, x1: loss(velocity, x0, x1))

            def work():
                a, b = x0, x1
                if teacher:
                    with torch.no_grad():
                        a, b = (x.float() for x in both(ids))
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    value = objective(a, b)
                adamw.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(velocity.parameters(), 1.0)
                adamw.step()

            return work

        def generate():
            prompt = ids[:1, :16]
            model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0,
                           min_new_tokens=options.tokens, max_new_tokens=options.tokens)

        self.works = {"latents": torch.no_grad()(lambda: latents(ids)), "logits": torch.no_grad()(lambda: logits(ids)),
                      "fm": training(matching_loss, False), "fm_teacher": training(matching_loss, True),
                      "fw": training(walking_loss, False), "fw_teacher": training(walking_loss, True), "generate": generate}

    def transformers(self, model, m, n):
        """Latents at n, latents at m and n, and logits, each a function of the ids, by transformers."""
        trunk = model.gpt_neox

        def part(first, last):
            short = copy.copy(trunk)
            short._modules = dict(trunk._modules)
            short.layers, short.final_layer_norm = trunk.layers[first:last], nn.Identity()
            return short

        whole, front, middle = part(0, n), part(0, m), part(m, n)

        def boundaries(ids):
            x0 = front(ids, use_cache=False).last_hidden_state
            return x0, middle(inputs_embeds=x0, use_cache=False).last_hidden_state

        return (lambda ids: whole(ids, use_cache=False).last_hidden_state, boundaries,
                lambda ids: model(ids, use_cache=False).logits)

    def plain(self, model, m, n):
        """The same in plain PyTorch."""
        trunk, total = model.gpt_neox, model.config.num_hidden_layers
        embed, front, middle, rest = trunk.embed_in, layers(model, 0, m), layers(model, m, n), layers(model, n, total)

        def boundaries(ids):
            x0 = front(embed(ids))
            return x0, middle(x0)

        return (lambda ids: middle(front(embed(ids))), boundaries,
                lambda ids: model.get_output_embeddings()(trunk.final_layer_norm(rest(middle(front(embed(ids)))))))

    def run(self, work, count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            self.works[work]()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--block", default="6,18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="about so long each turn takes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-torch", action="store_true", help="measure lft alone")
    parser.add_argument("--lft", default=str(ROOT / "target/release/lft"))
    parser.add_argument("--weights", default=str(pathlib.Path(tempfile.gettempdir()) / "lft-random-410m"))
    parser.add_argument("--json", help="also writes the rows to this file")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    # PyTorch 2.11 fails to compile the walk with this pass: "AssertionError: 1024 v.s. 8192". It must be off for the whole
    # process, since backward passes are compiled by another thread.
    if hasattr(torch._inductor.config.triton, "mix_order_reduction"):
        torch._inductor.config.triton.mix_order_reduction = False
    path = random_model(options.weights)
    lft, rows = Lft(options, path), []
    sides = {"lft": lft}
    if not options.no_torch:
        sides["eager"] = Torch(options, path, False)
        if not options.no_compile:
            sides["compiled"] = Torch(options, path, True)
    for work in options.works.split(","):
        amount = options.tokens if work == "generate" else options.batch * options.seq_len
        torch.cuda.reset_peak_memory_stats()
        before, counts = torch.cuda.memory_allocated(), {}
        for name, side in sides.items():
            side.run(work, 2)
            counts[name] = max(1, round(options.seconds / side.run(work, 1)))
        rounds = [{name: side.run(work, counts[name]) for name, side in sides.items()} for _ in range(options.rounds)]
        rate = {name: amount / statistics.median(r[name] for r in rounds) for name in sides}
        rivals = [name for name in sides if name != "lft"]
        row = {"work": work, **{name: round(value) for name, value in rate.items()}}
        if rivals:
            rival = max(rivals, key=rate.get)
            ratios = sorted(r[rival] / r["lft"] for r in rounds)
            row |= {"ratio": round(statistics.median(ratios), 3), "from": round(ratios[0], 3), "to": round(ratios[-1], 3)}
        row |= {"goal": GOALS.get(work), "lft MiB": lft.memory(work),
                "torch MiB": round((torch.cuda.max_memory_allocated() - before) / 2**20)}
        rows.append(row)
        print(json.dumps(row), flush=True)
        gc.collect()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
