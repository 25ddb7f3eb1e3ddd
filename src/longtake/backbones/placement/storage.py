"""The matrices of the blocks in fewer bits than they are computed with.

    full   as it is                                                 16 bits a weight (bfloat16)
    fp8    float8_e4m3fn times a scale a row                         8
    int8   -127 ... 127 times a scale a row                          8
    nf4    one of sixteen numbers times a scale for 64 weights       4.5

A stored layer holds plain tensors and makes its matrix anew at each call, in the type of its input, so that it works
on any device, lies beneath adapters like any linear layer, and is streamed at its small size. Only what is large is
stored so: the linear layers of the repeated blocks. Modulation, norms, embedders, the text refiner and the last layer
stay as they are: they are small, or an error in them is in every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from longtake.backbones.fused import Rounded
from longtake.backbones.placement.layout import repeated_blocks
from longtake.errors import ModelError

__all__ = [
    "STORAGES",
    "Form",
    "Matrix",
    "Storage",
    "StoredLinear",
    "block_linears",
    "multiply_full",
    "put_linear",
    "store_linears",
]

Storage = Literal["full", "fp8", "int8", "nf4"]

FP8 = torch.float8_e4m3fn
_FP8_LARGEST = torch.finfo(FP8).max
GROUP = 64  # weights of a row that share a scale in nf4 (QLoRA, arXiv 2305.14314, section 3)

# Quantiles of a normal distribution, zero among them, scaled to [-1, 1] (QLoRA, appendix E).
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """One way to store a matrix, and to compute with it: of tokens, or of rounded ones if it computes in eight bits."""

    name: str
    unpack: Callable[[StoredLinear, torch.dtype], Float[Tensor, "o i"]]
    multiply: Callable[[StoredLinear, Any], Float[Tensor, "... o"]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of `rows` x `columns` as it is stored. Scale and table have one dimension, and are no matrices."""

    form: Form
    rows: int
    columns: int
    weight: Tensor
    scale: Float[Tensor, " n"] | None = None
    table: Float[Tensor, " v"] | None = None  # what numbers in `weight` stand for


class StoredLinear(nn.Linear):
    """A linear layer whose matrix is stored in another form. Its bias, if any, is that of the layer it replaces."""

    scale: Tensor  # these two: None in a form that has none
    table: Tensor

    def __init__(self, matrix: Matrix, bias: Tensor | None) -> None:
        super().__init__(matrix.columns, matrix.rows, bias=False, device="meta")
        self.form = matrix.form
        self.weight = nn.Parameter(matrix.weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.register_buffer("scale", matrix.scale)
        self.register_buffer("table", matrix.table)

    def forward(self, input: Float[Tensor, "... i"] | Rounded) -> Float[Tensor, "... o"]:
        """As a linear layer, in the type of its input."""
        return self.form.multiply(self, input)

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"{super().extra_repr()}, stored={self.form.name}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StoredLinear:
        """Casting the network leaves alone what only looks like numbers of that type."""
        kept = {id(tensor) for tensor in (self.weight, self.scale, self.table) if tensor is not None}

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) not in kept or moved.dtype == tensor.dtype:
                return moved
            return torch.empty_like(tensor, device="meta") if moved.is_meta else tensor.to(moved.device)

        super()._apply(move, recurse)
        return self


def store_linears(transformer: nn.Module, storage: Storage, device: torch.device) -> int:
    """Stores the large matrices of a network in another form; returns how many.

    To be called after loading, before LoRAs, tables, compiling and streaming. On the meta device it gives a network
    from which `place` reads what one with weights would take.

    Args:
        transformer: with weights, or on the meta device.
        storage: a row of `STORAGES`, or "full", which changes nothing.
        device: where the rounding is computed. What is stored lies where the matrix lay.

    Raises:
        ModelError: the network has been prepared further than it may be, or its blocks are unknown.
    """
    if storage == "full":
        return 0
    layers = {name: layer for name, layer in block_linears(transformer).items() if not isinstance(layer, StoredLinear)}
    pack = STORAGES[storage]
    for name, layer in layers.items():
        put_linear(transformer, name, _moved(pack(_visiting(layer.weight, device)), layer.weight.device), layer.bias)
    return len(layers)


