"""Triton's kernels for `fused.py`, which says what each computes. Rows of a tensor are what lies together in memory."""

# pyright: reportMissingImports=false, reportIndexIssue=false, reportPossiblyUnboundVariable=false
# Triton comes with PyTorch for Linux and CUDA only; its kernels are functions to a type checker, which has no grids,
# and does not know that branches on a `constexpr` are taken when the kernel is compiled.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from longtake.backbones.fused import FAINT, Rounded

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
def _divisor(top, largest, least):
    """What a row is divided by whose largest number is `top`."""
    return tl.maximum(tl.div_rn(top, largest), least)


@triton.jit
def _store_divided(h, divisor, largest, out, at, mask):
    """Divides, rounds and writes a part of a row.

    The quotient is the product with the reciprocal, corrected by what it leaves over (Markstein 1990): less work than a
    division, and the same eight bits.
    """
    inverse = tl.div_rn(1.0, divisor)
    quotient = h * inverse
    quotient = tl.fma(tl.fma(-quotient, divisor, h), inverse, quotient)
    quotient = tl.minimum(tl.maximum(quotient, -largest), largest)
    tl.store(out + at, quotient.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _store_modulated(h, scale, shift, out, by, d, eps, largest, least, at, mask, ROUND: tl.constexpr):
    """Norms one row, modulates and writes it; rounded, also by what it was divided."""
    mean = tl.sum(h, 0) / d
    centered = tl.where(mask, h - mean, 0.0)
    normed = centered * tl.rsqrt(tl.sum(centered * centered, 0) / d + eps)
    s = tl.load(scale + at, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(shift + at, mask=mask, other=0.0).to(tl.float32)
    made = normed * (1.0 + s) + t
    if ROUND:
        divisor = _divisor(tl.max(tl.abs(made), 0), largest, least)
        _store_divided(made, divisor, largest, out, at, mask)
        tl.store(by, divisor)
    else:
        tl.store(out + at, made.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _norm_kernel(
    x, scale, shift, out, by, n, d, eps, largest, least, x_b, x_n, s_b, t_b, o_b, o_n, by_b, ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < d
    sample, token = row // n, row % n
    h = tl.load(x + sample * x_b + token * x_n + at, mask=mask, other=0.0).to(tl.float32)
    scale += sample * s_b
    shift += sample * t_b
    out += sample * o_b + token * o_n
    by += sample * by_b + token
    _store_modulated(h, scale, shift, out, by, d, eps, largest, least, at, mask, ROUND)


@triton.jit
def _sum_kernel(
    x, y, gate, total, scale, shift, out, by, n, d, eps, largest, least, x_b, x_n, y_b, y_n, g_b, s_b, t_b, o_b, o_n,
    by_b, NORM: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr,
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
        scale += sample * s_b
        shift += sample * t_b
        out += sample * o_b + token * o_n
        by += sample * by_b + token
        _store_modulated(h, scale, shift, out, by, d, eps, largest, least, at, mask, ROUND)


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
def _row_part(x, start, d, GELU: tl.constexpr, SIZE: tl.constexpr):
    """Numbers of a row from `start` on, or their GELU in its form with tanh: h sigmoid(2 sqrt(2 / pi) (h + ...))."""
    at = start + tl.arange(0, SIZE)
    h = tl.load(x + at, mask=at < d, other=0.0).to(tl.float32)
    if GELU:
        h = h * tl.sigmoid(1.5957691216057308 * (h + 0.044715 * h * h * h))
    return h


@triton.jit
def _round_kernel(
    beside, x, out, scales, width, d, b_n, x_n, largest, least, GELU: tl.constexpr, BESIDE: tl.constexpr,
    FIRST: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """Rounds a row of `width` numbers of `beside` and d of x, all of it in registers.

    d is often three times a power of two, and tensors have powers of two: two of them waste nothing.
    """
    row = tl.program_id(0).to(tl.int64)
    beside += row * b_n
    x += row * x_n
    out += row * (width + d)
    first = _row_part(x, 0, d, GELU, FIRST)
    if REST > 0:
        rest = _row_part(x, FIRST, d, GELU, REST)
    if BESIDE > 0:
        before = _row_part(beside, 0, width, False, BESIDE)
    top = tl.max(tl.abs(first), 0)
    if REST > 0:
        top = tl.maximum(top, tl.max(tl.abs(rest), 0))
    if BESIDE > 0:
        top = tl.maximum(top, tl.max(tl.abs(before), 0))
    divisor = _divisor(top, largest, least)
    tl.store(scales + row, divisor)
    at = tl.arange(0, FIRST)
    _store_divided(first, divisor, largest, out + width, at, at < d)
    if REST > 0:
        further = FIRST + tl.arange(0, REST)
        _store_divided(rest, divisor, largest, out + width, further, further < d)
    if BESIDE > 0:
        ahead = tl.arange(0, BESIDE)
        _store_divided(before, divisor, largest, out, ahead, ahead < width)


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float, out: Tensor | Rounded) -> None:
    """See `fused.py`; "b n d", of which each row lies together."""
    b, n, d = x.shape
    assert x.stride(2) == scale.stride(1) == shift.stride(1) == 1
    strides = x.stride(0), x.stride(1), scale.stride(0), shift.stride(0)
    made = _Made(out)
    _norm_kernel[(b * n,)](
        x, scale, shift, made.values, made.by, n, d, eps, made.largest, FAINT, *strides, *made.strides, made.rounded,
        **_row(d),
    )  # fmt: skip


def gated_sum(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """See `fused.py`."""
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _sum(x, y, gate, total, (gate, gate), total, 0.0, norm=False)
    return total


def gated_sum_norm(
    x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor, eps: float, out: Tensor | Rounded
) -> Tensor:
    """See `fused.py`."""
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _sum(x, y, gate, total, (scale, shift), out, eps, norm=True)
    return total


def _sum(
    x: Tensor, y: Tensor, gate: Tensor, total: Tensor, affine: tuple[Tensor, Tensor], out: Tensor | Rounded,
    eps: float, *, norm: bool,
) -> None:  # fmt: skip
    b, n, d = x.shape
    scale, shift = affine
    assert x.stride(2) == y.stride(2) == gate.stride(1) == scale.stride(1) == shift.stride(1) == 1
    strides = (*x.stride()[:2], *y.stride()[:2], gate.stride(0), scale.stride(0), shift.stride(0))
    made = _Made(out)
    _sum_kernel[(b * n,)](
        x, y, gate, total, scale, shift, made.values, made.by, n, d, eps, made.largest, FAINT, *strides, *made.strides,
        norm, made.rounded, **_row(d),
    )  # fmt: skip


class _Made:
    """Where a kernel writes rows "b n d", and what it has to know of it."""

    def __init__(self, out: Tensor | Rounded) -> None:
        self.rounded = isinstance(out, Rounded)
        self.values, self.by = (out.values, out.scale) if isinstance(out, Rounded) else (out, out)
        self.largest = torch.finfo(self.values.dtype).max
        self.strides = self.values.stride(0), self.values.stride(1), self.by.stride(0)
        assert self.values.stride(2) == 1
        assert not self.rounded or self.by.stride(1) == 1


def rotate_normed(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> None:
    """See `fused.py`."""
    b, n, heads, size = x.shape
    assert x.stride(3) == 1
    together = 8
    grid = (b * n, triton.cdiv(heads, together))
    cos, sin = cos.contiguous(), sin.contiguous()
    _rotate_kernel[grid](x, weight, cos, sin, n, len(cos), heads, eps, *x.stride()[:3], size, together, num_warps=4)


def rounded_rows(
    x: Tensor, dtype: torch.dtype, *, gelu: bool = False, beside: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `fused.py`, `rounded_gelu` too; "n d", of which each row lies together."""
    n, d = x.shape
    before, width = (x, 0) if beside is None else (beside, beside.shape[1])
    assert x.stride(1) == before.stride(1) == 1
    out = torch.empty(n, width + d, dtype=dtype, device=x.device)
    scales = torch.empty(n, 1, dtype=torch.float32, device=x.device)
    first = 1 << (d.bit_length() - 1)  # the largest power of two in it
    rest, ahead = (triton.next_power_of_2(count) if count else 0 for count in (d - first, width))
    warps = min(16, max(1, triton.next_power_of_2(first + rest + ahead) // 512))
    _round_kernel[(n,)](
        before, x, out, scales, width, d, before.stride(0), x.stride(0), torch.finfo(dtype).max, FAINT, gelu, ahead,
        first, rest, num_warps=warps,
    )  # fmt: skip
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
