"""What lies between the matrix products and convolutions of a network, in one pass over memory each.

    modulated_norm      norm(x) (1 + scale) + shift
    gated_sum           x + gate y
    gated_sum_norm      the same, and its modulated norm
    rotate_normed       queries or keys, normed, then turned by their phases; in place
    linear_gelu         GELU of a linear layer, in the epilogue of the product
    rounded_rows        each row over its largest number, in eight bits, and what it was divided by
    rounded_gelu        the same of GELU(x), beside what else is in its row
    channel_moments     what a group norm needs to know
    scaled_silu         SiLU(scale x + shift) for each channel
    add_bias            what a convolution adds after its products, and a residual

The first and the third write into what they are given: a tensor, or tokens in eight bits (`Rounded`), for layers that
compute in them. Plain formulas everywhere; on a GPU that has Triton, kernels (`fused_triton.py`). Inside
these everything is float32, and rounded once. For inference: there are no gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

__all__ = [
    "FAINT",
    "Rounded",
    "add_bias",
    "channel_moments",
    "fits_kernels",
    "gated_sum",
    "gated_sum_norm",
    "linear_gelu",
    "modulated_norm",
    "rotate_normed",
    "rounded_gelu",
    "rounded_rows",
    "scaled_silu",
]

FAINT = 1e-12  # what a row of zeros is divided by


@dataclass(frozen=True, slots=True)
class Rounded:
    """Tokens in eight bits, `values * scale`: layers that compute in these take them as they take a tensor."""

    values: Float[Tensor, "b n d"]
    scale: Float[Tensor, "b n 1"]
    dtype: torch.dtype  # of the tokens that are rounded, and of what a layer makes of them

    @property
    def shape(self) -> torch.Size:
        """That of the tokens."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.values.device

    def __getitem__(self, part: tuple[slice, slice]) -> Rounded:
        """Some of the tokens, in the same memory."""
        return Rounded(self.values[part], self.scale[part], self.dtype)


@cache
def _kernels() -> ModuleType | None:
    """The module of Triton's kernels, or None where there is no Triton: it comes with PyTorch for Linux and CUDA."""
    if find_spec("triton") is None:
        return None
    from longtake.backbones import fused_triton

    return fused_triton


def _kernels_for(x: Tensor) -> ModuleType | None:
    return _kernels() if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16, torch.float32) else None


def modulated_norm(
    x: Float[Tensor, "b n d"],
    scale: Float[Tensor, "b d"],
    shift: Float[Tensor, "b d"],
    eps: float,
    out: Tensor | Rounded,
) -> None:
    """Writes `norm(x) (1 + scale) + shift` into `out`; norm is a layer norm without weights."""
    kernels = _kernels_for(x)
    if kernels is not None:
        kernels.modulated_norm(x, scale, shift, eps, out)
    else:
        _write_modulated(x, scale, shift, eps, out)


def gated_sum(
    x: Float[Tensor, "b n d"], y: Float[Tensor, "b n d"], gate: Float[Tensor, "b d"]
) -> Float[Tensor, "b n d"]:
    """`x + gate y`."""
    kernels = _kernels_for(x)
    return x + gate[:, None] * y if kernels is None else kernels.gated_sum(x, y, gate)


def gated_sum_norm(
    x: Float[Tensor, "b n d"],
    y: Float[Tensor, "b n d"],
    gate: Float[Tensor, "b d"],
    scale: Float[Tensor, "b d"],
    shift: Float[Tensor, "b d"],
    eps: float,
    out: Tensor | Rounded,
) -> Float[Tensor, "b n d"]:
    """`x + gate y`; writes that normed and modulated into `out`."""
    kernels = _kernels_for(x)
    if kernels is not None:
        return kernels.gated_sum_norm(x, y, gate, scale, shift, eps, out)
    total = x + gate[:, None] * y
    _write_modulated(total, scale, shift, eps, out)
    return total


def rotate_normed(
    x: Float[Tensor, "b n a e"],
    weight: Float[Tensor, " e"],
    eps: float,
    cos: Float[Tensor, "m e"],
    sin: Float[Tensor, "m e"],
) -> None:
    """Norms each head of `x` (RMS) and turns those of the first m tokens by their phases, in place.

    Neighboring channels (u, v) become (u cos - v sin, v cos + u sin).
    """
    kernels = _kernels_for(x)
    if kernels is not None and x.shape[3] in (16, 32, 64, 128, 256):
        return kernels.rotate_normed(x, weight, eps, cos, sin)
    exact = torch.promote_types(x.dtype, torch.float32)
    normed = x.to(exact)
    normed = normed * torch.rsqrt(normed.square().mean(-1, keepdim=True) + eps) * weight.to(exact)
    first = normed[:, : len(cos)]
    u, v = first.unflatten(-1, (-1, 2)).unbind(-1)
    turned = first * cos[:, None] + torch.stack([-v, u], dim=-1).flatten(-2) * sin[:, None]
    x[:, : len(cos)] = turned.to(x.dtype)
    x[:, len(cos) :] = normed[:, len(cos) :].to(x.dtype)
    return None


