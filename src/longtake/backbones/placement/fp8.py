"""Linear layers that compute in eight bits on the tensor cores of Ada, Hopper and later GPUs.

    y[m, o]  =  (sum over i of  X[m, i] * W[o, i])  *  s[m] * t[o]  +  bias[o]

X and W are float8_e4m3fn. The scale t of a row of the matrix is found once, the scale s of a token at each call. Half
of the bytes, twice the rate of bfloat16; the result is another one: each weight and each activation has three bits
after its leading one.

Tokens that several such layers take are rounded once, by what makes them: `room_for` those layers is where it writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.fused import Rounded, is_plain, rounded_rows
from longtake.backbones.placement.storage import (
    FP8,
    FP8_ROWS,
    STORAGES,
    Form,
    Matrix,
    StoredLinear,
    block_linears,
    put_linear,
)
from longtake.errors import ModelError

__all__ = ["compute_in_fp8", "computes_in_fp8", "multiply_into", "room_for"]

_CAPABILITY = (8, 9)  # of the first GPUs with such tensor cores
_MULTIPLE = 16  # of rows and columns, what the kernels take
_ALIGNMENT = 16  # of what they read, in bytes
_WIDE = torch.bfloat16  # what the kernels give


def compute_in_fp8(transformer: nn.Module, device: torch.device) -> int:
    """Lets the large linear layers of the blocks compute in fp8; returns how many.

    Layers that are stored in fp8 already keep their numbers; others are rounded, what they were stored in included. To
    be called after loading, before LoRAs, tables, compiling and streaming. It is fast where there is Triton, whose
    kernel finds a token's scale and rounds it in one pass over memory, or when the blocks are compiled.

    Args:
        transformer: with weights.
        device: where it will compute, and where the rounding is computed. What is stored lies where the matrix lay.

    Raises:
        ModelError: the device has no fp8, the network has no layers for it, or it has been prepared further than it
            may be.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _CAPABILITY:
        raise ModelError(
            f"{torch.cuda.get_device_name(device)} does not compute in fp8; store the matrices in it instead, "
            "or choose int8"
        )
    layers = {
        name: layer
        for name, layer in block_linears(transformer).items()
        if not layer.in_features % _MULTIPLE and not layer.out_features % _MULTIPLE
    }
    if any(type(layer.weight) is not nn.Parameter for layer in layers.values()):
        raise ModelError("the matrices are stored by another package, which computes with them: leave out fp8")
    if not layers:
        raise ModelError(f"{type(transformer).__name__} has no layers whose sizes are multiples of {_MULTIPLE}")
    for name, layer in layers.items():
        matrix = _in_fp8(layer, device)
        put_linear(transformer, name, matrix, layer.bias)
    return len(layers)


def _in_fp8(layer: nn.Linear, device: torch.device) -> Matrix:
    if isinstance(layer, StoredLinear) and layer.weight.dtype == FP8:
        weight, scale = layer.weight.detach(), layer.scale
    else:
        home = layer.weight.device
        full = layer.form.unpack(layer, torch.float32) if isinstance(layer, StoredLinear) else layer.weight.detach()
        packed = STORAGES["fp8"](full.to(device))
        assert packed.scale is not None
        weight, scale = packed.weight.to(home), packed.scale.to(home)
    return Matrix(COMPUTED, layer.out_features, layer.in_features, weight, scale)


def computes_in_fp8(layer: nn.Module) -> bool:
    """True of a layer that takes tokens in eight bits too; those with adapters do not."""
    return type(layer) is StoredLinear and layer.form is COMPUTED


def room_for(layers: Sequence[nn.Module], like: Float[Tensor, "b m d"], n: int) -> Float[Tensor, "b n d"] | Rounded:
    """Where to write n tokens that these layers take: in eight bits if all compute in them."""
    b, _, d = like.shape
    if not all(computes_in_fp8(layer) for layer in layers):
        return like.new_empty(b, n, d)
    return Rounded(like.new_empty(b, n, d, dtype=FP8), like.new_empty(b, n, 1, dtype=torch.float32), like.dtype)


def multiply_into(layer: nn.Module, x: Float[Tensor, "b n i"] | Rounded, out: Float[Tensor, "b n o"]) -> None:
    """Writes what the layer makes of `x` into `out`; without a copy if its rows follow one another.

    Of rows with gaps between them `_scaled_mm` is right only where it calls cuBLAS (from 12.9 on, on Hopper): CUTLASS's
    kernels write some shapes as if there were none.
    """
    if isinstance(x, Rounded) and isinstance(layer, StoredLinear) and out.dtype == _WIDE and out.is_contiguous():
        _multiply(layer, x, out.flatten(0, 1))
    elif isinstance(x, Tensor) and is_plain(layer) and out.is_contiguous():
        torch.addmm(layer.bias, x.flatten(0, 1), layer.weight.t(), out=out.flatten(0, 1))
    else:
        out.copy_(layer(x))


def _multiply(
    layer: StoredLinear, x: Float[Tensor, "... i"] | Rounded, out: Float[Tensor, "m o"] | None = None
) -> Float[Tensor, "... o"]:
    """Rounds the tokens, multiplies in eight bits, adds up in more, and scales back."""
    if isinstance(x, Rounded):
        tokens, scale = x.values.flatten(0, 1), x.scale.flatten(0, 1)
        if scale.data_ptr() % _ALIGNMENT:  # those of a part of the tokens
            scale = scale.clone()
    else:
        tokens, scale = rounded_rows(x.reshape(-1, layer.in_features), FP8)
    product = _product(tokens, layer.weight, scale, layer.scale[None], layer.bias, out)
    return product.to(x.dtype).view(*x.shape[:-1], layer.out_features)


def _product(
    tokens: Float[Tensor, "m i"],
    weight: Float[Tensor, "o i"],
    s: Float[Tensor, "m 1"],
    t: Float[Tensor, "1 o"],
    bias: Float[Tensor, " o"] | None,
    out: Float[Tensor, "m o"] | None,
) -> Float[Tensor, "m o"]:
    """On a GPU the kernel for it, which gives bfloat16; elsewhere the formula."""
    if tokens.is_cuda:
        bias = None if bias is None else bias.to(_WIDE)
        return torch._scaled_mm(tokens, weight.t(), s, t, bias, out_dtype=_WIDE, use_fast_accum=True, out=out)
    product = tokens.float() @ weight.float().t() * s * t
    product = product if bias is None else product + bias
    return product if out is None else out.copy_(product)


COMPUTED = Form("fp8, computed", FP8_ROWS.unpack, _multiply)
