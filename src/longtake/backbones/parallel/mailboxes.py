"""Memory on each device of a group that the others write into, where devices reach each other's memory.

What is sent is written where it will be read, by one copy and in its last layout. A collective wants it laid out before
and after, and takes longer to start than a block's tokens take to travel.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

__all__ = ["Mailboxes", "open_mailboxes"]


@runtime_checkable
class Mailboxes(Protocol):
    """A piece of memory for each rank. All ranks call the same methods in the same order."""

    def of(self, count: int, dtype: torch.dtype) -> list[Tensor]:
        """As many numbers in the memory of each rank, flat, in the order of ranks."""
        ...

    def meet(self) -> None:
        """What is queued after it comes after all that every rank has queued before it, and sees what that wrote."""
        ...


class SymmetricMailboxes:
    """In PyTorch's symmetric memory. The program goes on; it is the devices that meet."""

    def __init__(self, group: ProcessGroup, device: torch.device) -> None:
        self._group, self._device = group, device
        self._handle: Any = None
        self._bytes = 0

    def of(self, count: int, dtype: torch.dtype) -> list[Tensor]:
        """See `Mailboxes`."""
        from torch.distributed import _symmetric_memory as symmetric

        size = count * dtype.itemsize
        if size > self._bytes:
            torch.cuda.synchronize(self._device)  # what was there before is still being read
            own = symmetric.empty(size, dtype=torch.uint8, device=self._device)
            self._handle, self._bytes = symmetric.rendezvous(own, self._group), size
        return [self._handle.get_buffer(rank, (count,), dtype) for rank in range(self._group.size())]

    def meet(self) -> None:
        """See `Mailboxes`."""
        self._handle.barrier(channel=0)


def open_mailboxes(group: ProcessGroup, device: torch.device) -> Mailboxes | None:
    """Mailboxes on the devices of a group, or None where one of them does not reach the others' memory."""
    if device.type != "cuda" or group.size() > torch.cuda.device_count():
        return None
    opened = SymmetricMailboxes(group, device)
    try:
        opened.of(1, torch.uint8)
        opened.meet()
        torch.cuda.synchronize(device)
        reached = 1
    except (RuntimeError, ImportError, AttributeError):  # by links, drivers, containers, or this PyTorch
        reached = 0
    agreed = torch.tensor(reached, device=device)
    distributed.all_reduce(agreed, distributed.ReduceOp.MIN, group)
    return opened if agreed.item() else None