def is_plain(layer: nn.Module | None) -> TypeGuard[nn.Linear]:
    """True of a linear layer with a bias that is no more than its numbers: not adapted, and not stored otherwise."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and layer.bias is not None


def linear_gelu(x: Float[Tensor, "b n d"] | Rounded, linear: nn.Module) -> Float[Tensor, "b n m"]:
    """GELU, in its form with tanh, of a linear layer."""
    if not is_plain(linear) or isinstance(x, Rounded) or not x.is_cuda:
        return gelu(linear(x), approximate="tanh")
    made = torch._addmm_activation(linear.bias, x.flatten(0, 1), linear.weight.t(), use_gelu=True)
    return made.unflatten(0, x.shape[:2])


def rounded_rows(x: Float[Tensor, "n d"], dtype: torch.dtype) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"]]:
    """Each row divided so that its largest number is that of `dtype`, rounded to it; and by what it was divided."""
    # A compiler fuses the formula with what comes before.
    kernels = None if torch.compiler.is_compiling() else _kernels_for(x)
    if kernels is not None and x.stride(1) == 1:
        return kernels.rounded_rows(x, dtype)
    largest = torch.finfo(dtype).max
    scale = (x.abs().amax(1, keepdim=True).float() / largest).clamp(min=FAINT)
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def rounded_gelu(
    hidden: Float[Tensor, "b n m"], dtype: torch.dtype, beside: Float[Tensor, "b n d"] | None = None
) -> Rounded:
    """GELU, in its form with tanh, of `hidden`; behind `beside` where that is given. Not rounded in between."""
    rows, first = hidden.flatten(0, 1), None if beside is None else beside.flatten(0, 1)
    kernels = _kernels_for(hidden)
    if kernels is not None:
        values, scale = kernels.rounded_rows(rows, dtype, gelu=True, beside=first)
    else:
        made = gelu(rows.float(), approximate="tanh")
        values, scale = rounded_rows(made if first is None else torch.cat([first.float(), made], dim=1), dtype)
    return Rounded(*(part.unflatten(0, hidden.shape[:2]) for part in (values, scale)), dtype=hidden.dtype)


def fits_kernels(x: Float[Tensor, "1 d t h w"]) -> bool:
    """True if the functions for channels of images have kernels for such a tensor: the channels have to come last."""
    return _kernels_for(x) is not None and x.is_contiguous(memory_format=torch.channels_last_3d)


def channel_moments(x: Float[Tensor, "1 d t h w"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """The mean of each channel and of its square, in float64."""
    if fits_kernels(x):
        kernels = _kernels()
        assert kernels is not None
        return kernels.channel_moments(x)
    exact, count = torch.promote_types(x.dtype, torch.float32), x[0, 0].numel()
    mean = torch.sum(x, dim=(0, 2, 3, 4), dtype=exact).double() / count
    return mean, torch.linalg.vector_norm(x, dim=(0, 2, 3, 4), dtype=exact).double().square() / count


def scaled_silu(
    x: Float[Tensor, "1 d t h w"], scale: Float[Tensor, " d"], shift: Float[Tensor, " d"], out: Tensor
) -> None:
    """Writes `SiLU(scale x + shift)` into `out`, which may be a part of a larger tensor, as `x` may."""
    kernels = _kernels_for(x)
    if kernels is not None and x.stride(1) == out.stride(1) == 1:
        kernels.scaled_silu(x, scale, shift, out)
    else:
        out.copy_(silu(x * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)))


def add_bias(y: Float[Tensor, "1 d t h w"], bias: Float[Tensor, " d"], residual: Tensor | None, out: Tensor) -> None:
    """Writes `y + bias + residual` into `out`, which may be the residual; both may be rows of a larger tensor."""
    kernels = _kernels_for(y)
    if kernels is not None and y.stride(1) == out.stride(1) == 1:
        kernels.add_bias(y, bias, residual, out)
        return
    total = y + bias.view(-1, 1, 1, 1)
    out.copy_(total if residual is None else total + residual)


def _write_modulated(x: Tensor, scale: Tensor, shift: Tensor, eps: float, out: Tensor | Rounded) -> None:
    made = layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale[:, None]) + shift[:, None]
    if isinstance(out, Rounded):
        for part, place in zip(
            rounded_rows(made.flatten(0, 1), out.values.dtype), (out.values, out.scale), strict=True
        ):
            place.copy_(part.unflatten(0, x.shape[:2]))
    else:
        out.copy_(made)