def block_linears(transformer: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the repeated blocks, by name, except those of norms, which modulate.

    Raises:
        ModelError: the blocks are unknown, streamed or adapted already.
    """
    blocks = {id(block) for block in repeated_blocks(transformer)}
    inside: list[str] = []
    found: dict[str, nn.Linear] = {}
    for name, module in transformer.named_modules():
        if id(module) in blocks:
            if "_apply" in vars(module):
                raise ModelError("the blocks are streamed already: choose the storage before they are")
            inside.append(f"{name}.")
        if type(module).__module__.startswith("peft."):
            raise ModelError(f"{name} has adapters already: choose the storage, then apply LoRAs")
        if not isinstance(module, nn.Linear) or not name.startswith(tuple(inside)):
            continue
        if not any(part.startswith("norm") for part in name.split(".")):
            found[name] = module
    return found


def put_linear(transformer: nn.Module, name: str, matrix: Matrix, bias: Tensor | None) -> None:
    """Puts a stored layer in the place of the one of that name."""
    parent, _, own = name.rpartition(".")
    setattr(transformer.get_submodule(parent), own, StoredLinear(matrix, bias))


def _visiting(weight: Tensor, device: torch.device) -> Float[Tensor, "o i"]:
    return weight.detach() if weight.is_meta else weight.detach().to(device)


def _moved(matrix: Matrix, device: torch.device) -> Matrix:
    scale, table = (None if tensor is None else tensor.to(device) for tensor in (matrix.scale, matrix.table))
    return Matrix(matrix.form, matrix.rows, matrix.columns, matrix.weight.to(device), scale, table)


def multiply_full(layer: StoredLinear, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
    """With the whole matrix, which lives as long as the product."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return functional.linear(x, layer.form.unpack(layer, x.dtype), bias)


def _unpack_rows(layer: StoredLinear, dtype: torch.dtype) -> Float[Tensor, "o i"]:
    """What is stored times the scale of its row: eight bits are exact in any type, so that it is rounded once."""
    return layer.weight.to(dtype).mul_(layer.scale[:, None])


def _unpack_nf4(layer: StoredLinear, dtype: torch.dtype) -> Float[Tensor, "o i"]:
    """Each byte is the number of a pair of weights."""
    pairs = functional.embedding(layer.weight.int(), layer.table.view(-1, 2))
    groups = pairs.flatten(1).to(dtype).mul_(layer.scale[:, None])
    size = layer.out_features * layer.in_features
    return groups.flatten()[:size].view(layer.out_features, layer.in_features)


FP8_ROWS = Form("fp8", _unpack_rows, multiply_full)
INT8_ROWS = Form("int8", _unpack_rows, multiply_full)
_NF4_GROUPS = Form("nf4", _unpack_nf4, multiply_full)


def _row_scale(weight: Float[Tensor, "o i"], largest: float) -> Float[Tensor, " o"]:
    """What brings the largest weight of each row to `largest`."""
    scale = weight.abs().amax(1).float() / largest
    return torch.where(scale > 0, scale, 1.0)


def _pack_fp8(weight: Float[Tensor, "o i"]) -> Matrix:
    scale = _row_scale(weight, _FP8_LARGEST)
    scaled = (weight.float() / scale[:, None]).clamp(-_FP8_LARGEST, _FP8_LARGEST)  # beyond it there is only NaN
    return Matrix(FP8_ROWS, len(weight), weight.shape[1], scaled.to(FP8), scale)


def _pack_int8(weight: Float[Tensor, "o i"]) -> Matrix:
    scale = _row_scale(weight, 127.0)
    return Matrix(
        INT8_ROWS, len(weight), weight.shape[1], (weight.float() / scale[:, None]).round().to(torch.int8), scale
    )


def _pack_nf4(weight: Float[Tensor, "o i"]) -> Matrix:
    flat = functional.pad(weight.float().flatten(), (0, -weight.numel() % GROUP)).view(-1, GROUP)
    values = torch.tensor(_NF4, device=weight.device)
    scale = _row_scale(flat, 1.0)
    numbers = torch.bucketize(flat / scale[:, None], (values[1:] + values[:-1]) / 2)
    packed = (numbers[:, ::2] << 4 | numbers[:, 1::2]).to(torch.uint8)
    table = torch.stack([values.repeat_interleave(16), values.repeat(16)], dim=1).flatten()
    return Matrix(_NF4_GROUPS, len(weight), weight.shape[1], packed, scale, table)


STORAGES: dict[str, Callable[[Any], Matrix]] = {"fp8": _pack_fp8, "int8": _pack_int8, "nf4": _pack_nf4}
