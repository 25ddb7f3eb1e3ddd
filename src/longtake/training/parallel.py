"""Several processes, one training: each has a copy of the network and its own share of the batch.

Started by torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process and nothing to join.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from longtake.backbones.parallel.joining import join

__all__ = ["ALONE", "World", "join_world"]


@dataclass(frozen=True, slots=True)
class World:
    """This process among its peers."""

    rank: int = 0
    size: int = 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.float().flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, value: float, device: torch.device | str) -> float:
        """The value of the first process, in all of them."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(shared, src=0)
        return float(shared.item())

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replaces every tensor by its sum over the processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def same_start(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the tensors of the first."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def leave(self) -> None:
        """Ends the group, once all are here."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


ALONE = World()


def join_world(device: str) -> tuple[World, str]:
    """The processes that torchrun started, and this one's device: `cuda` becomes `cuda:LOCAL_RANK`."""
    joined = join(device)
    return World(joined.rank, joined.size), joined.device
