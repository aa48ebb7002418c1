"""Computes the figures of a teacher's card with Hugging Face transformers: its loss on texts, and the KL of skipping layers.

By hand (needs `pip install torch transformers`):

    python tests/interop/teacher_card.py data/teacher
    python tests/interop/teacher_card.py data/teacher --text heldout.txt.xz --ascii-quotes --windows 200

The KL is that of the best place among the layers 6 to 17, on the first 64 windows of 256 tokens of data/corpus/valid.txt:
what data/teacher/README.md and src/eval/tests.rs hold.
"""

import argparse
import lzma
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

COUNTS = [1, 2, 3, 4, 6, 12]
FIRST, END = 6, 18
CURLY = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path, help="folder of the teacher")
    parser.add_argument("--valid", type=Path, default=Path("data/corpus/valid.txt"), help="text of the KL")
    parser.add_argument("--text", type=Path, help="a further text, of which the loss is computed; may end in .xz")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window of that text")
    parser.add_argument("--windows", type=int, help="the first so many of them; all when left out")
    parser.add_argument("--ascii-quotes", action="store_true", help="turn that text's quotation marks into ASCII")
    parser.add_argument("--dtype", default="bfloat16", help="format of the computation: bfloat16 or float32")
    parser.add_argument("--batch", type=int, default=8, help="windows in a batch")
    return parser.parse_args()


def windows(tokenizer, path: Path, ascii_quotes: bool, length: int, count: int | None) -> torch.Tensor:
    """Windows side by side, each with the token behind it."""
    text = lzma.open(path, "rt", encoding="utf-8", newline="").read() if path.suffix == ".xz" else path.read_text("utf-8")
    text = text.translate(CURLY) if ascii_quotes else text
    ids = torch.tensor(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    return ids.unfold(0, length + 1, length)[:count]


def log_probabilities(model, batch: torch.Tensor) -> torch.Tensor:
    return model(batch[:, :-1], use_cache=False).logits.float().log_softmax(-1)


def loss(model, batches) -> float:
    nats, tokens = 0.0, 0
    for batch in batches:
        picked = log_probabilities(model, batch).gather(-1, batch[:, 1:, None])
        nats, tokens = nats - picked.double().sum().item(), tokens + picked.numel()
    return nats / tokens


def divergence(model, batches, teacher) -> float:
    total, tokens = 0.0, 0
    for batch, p in zip(batches, teacher):
        q = log_probabilities(model, batch)
        total += (p.exp() * (p - q)).sum(-1).double().sum().item()
        tokens += batch[:, 1:].numel()
    return total / tokens


@torch.no_grad()
def main() -> None:
    given = arguments()
    model = AutoModelForCausalLM.from_pretrained(given.teacher, dtype=getattr(torch, given.dtype)).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(given.teacher / "tokenizer.json"))
    print(f"{given.teacher}: {sum(w.numel() for w in model.parameters())} parameters, computed in {given.dtype}")
    if given.text:
        found = windows(tokenizer, given.text, given.ascii_quotes, given.window, given.windows)
        nats = loss(model, found.split(given.batch))
        print(f"{given.text}: {nats:.4f} nats a token, perplexity {math.exp(nats):.2f}; {len(found)} windows of {given.window}")

    batches = windows(tokenizer, given.valid, False, 256, 64).split(given.batch)
    nats = loss(model, batches)
    print(f"{given.valid}: {nats:.4f} nats a token, perplexity {math.exp(nats):.2f}; 64 windows of 256")
    # 64 windows of log-probabilities in bf16 would lose more than the layers' rounding does.
    teacher = [log_probabilities(model, batch) for batch in batches]
    layers = model.gpt_neox.layers
    for count in COUNTS:
        found = []
        for first in range(FIRST, END - count + 1):
            kept = [layer for i, layer in enumerate(layers) if not first <= i < first + count]
            model.gpt_neox.layers = torch.nn.ModuleList(kept)
            found.append((divergence(model, batches, teacher), first))
        best, first = min(found)
        print(f"skipping {count}: KL {best:.4f}, layers {first} to {first + count - 1}")
    model.gpt_neox.layers = layers


if __name__ == "__main__":
    main()
