"""Who waits for whom, and host memory that a device can read by itself.

A device with streams copies while it computes. Three words are enough to order the two: `mark` a point in the work
queued so far, `wait` for a mark before the work queued next, `hold` the program itself until a mark has been passed.
Without streams every copy is finished when it returns, and there is nothing to wait for.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from mmap import PAGESIZE
from typing import Any

import torch
from torch import Tensor

from longtake.errors import ModelError

__all__ = ["CudaStreams", "NoStreams", "Streams", "open_streams"]


class NoStreams:
    """A device that copies and computes in one go."""

    def copying(self) -> AbstractContextManager[object]:
        """Nothing changes inside."""
        return nullcontext()

    def mark(self) -> None:
        """None: all is done."""

    def wait(self, mark: torch.cuda.Event | None) -> None:
        """Returns at once."""

    def hold(self, mark: torch.cuda.Event | None) -> None:
        """Returns at once."""

    def pinned(self, size: int) -> Tensor:
        """Bytes of plain memory: nothing needs pinning."""
        return torch.empty(size, dtype=torch.uint8)

    def close(self) -> None:
        """Nothing is pending."""


class CudaStreams:
    """A stream of copies beside the one that computes.

    Memory is pinned where it lies: PyTorch's own pinned allocator rounds each request up to a power of two, which for
    HunyuanVideo's blocks is 38.9 GB instead of 24.9.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)
        self._pinned: list[Tensor] = []

    def copying(self) -> AbstractContextManager[object]:
        """Work queued inside goes to the copies' stream, and memory allocated inside is reused by it alone."""
        return torch.cuda.stream(self._copies)

    def mark(self) -> torch.cuda.Event:
        """An event on the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, mark: torch.cuda.Event | None) -> None:
        """The current stream waits."""
        if mark is not None:
            torch.cuda.current_stream(self._device).wait_event(mark)

    def hold(self, mark: torch.cuda.Event | None) -> None:
        """The program waits."""
        if mark is not None:
            mark.synchronize()

    def pinned(self, size: int) -> Tensor:
        """Bytes of host memory on pages of their own, locked and mapped for the device.

        Raises:
            ModelError: the operating system does not lock that much.
        """
        pages = math.ceil(size / PAGESIZE) * PAGESIZE
        room = torch.empty(pages + PAGESIZE, dtype=torch.uint8)
        # By way of NumPy, so that its storage begins where the pinned pages do: `is_pinned` looks there.
        flat = torch.from_numpy(room.numpy()[-room.data_ptr() % PAGESIZE :][:size])
        with torch.cuda.device(self._device):
            failed = int(_runtime().cudaHostRegister(flat.data_ptr(), pages, 0))
        if failed:
            raise ModelError(
                f"{size / 2**20:.0f} MiB of host memory cannot be pinned after "
                f"{sum(each.numel() for each in self._pinned) / 2**30:.1f} GiB (CUDA error {failed}): "
                'host="staged" pins two buffers of a block\'s size only'
            )
        self._pinned.append(flat)
        return flat

    def close(self) -> None:
        """Waits for the copies and unlocks the pages."""
        self._copies.synchronize()
        while self._pinned:
            _runtime().cudaHostUnregister(self._pinned.pop().data_ptr())


def _runtime() -> Any:
    runtime = torch.cuda.cudart()
    assert runtime is not None  # a device was opened
    return runtime


Streams = CudaStreams | NoStreams


def open_streams(device: torch.device) -> Streams:
    """The streams of a device.

    Raises:
        ModelError: blocks cannot be streamed to such a device.
    """
    if device.type == "cuda":
        return CudaStreams(device)
    if device.type == "cpu":
        return NoStreams()
    raise ModelError(f"blocks cannot be streamed to {device}, only to cuda (or, for a trial, to cpu)")
