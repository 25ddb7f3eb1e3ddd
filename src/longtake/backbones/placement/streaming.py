"""Blocks whose weights are in host memory and reach the device one ahead of their turn.

    host       | block 0 | block 1 | block 2 | ...                one flat buffer a block, pinned
    copies         block 1 -> B    block 2 -> A    block 3 -> B
    compute    block 0 in A    block 1 in B    block 2 in A       two slots (or more) as large as the largest block

A slot is overwritten after the block that computed in it has finished, a block computes after its slot is full: marks
in the device's queues see to both, the program waits for neither. The last block of a step fetches the first of the
next. A block that is called out of turn is fetched on demand.

A parameter stays the same object for ever. While its block computes, its `data` is a view of a slot, otherwise of the
host's buffer; so adapters, compiled blocks and `state_dict` find what they expect.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from longtake.backbones.placement.innermost import innermost_forward, place_innermost
from longtake.backbones.placement.layout import Layout, lay_out, live_tensors, repeated_blocks, settle
from longtake.backbones.placement.streams import Streams, open_streams
from longtake.errors import ModelError

__all__ = ["Host", "Streaming", "stream_blocks"]

Host = Literal["pinned", "staged"]


@dataclass(frozen=True, slots=True)
class _Block:
    """A block and its weights in host memory."""

    module: nn.Module
    tensors: tuple[Tensor, ...]  # the parameters themselves
    layout: Layout
    home: tuple[Tensor, ...]  # their values, as they are stored
    shifts: tuple[int, ...]  # a stored value is the used one times two to this power
    flat: Tensor | None  # all of `home` in one buffer, unless it is gathered at each transfer


@dataclass(slots=True)
class _Slot:
    """Room for one block on the device."""

    flat: Tensor
    views: list[tuple[Tensor, ...]]  # of each block's tensors, if they were here
    staging: Tensor | None  # a pinned buffer in front of host memory that is not
    holds: int | None = None
    since: int = 0
    filled: torch.cuda.Event | None = None
    freed: torch.cuda.Event | None = None


class Streaming:
    """The blocks of one network, streamed until `remove`."""

    def __init__(
        self, transformer: nn.Module, blocks: tuple[_Block, ...], slots: list[_Slot], streams: Streams
    ) -> None:
        self.fetches = 0  # blocks copied to the device so far
        self.misses = 0  # of these, those for which the computation had to wait from the start
        self._transformer = transformer
        self._blocks = blocks
        self._slots = slots
        self._streams = streams
        largest = max(block.layout.stored_bytes for block in blocks)
        casts = any(block.layout.casts for block in blocks)
        self._packed = _room(largest if casts else 0, slots[0].flat.device, streams)
        self._handles = [b.module.register_state_dict_post_hook(_widen(b)) for b in blocks if b.layout.casts]
        self._restores = [self._wrap(index, block.module) for index, block in enumerate(blocks)]
        for module in (transformer, *(block.module for block in blocks)):
            module._apply = _refuse_to_move
            module.compile = _refuse_to_compile
        # A network that is dropped without `remove` must not leave locked pages behind. `streams` keeps the buffers.
        self._finalizer = weakref.finalize(self, streams.close)
        self._finalizer.atexit = False

    @property
    def device_bytes(self) -> int:
        """What the slots take on the device."""
        return sum(slot.flat.numel() for slot in self._slots) + self._packed.numel()

    @property
    def pinned_bytes(self) -> int:
        """What is pinned in host memory (or would be, were there a device)."""
        flats = [block.flat for block in self._blocks] + [slot.staging for slot in self._slots]
        return sum(flat.numel() for flat in flats if flat is not None)

    def refresh(self) -> None:
        """Forgets what lies on the device, after weights were changed in place: merged adapters, a loaded state."""
        for slot in self._slots:
            slot.holds = None

    def remove(self) -> None:
        """Gives the network back, all of it in host memory; what was stored in fewer bits has its original type."""
        self._finalizer()
        for restore in self._restores:
            restore()
        for handle in self._handles:
            handle.remove()
        for module in (self._transformer, *(block.module for block in self._blocks)):
            del module._apply, module.compile
        for block in self._blocks:
            for tensor, value in zip(block.tensors, _used(block), strict=True):
                tensor.data = value
        settle(self._transformer, torch.device("cpu"))
        self._slots, self._packed = [], torch.empty(0)

    def _wrap(self, index: int, module: nn.Module) -> Callable[[], None]:
        """Lets the block's own call happen between `_enter` and `_leave`; gives what takes that back.

        A compiled block is met outside of what is compiled, any other beneath its hooks: a step cache that skips it
        then transfers nothing.
        """
        compiled = module._compiled_call_impl
        inner = innermost_forward(module) if compiled is None else compiled

        @functools.wraps(inner)
        def around(*args: Any, **kwargs: Any) -> Any:
            self._enter(index)
            try:
                return inner(*args, **kwargs)
            finally:
                self._leave(index)

        if compiled is None:
            place_innermost(module, around)
            return functools.partial(place_innermost, module, inner)
        module._compiled_call_impl = around
        return functools.partial(setattr, module, "_compiled_call_impl", compiled)

    def _enter(self, index: int) -> None:
        if torch.is_grad_enabled():
            raise ModelError("streamed blocks have no gradients: call the network under torch.no_grad()")
        slot = self._slot_of(index)
        if slot is None:
            self.misses += 1
            slot = min(self._slots, key=lambda slot: slot.since)
            self._fetch(index, slot)
        self._streams.wait(slot.filled)
        for tensor, view in zip(self._blocks[index].tensors, slot.views[index], strict=True):
            tensor.data = view

    def _leave(self, index: int) -> None:
        slot = self._slot_of(index)
        assert slot is not None
        slot.freed = self._streams.mark()
        for tensor, value in zip(self._blocks[index].tensors, self._blocks[index].home, strict=True):
            tensor.data = value
        # Not before this block is queued: gathering a staged block takes the program's time.
        count = min(len(self._slots), len(self._blocks))
        soon = [(index + ahead) % len(self._blocks) for ahead in range(count)]
        for wanted in soon[1:]:
            if self._slot_of(wanted) is None:
                self._fetch(wanted, next(slot for slot in self._slots if slot.holds not in soon))

    def _slot_of(self, index: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds == index), None)

    def _fetch(self, index: int, slot: _Slot) -> None:
        """Queues the copy of a block into a slot, behind what still computes there."""
        block = self._blocks[index]
        self.fetches += 1
        slot.holds, slot.since = index, self.fetches
        source = block.flat
        if source is None:
            assert slot.staging is not None
            self._streams.hold(slot.filled)  # the copy that read this staging buffer last
            source = slot.staging
            for place, value in zip(block.layout.stored_views(source), block.home, strict=True):
                place.copy_(value)
        size = block.layout.stored_bytes
        with self._streams.copying():
            self._streams.wait(slot.freed)
            if block.layout.casts:
                self._packed[:size].copy_(source[:size], non_blocking=True)
                _unpack(block, block.layout.stored_views(self._packed), slot.views[index])
            else:
                slot.flat[:size].copy_(source[:size], non_blocking=True)
            slot.filled = self._streams.mark()


@torch.inference_mode(False)
@torch.no_grad()  # inside: leaving inference mode turns gradients on
def stream_blocks(
    transformer: nn.Module,
    device: torch.device,
    blocks: Sequence[nn.Module] | None = None,
    slots: int = 2,
    host: Host = "pinned",
    storage: torch.dtype | None = None,
) -> Streaming:
    """Moves all but the blocks to the device, and lets the blocks come there one by one when they are called.

    Adapters and tables are installed before, blocks compiled before (one by one, with `block.compile()`).

    Args:
        transformer: the network, in host memory.
        device: where it computes.
        blocks: in the order in which its forward calls them; without it, the lists of blocks that diffusers'
            HunyuanVideo and Wan classes have.
        slots: how many blocks have room on the device, at least two.
        host: "pinned" keeps each block in a pinned buffer of its own. "staged" leaves the weights where they are, in
            pages of a file for example, and pins one buffer a slot, through which each transfer is gathered.
        storage: a floating-point type in which matrices are stored and transferred, such as `torch.float8_e4m3fn`. They
            are scaled by a power of two each to fill its range, and rounded: no longer the same function.

    Raises:
        ModelError: weights are missing, quantized or shared, a block is streamed already, or the device, the number of
            slots or the storage will not do.
    """
    modules = repeated_blocks(transformer) if blocks is None else tuple(blocks)
    if slots < 2:
        raise ModelError(f"{slots} slot cannot hold the block that computes and the next one: 2 is the least")
    if storage is not None and not storage.is_floating_point:
        raise ModelError(f"{storage} is no floating-point type: torch.float8_e4m3fn is what matrices are stored in")
    _check(modules)
    streams = open_streams(device)
    settle(transformer, device, leave=modules)
    try:
        homes = tuple(_bring_home(module, host, storage, streams) for module in modules)
        room = [_open_slot(homes, device, host, streams) for _ in range(slots)]
    except ModelError:
        streams.close()
        raise
    return Streaming(transformer, homes, room, streams)


def _check(modules: tuple[nn.Module, ...]) -> None:
    owner: dict[int, str] = {}
    for index, module in enumerate(modules):
        if module.__dict__.get("_apply") is _refuse_to_move:
            raise ModelError("these blocks are streamed already: remove() that first")
        for name, tensor in live_tensors(module):
            if tensor.is_meta:
                raise ModelError(f"block {index}: {name} has no weights yet: load the checkpoint before it is placed")
            if type(tensor) not in (nn.Parameter, Tensor):
                raise ModelError(
                    f"block {index}: {name} is a {type(tensor).__name__}: only plain tensors can be streamed"
                )
            if id(tensor) in owner:
                raise ModelError(
                    f"block {index}: {name} is also {owner[id(tensor)]}: shared weights cannot be streamed"
                )
            owner[id(tensor)] = f"{name} of block {index}"


def _bring_home(module: nn.Module, host: Host, storage: torch.dtype | None, streams: Streams) -> _Block:
    """The block in host memory, as it will be stored; its parameters give up the memory they had."""
    named = dict(live_tensors(module))
    layout = lay_out(named, storage)
    shifts = tuple(
        0 if piece.used == piece.stored else _shift(tensor, piece.stored)
        for piece, tensor in zip(layout.pieces, named.values(), strict=True)
    )
    values = [tensor.data.cpu() for tensor in named.values()]
    flat = None
    if host == "pinned":
        flat = streams.pinned(layout.stored_bytes)
        home = layout.stored_views(flat)
    else:
        home = tuple(
            value if piece.used == piece.stored else torch.empty_like(value, dtype=piece.stored)
            for piece, value in zip(layout.pieces, values, strict=True)
        )
    for place, value, shift, tensor in zip(home, values, shifts, named.values(), strict=True):
        if place is not value:
            place.copy_(value if shift == 0 else value.float() * 2.0**shift)
        tensor.data = place
    return _Block(module, tuple(named.values()), layout, home, shifts, flat)


def _open_slot(blocks: tuple[_Block, ...], device: torch.device, host: Host, streams: Streams) -> _Slot:
    flat = _room(max(block.layout.used_bytes for block in blocks), device, streams)
    staging = None
    if host == "staged":
        staging = streams.pinned(max(block.layout.stored_bytes for block in blocks))
    return _Slot(flat, [block.layout.used_views(flat) for block in blocks], staging)


def _room(size: int, device: torch.device, streams: Streams) -> Tensor:
    """Bytes on the device. They belong to the copies' stream: dropped, they are not reused before its work is done."""
    with streams.copying():
        return torch.empty(size, dtype=torch.uint8, device=device)


