"""One piece of work in PyTorch, done on command.

Reads lines from standard input, each a number n, does the work n times and answers `done`. The program that
asks (compare.py) holds the clock, so that both sides are timed alike.
"""

import argparse
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from flow import VelocityField, integrate, matching_loss, walking_loss


def truncated(model, layers):
    """Token ids to the residual stream after so many layers."""
    trunk = model.gpt_neox
    trunk.layers = trunk.layers[:layers]
    trunk.final_layer_norm = nn.Identity()
    return lambda ids: trunk(ids, use_cache=False).last_hidden_state


def latents(model, options, ids, compiled):
    forward = compiled(truncated(model, options.block[1]))

    @torch.no_grad()
    def work():
        forward(ids)

    return work


def logits(model, options, ids, compiled):
    forward = compiled(lambda ids: model(ids, use_cache=False).logits)

    @torch.no_grad()
    def work():
        forward(ids)

    return work


def training(loss):
    """Forward, backward, clip and AdamW on given latents."""

    def make(model, options, ids, compiled):
        velocity = VelocityField(model.config)
        optimizer = torch.optim.AdamW(velocity.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        x0, x1 = torch.randn(2, *ids.shape, model.config.hidden_size)
        objective = compiled(lambda x0, x1: loss(velocity, x0, x1))

        def work():
            optimizer.zero_grad(set_to_none=True)
            objective(x0, x1).backward()
            torch.nn.utils.clip_grad_norm_(velocity.parameters(), 1.0)
            optimizer.step()

        return work

    return make


def evaluation(model, options, ids, compiled):
    """KL of student and teacher; the student walks 3 midpoint steps in place of the block."""
    m, n = options.block
    velocity = VelocityField(model.config)
    trunk = model.gpt_neox
    layers = trunk.layers

    def to_boundary(ids):
        trunk.layers = layers[:m]
        return trunk(ids, use_cache=False).last_hidden_state

    def from_boundary(x):
        trunk.layers = layers[n:]
        return trunk(inputs_embeds=x, use_cache=False).last_hidden_state

    norm, head = trunk.final_layer_norm, model.get_output_embeddings()

    def kl(ids):
        trunk.final_layer_norm = nn.Identity()
        x0 = to_boundary(ids)
        trunk.layers = layers[m:n]
        x1 = trunk(inputs_embeds=x0, use_cache=False).last_hidden_state
        trunk.final_layer_norm = norm
        teacher = head(from_boundary(x1))
        student = head(from_boundary(integrate(velocity, x0, 3)))
        return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="sum")

    forward = compiled(kl)

    @torch.no_grad()
    def work():
        forward(ids).item()

    return work


def generation(model, options, ids, compiled):
    prompt = ids[:1, :16]

    def work():
        model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0,
                       min_new_tokens=options.tokens, max_new_tokens=options.tokens)

    return work


def field(model, options, ids, compiled):
    """The velocity field itself under torchdiffeq: ten midpoint steps."""
    from torchdiffeq import odeint

    velocity = VelocityField(model.config)
    x0 = torch.randn(*ids.shape, model.config.hidden_size)
    u = compiled(lambda x, t: velocity(x, t))
    times = torch.linspace(0, 1, 11)

    @torch.no_grad()
    def work():
        odeint(lambda t, x: u(x, t.expand(x.shape[0])), x0, times, method="midpoint")

    return work


def oscillator(model, options, ids, compiled):
    from torchdiffeq import odeint

    a = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    x0, times = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0.0, 10.0], dtype=torch.float64)
    f = compiled(lambda t, x: x @ a)

    @torch.no_grad()
    def work():
        odeint(f, x0, times, method="dopri5", rtol=1e-6, atol=1e-8)

    return work


def batch(method, steps=None):
    """x' = tanh(x·A) on 4096 × 64."""

    def make(model, options, ids, compiled):
        from torchdiffeq import odeint

        generator = torch.Generator().manual_seed(0)
        a = torch.randn(64, 64, generator=generator) / 8
        x0 = torch.randn(4096, 64, generator=generator)
        f = compiled(lambda t, x: torch.tanh(x @ a))
        times = torch.linspace(0, 1, steps + 1) if steps else torch.tensor([0.0, 1.0])

        @torch.no_grad()
        def work():
            odeint(f, x0, times, method=method, rtol=1e-5, atol=1e-5)

        return work

    return make


WORK = {
    "latents": latents,
    "logits": logits,
    "fm": training(matching_loss),
    "fw": training(walking_loss),
    "evaluate": evaluation,
    "generate": generation,
    "ode_field": field,
    "ode_tiny": oscillator,
    "ode_dopri5": batch("dopri5"),
    "ode_rk4": batch("rk4", 20),
    "ode_midpoint": batch("midpoint", 20),
    "ode_euler": batch("euler", 20),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--model")
    parser.add_argument("--text")
    parser.add_argument("--block", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seq-len", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.manual_seed(0)
    model = ids = None
    if not (options.work.startswith("ode_") and options.work != "ode_field"):
        model = GPTNeoXForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="sdpa")
        model.eval().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        with open(options.text, encoding="utf-8") as text:
            ids = torch.tensor(tokenizer(text.read(400_000))["input_ids"])
        wanted = options.batch * options.seq_len
        ids = ids.repeat(1 + wanted // len(ids))[:wanted].view(options.batch, options.seq_len)
    work = WORK[options.work](model, options, ids, torch.compile if options.compile else lambda f: f)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            work()
        print("done", flush=True)


if __name__ == "__main__":
    main()
