"""The processes that torchrun started, and this one among them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

__all__ = ["Joined", "join", "output_for_data"]


@dataclass(frozen=True, slots=True)
class Joined:
    """This process among its peers."""

    rank: int
    size: int
    device: str


def join(device: str) -> Joined:
    """Meets the processes that torchrun started; each has a device of its own: `cuda` becomes `cuda:LOCAL_RANK`.

    torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process and nothing to join.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Joined(0, 1, device)
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    with output_for_data():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Joined(int(os.environ["RANK"]), size, device)


@contextmanager
def output_for_data() -> Iterator[None]:
    """Sends to standard error what gloo says of a group on standard output (PyTorch 2.9 and 2.10)."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