def _shift(tensor: Tensor, storage: torch.dtype) -> int:
    """The power of two that brings the largest value just under the largest that `storage` knows."""
    largest = tensor.abs().max().item()
    return math.floor(math.log2(torch.finfo(storage).max / largest)) if largest > 0 else 0


def _unpack(block: _Block, stored: tuple[Tensor, ...], places: tuple[Tensor, ...]) -> None:
    for value, shift, place in zip(stored, block.shifts, places, strict=True):
        place.copy_(value)
        if shift:
            place.mul_(2.0**-shift)  # exact: a power of two


def _used(block: _Block) -> tuple[Tensor, ...]:
    """The block's tensors as they are used, in host memory."""
    if not block.layout.casts:
        return block.home
    places = tuple(torch.empty(piece.shape, dtype=piece.used) for piece in block.layout.pieces)
    _unpack(block, block.home, places)
    return places


def _widen(block: _Block) -> Callable[..., None]:
    """A hook that gives a state dict the values that are used instead of those that are stored."""

    def widen(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
        state.update({prefix + p.name: v for p, v in zip(block.layout.pieces, _used(block), strict=True)})

    return widen


def _refuse_to_move(*args: Any, **kwargs: Any) -> NoReturn:
    raise ModelError("the blocks of this network are streamed: remove() that before it is moved or cast as a whole")


def _refuse_to_compile(*args: Any, **kwargs: Any) -> NoReturn:
    raise ModelError(
        "the blocks of this network are streamed: remove() that, compile them one by one, stream them again"
    )
