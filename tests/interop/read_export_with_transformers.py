"""Loads an exported student with Hugging Face transformers and holds its logits against lft's.

By hand (needs `pip install torch transformers`):

    lft run tests/interop/export.lua -- --out /tmp/export
    python tests/interop/read_export_with_transformers.py /tmp/export
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "export")
    expected = load_file(folder / "expected.safetensors")
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert type(model).__name__ == "GPTNeoXForCausalLM", type(model)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    with torch.no_grad():
        logits = model(expected["ids"].long()).logits
    worst = (logits - expected["logits"]).abs().max().item()
    assert worst < TOLERANCE * expected["logits"].abs().max().clamp(min=1).item(), f"logits differ by {worst}"
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    print(f"{folder}: {layers} layers, logits differ by at most {worst:.1e}")
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = "It was a bright cold day."
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        print("the tokenizer reads and writes")


if __name__ == "__main__":
    main()
