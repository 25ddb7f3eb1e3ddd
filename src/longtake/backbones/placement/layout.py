"""How the tensors of a block lie in one flat buffer, and which tensors a forward reads at all.

    used      | norm.weight bf16 | to_q.weight bf16            | to_q.bias bf16 | ...     what the block computes with
    stored    | norm.weight bf16 | to_q.weight fp8 | to_q.bias bf16 | ...                 what is kept and transferred

The two are the same unless the matrices are stored in fewer bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longtake.errors import ModelError

__all__ = ["ALIGNMENT", "Layout", "Piece", "lay_out", "live_tensors", "repeated_blocks", "rest_module", "settle"]

ALIGNMENT = 256  # bytes, what CUDA's own allocations promise: no kernel asks a tensor for more

_AT_REST = "longtake_at_rest"  # a module whose tensors no forward reads, because a table has its results
_BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks")  # HunyuanVideo's two, Wan's one


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of a block, and where it begins in either buffer."""

    name: str
    shape: tuple[int, ...]
    used: torch.dtype
    stored: torch.dtype
    used_at: int
    stored_at: int


@dataclass(frozen=True, slots=True)
class Layout:
    """All tensors of a block; the bytes are those of the two buffers, gaps for alignment included."""

    pieces: tuple[Piece, ...]
    used_bytes: int
    stored_bytes: int

    @property
    def casts(self) -> bool:
        """True if a tensor is stored in another type than it is used in."""
        return any(piece.used != piece.stored for piece in self.pieces)

    def used_views(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the block in a buffer of bytes that has the used layout."""
        return tuple(_view(flat, piece.shape, piece.used, piece.used_at) for piece in self.pieces)

    def stored_views(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The same in a buffer that has the stored layout."""
        return tuple(_view(flat, piece.shape, piece.stored, piece.stored_at) for piece in self.pieces)


def lay_out(tensors: Mapping[str, Tensor], storage: torch.dtype | None = None) -> Layout:
    """The layout of named tensors; with `storage` the floating-point matrices among them are stored in that type.

    >>> block = nn.Linear(4, 8, dtype=torch.bfloat16)
    >>> lay_out(dict(block.named_parameters())).used_bytes
    512
    >>> [piece.stored for piece in lay_out(dict(block.named_parameters()), torch.float8_e4m3fn).pieces]
    [torch.float8_e4m3fn, torch.bfloat16]
    """
    pieces, used_at, stored_at = [], 0, 0
    for name, tensor in tensors.items():
        shrinks = storage is not None and tensor.is_floating_point() and tensor.ndim > 1
        stored = storage if shrinks and storage is not None else tensor.dtype
        pieces.append(Piece(name, tuple(tensor.shape), tensor.dtype, stored, used_at, stored_at))
        used_at += _aligned(tensor.numel() * tensor.dtype.itemsize)
        stored_at += _aligned(tensor.numel() * stored.itemsize)
    return Layout(tuple(pieces), used_at, stored_at)


def live_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers that a forward reads, each once: not those that a table stands for."""
    resting = {id(t) for part in module.modules() if hasattr(part, _AT_REST) for t in _tensors(part)}
    seen: set[int] = set()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if id(tensor) not in resting and id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def rest_module(module: nn.Module, rests: bool = True) -> None:
    """Marks a module: a forward does not read its tensors, so that they need not be on the device."""
    if rests:
        setattr(module, _AT_REST, True)
    else:
        delattr(module, _AT_REST)


def settle(module: nn.Module, device: torch.device, leave: Iterable[nn.Module] = ()) -> None:
    """Moves what a forward reads to a device, except the tensors of the modules to `leave` where they are."""
    left = {id(tensor) for part in leave for tensor in _tensors(part)}
    for name, tensor in live_tensors(module):
        if tensor.is_meta:
            raise ModelError(f"{name} has no weights yet: load the checkpoint before it is placed")
        if id(tensor) in left:
            continue
        if type(tensor) in (nn.Parameter, Tensor):
            tensor.data = tensor.data.to(device)
        else:  # of another package, whose layer knows what belongs to it
            module.get_submodule(name.rpartition(".")[0]).to(device)


def repeated_blocks(transformer: nn.Module) -> tuple[nn.Module, ...]:
    """The blocks of a transformer, in the order in which its forward calls them.

    Raises:
        ModelError: it has no list of blocks that is known here.
    """
    lists = [getattr(transformer, name) for name in _BLOCK_LISTS if hasattr(transformer, name)]
    if not lists:
        raise ModelError(
            f"{type(transformer).__name__} has none of {', '.join(_BLOCK_LISTS)}: name its blocks yourself"
        )
    return tuple(block for blocks in lists for block in blocks)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


def _view(flat: Tensor, shape: tuple[int, ...], dtype: torch.dtype, start: int) -> Tensor:
    return flat[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
