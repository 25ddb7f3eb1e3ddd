"""Triton's kernels for `fused.py`, which says what each computes. Rows of a tensor are what lies together in memory."""

# pyright: reportMissingImports=false, reportIndexIssue=false
# Triton comes with PyTorch for Linux and CUDA only; its kernels are functions to a type checker, which has no grids.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "add_bias",
    "channel_moments",
    "gated_sum",
    "gated_sum_norm",
    "modulated_norm",
    "rotate_normed",
    "rounded_rows",
    "scaled_silu",
]

SPAN = 2048  # numbers of a row that one program takes
PARTS = 1056  # programs that share the sums over an image: eight for each multiprocessor of an H100


@triton.jit
def _modulate(h, row, n, d, scale, shift, scale_stride, shift_stride, out, eps, at, mask):
    """Norms one row and writes it."""
    sample = row // n
    mean = tl.sum(h, 0) / d
    centered = tl.where(mask, h - mean, 0.0)
    normed = centered * tl.rsqrt(tl.sum(centered * centered, 0) / d + eps)
    s = tl.load(scale + sample * scale_stride + at, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(shift + sample * shift_stride + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, (normed * (1.0 + s) + t).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _norm_kernel(x, scale, shift, out, n, d, eps, x_b, x_n, s_b, t_b, o_b, o_n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < d
    h = tl.load(x + row // n * x_b + row % n * x_n + at, mask=mask, other=0.0).to(tl.float32)
    _modulate(h, row, n, d, scale, shift, s_b, t_b, out + row // n * o_b + row % n * o_n, eps, at, mask)


@triton.jit
def _sum_kernel(
    x, y, gate, total, scale, shift, out, n, d, eps, x_b, x_n, y_b, y_n, g_b, s_b, t_b, NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < d
    sample, token = row // n, row % n
    h = tl.load(x + sample * x_b + token * x_n + at, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(y + sample * y_b + token * y_n + at, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gate + sample * g_b + at, mask=mask, other=0.0).to(tl.float32)
    h += g * z
    tl.store(total + row * d + at, h.to(total.dtype.element_ty), mask=mask)
    if NORM:
        _modulate(h, row, n, d, scale, shift, s_b, t_b, out + row * d, eps, at, mask)


@triton.jit
def _rotate_kernel(
    x, weight, cos, sin, n, m, heads, eps, x_b, x_n, x_a, E: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token = row % n
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    channel = tl.arange(0, E)
    place = x + row // n * x_b + token * x_n + head[:, None] * x_a + channel[None, :]
    mask = (head < heads)[:, None] & (channel < E)[None, :]
    h = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(weight + channel).to(tl.float32)
    h = h * tl.rsqrt(tl.sum(h * h, 1) / E + eps)[:, None] * w[None, :]
    if token < m:
        c = tl.load(cos + token * E + channel).to(tl.float32)
        s = tl.load(sin + token * E + channel).to(tl.float32)
        u, v = tl.split(tl.reshape(h, (HEADS, E // 2, 2)))
        turned = tl.reshape(tl.join(-v, u), (HEADS, E))
        h = h * c[None, :] + turned * s[None, :]
    tl.store(place, h.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _moments_kernel(x, sums, squares, rows, steps, d, ROWS: tl.constexpr, D: tl.constexpr):
    part = tl.program_id(0)
    channel = tl.arange(0, D)
    total, square = tl.zeros((ROWS, D), tl.float32), tl.zeros((ROWS, D), tl.float32)  # added up across rows once
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (channel < d)[None, :]
        h = tl.load(x + row[:, None].to(tl.int64) * d + channel[None, :], mask=mask, other=0.0).to(tl.float32)
        total += h
        square += h * h
    tl.store(sums + part * D + channel, tl.sum(total, 0))
    tl.store(squares + part * D + channel, tl.sum(square, 0))


@triton.jit
def _silu_kernel(x, scale, shift, out, size, x_t, x_h, o_t, o_h, D: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    line, image = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    mask, channel = at < size, at % D
    h = tl.load(x + image * x_t + line * x_h + at, mask=mask, other=0.0).to(tl.float32)
    h = h * tl.load(scale + channel) + tl.load(shift + channel)
    h = h * tl.sigmoid(h)
    tl.store(out + image * o_t + line * o_h + at, h.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _bias_kernel(
    y, bias, residual, out, size, y_t, r_t, o_t, D: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    mask = at < size
    h = tl.load(y + image * y_t + at, mask=mask, other=0.0).to(tl.float32) + tl.load(bias + at % D).to(tl.float32)
    if ADD:
        h += tl.load(residual + image * r_t + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + image * o_t + at, h.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _round_kernel(x, out, scales, d, x_n, largest, least, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < d
    h = tl.load(x + row * x_n + at, mask=mask, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(h), 0) / largest, least)
    h = tl.minimum(tl.maximum(tl.div_rn(h, scale), -largest), largest)
    tl.store(out + row * d + at, h.to(out.dtype.element_ty), mask=mask)
    tl.store(scales + row, scale)


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float, out: Tensor) -> None:
    """See `fused.py`; "b n d", of which each row lies together."""
    b, n, d = x.shape
    assert x.stride(2) == scale.stride(1) == shift.stride(1) == out.stride(2) == 1
    strides = x.stride(0), x.stride(1), scale.stride(0), shift.stride(0), out.stride(0), out.stride(1)
    _norm_kernel[(b * n,)](x, scale, shift, out, n, d, eps, *strides, **_row(d))


def gated_sum(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """See `fused.py`."""
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _sum(x, y, gate, total, (gate, gate), total, 0.0, norm=False)
    return total


def gated_sum_norm(
    x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `fused.py`."""
    total, out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _sum(x, y, gate, total, (scale, shift), out, eps, norm=True)
    return total, out


def _sum(
    x: Tensor, y: Tensor, gate: Tensor, total: Tensor, affine: tuple[Tensor, Tensor], out: Tensor, eps: float, *,
    norm: bool,
) -> None:  # fmt: skip
    b, n, d = x.shape
    scale, shift = affine
    assert x.stride(2) == y.stride(2) == gate.stride(1) == scale.stride(1) == shift.stride(1) == 1
    strides = (*x.stride()[:2], *y.stride()[:2], gate.stride(0), scale.stride(0), shift.stride(0))
    _sum_kernel[(b * n,)](x, y, gate, total, scale, shift, out, n, d, eps, *strides, norm, **_row(d))


def rotate_normed(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> None:
    """See `fused.py`."""
    b, n, heads, size = x.shape
    assert x.stride(3) == 1
    together = 8
    grid = (b * n, triton.cdiv(heads, together))
    cos, sin = cos.contiguous(), sin.contiguous()
    _rotate_kernel[grid](x, weight, cos, sin, n, len(cos), heads, eps, *x.stride()[:3], size, together, num_warps=4)


def rounded_rows(x: Tensor, largest: float, least: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `fused.py`; each row lies together."""
    n, d = x.shape
    assert x.stride(1) == 1
    out, scales = (torch.empty(n, w, dtype=t, device=x.device) for w, t in ((d, dtype), (1, torch.float32)))
    _round_kernel[(n,)](x, out, scales, d, x.stride(0), largest, least, **_row(d))
    return out, scales


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `fused.py`."""
    _, d, t, h, w = x.shape
    rows, width = t * h * w, triton.next_power_of_2(d)
    at_once = max(1, 8192 // width)
    steps = triton.cdiv(rows, PARTS * at_once)
    parts = triton.cdiv(rows, steps * at_once)
    sums = torch.empty((2, parts, width), dtype=torch.float32, device=x.device)
    _moments_kernel[(parts,)](x, sums[0], sums[1], rows, steps, d, at_once, width, num_warps=8)
    mean, square = sums[..., :d].sum(1, dtype=torch.float64) / rows
    return mean, square


def scaled_silu(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """See `fused.py`."""
    _, d, t, h, w = x.shape
    for each in (x, out):
        assert each.stride(1) == 1
        assert each.stride(4) == d or w == 1
    grid = (triton.cdiv(w * d, SPAN), h, t)
    _silu_kernel[grid](x, scale, shift, out, w * d, *x.stride()[2:4], *out.stride()[2:4], d, SPAN, num_warps=4)


def add_bias(y: Tensor, bias: Tensor, residual: Tensor | None, out: Tensor) -> None:
    """See `fused.py`; each image of each tensor lies together."""
    _, d, t, h, w = y.shape
    parts = (y, out) if residual is None else (y, out, residual)
    for each in parts:
        assert each.stride(1) == 1
        assert each.stride(4) == d or w == 1
        assert each.stride(3) == w * d or h == 1
    added = out if residual is None else residual
    grid = (triton.cdiv(h * w * d, SPAN), t)
    strides = y.stride(2), added.stride(2), out.stride(2)
    _bias_kernel[grid](y, bias, added, out, h * w * d, *strides, d, residual is not None, SPAN, num_warps=4)


def _row(d: int) -> dict[str, Any]:
    block = triton.next_power_of_2(d)
    return {"BLOCK": block, "num_warps": min(8, max(1, block // 512))}
