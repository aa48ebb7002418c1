"""The Latent Flow Transformer's velocity field and losses in PyTorch, as a user of PyTorch would write them.

Shapes: B sequences, T tokens, D channels. Formulas: arXiv 2505.14513, eq. 3 (FM), 5 (midpoint), 8 (FW).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def rotary_tables(length, rotated, base, device, dtype):
    """Cosines and sines (T, R) of the rotary embedding of R channels."""
    frequencies = base ** (-torch.arange(0, rotated, 2, device=device).float() / rotated)
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x, cos, sin):
    """Rotates the first R channels of every head of x (B, H, T, C)."""
    rotated, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = rotated.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return torch.cat([rotated * cos + turned * sin, rest], dim=-1)


class VelocityField(nn.Module):
    """u(x, t): one GPT-NeoX layer (parallel residual) with DiT time conditioning, its output minus its input."""

    def __init__(self, config, frequency_dim=256):
        super().__init__()
        d = config.hidden_size
        self.heads, self.rotated = config.num_attention_heads, int(d // config.num_attention_heads * 0.25)
        self.frequency_dim, self.epsilon = frequency_dim, config.layer_norm_eps
        self.norm_1, self.norm_2 = nn.LayerNorm(d, config.layer_norm_eps), nn.LayerNorm(d, config.layer_norm_eps)
        self.qkv, self.dense = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, config.intermediate_size), nn.Linear(config.intermediate_size, d)
        self.time = nn.Sequential(nn.Linear(frequency_dim, d), nn.SiLU(), nn.Linear(d, d))
        self.modulation = nn.Linear(d, 6 * d)
        nn.init.zeros_(self.modulation.bias)

    def sinusoid(self, t):
        half = self.frequency_dim // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device).float() / half)
        angles = t[:, None].float() * 1000 * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, x, t):
        b, length, d = x.shape
        condition = self.time(self.sinusoid(t).to(x.dtype))
        g1, b1, a1, g2, b2, a2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        cos, sin = rotary_tables(length, self.rotated, 10_000.0, x.device, x.dtype)
        qkv = self.qkv(self.norm_1(x) * (1 + g1) + b1)
        q, k, v = qkv.view(b, length, self.heads, 3 * d // self.heads).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        attention = self.dense(mixed.transpose(1, 2).reshape(b, length, d))
        mlp = self.down(F.gelu(self.up(self.norm_2(x) * (1 + g2) + b2)))
        return a1 * attention + a2 * mlp


def matching_loss(u, x0, x1, generator=None):
    """FM, eq. 3: E‖u(x_t, t) − (x1 − x0)‖² with t ~ U(0, 1) for each example."""
    t = torch.rand(x0.shape[0], device=x0.device, generator=generator)
    at = t[:, None, None].to(x0.dtype)
    return F.mse_loss(u((1 - at) * x0 + at * x1, t).float(), (x1 - x0).float())


def midpoint(u, x, t, d):
    """One midpoint step, eq. 5, of length d (B) from time t (B)."""
    length = d[:, None, None].to(x.dtype)
    return x + length * u(x + length / 2 * u(x, t), t + d / 2)


def walking_loss(u, x0, x1, walk=3, generator=None):
    """FW, eq. 8: walks x0 along sorted uniform times and holds the end against x1."""
    inner = torch.rand(x0.shape[0], walk - 1, device=x0.device, generator=generator).sort(dim=-1).values
    edges = torch.cat([torch.zeros_like(inner[:, :1]), inner, torch.ones_like(inner[:, :1])], dim=-1)
    x = x0
    for i in range(walk):
        x = midpoint(u, x, edges[:, i], edges[:, i + 1] - edges[:, i])
    return F.mse_loss(x.float(), x1.float())


def integrate(u, x, steps):
    """k midpoint steps on an even grid from time 0 to 1."""
    d = torch.full((x.shape[0],), 1 / steps, device=x.device)
    for i in range(steps):
        x = midpoint(u, x, i * d, d)
    return x
