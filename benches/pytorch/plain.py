"""Layers of a transformers GPT-NeoX written out in plain PyTorch, which torch.compile turns into fewer kernels.

Under torch.compile transformers builds a T × T mask, and attention with a mask runs slower than causal attention; here
attention is told that it is causal.
"""

import torch.nn.functional as F

from flow import rotary_tables, rotate


def layers(model, first, last):
    """A function that carries latents (B, T, D) over the layers first to last − 1 of `model` (parallel residual)."""
    config = model.config
    heads, channels = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    parts = list(model.gpt_neox.layers[first:last])

    def attention(layer, x, cos, sin):
        b, length, d = x.shape
        packed = layer.attention.query_key_value(x).view(b, length, heads, 3 * channels)
        q, k, v = packed.transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        return layer.attention.dense(mixed.transpose(1, 2).reshape(b, length, d))

    def run(x):
        cos, sin = rotary_tables(x.shape[1], channels // 4, 10_000.0, x.device, x.dtype)
        for layer in parts:
            mlp = layer.mlp.dense_4h_to_h(F.gelu(layer.mlp.dense_h_to_4h(layer.post_attention_layernorm(x))))
            x = x + attention(layer, layer.input_layernorm(x), cos, sin) + mlp
        return x

    return run
