"""How fast a device multiplies, attends, copies and is reached, and what that makes of work.

    step = operations in matrices / their rate + operations of attention / theirs + traffic / copies a second

and not less than its weights need to arrive, where they are streamed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from longtake.backbones.attention import Kernel, attend
from longtake.backbones.workload import Operations

__all__ = ["Probe", "Rates", "measure_rates"]

# What a decoder makes of the rate of matrix products. HunyuanVideo's, folded, channels last: one section, 420 TFLOP as
# diffusers computes it, in 1.21 s on an H100 of 752 TFLOP/s. Convolutions of a CPU are about as near to its products.
DECODING_SHARE = 420 / 1.21 / 752
GATHERED = 7.5e9  # bytes a second from plain host memory, by way of a staging buffer (measured on an H100's host)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does in a second."""

    linear: float  # operations of matrix products
    attention: float  # operations
    copy: float  # bytes read and written in its own memory
    link: float  # bytes from pinned host memory
    decoding: float  # operations of a codec's convolutions

    def step(self, operations: Operations, traffic: float, transfer: int = 0, staged: bool = False) -> float:
        """Seconds of one evaluation of a network, blocks not compiled.

        Args:
            operations: of the evaluation.
            traffic: bytes in the device's memory beside the products.
            transfer: bytes of weights that come from the host meanwhile.
            staged: they are gathered from plain memory.
        """
        compute = operations.linear / self.linear + operations.attention / self.attention + traffic / self.copy
        return max(compute, transfer / self.link, transfer / GATHERED if staged else 0.0)


@dataclass(frozen=True, slots=True)
class Probe:
    """The shapes that rates are measured at."""

    tokens: int
    width: int
    heads: int


# Large enough that a GPU is full, and busy for longer than its host is with calling: at 8,192 tokens of 24 x 128 its
# kernels are at their rate, and a trial takes milliseconds. A CPU is full sooner, and slower.
GPU, CPU = Probe(8192, 3072, 24), Probe(768, 384, 6)
_IN_A_ROW = 4  # calls that a trial makes


@torch.no_grad()
def measure_rates(device: torch.device, dtype: torch.dtype, kernel: Kernel) -> Rates:
    """The rates of a device, in about a second; in a few on a slow one."""
    probe = CPU if device.type == "cpu" else GPU
    n, d = probe.tokens, probe.width
    x, matrix = (torch.randn(shape, device=device, dtype=dtype) for shape in ((n, d), (d, 4 * d)))
    linear = 2 * n * d * 4 * d / _best(lambda: x @ matrix, device)
    query = torch.randn(1, n, probe.heads, d // probe.heads, device=device, dtype=dtype)
    attention = 4 * n * n * d / _best(lambda: attend(kernel, query, query, query), device)
    source = torch.zeros(64 << 20, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / _best(lambda: target.copy_(source), device)
    link = copy
    if device.type == "cuda":
        pinned = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True)
        link = pinned.numel() / _best(lambda: target.copy_(pinned, non_blocking=True), device)
    return Rates(linear, attention, copy, link, linear * DECODING_SHARE)


def _best(call: Callable[[], object], device: torch.device, budget: float = 0.2) -> float:
    """A call's seconds in the fastest of as many trials as fit into the budget, three at least: others only slow it."""
    call()
    _wait(device)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < budget:
        began = time.perf_counter()
        for _ in range(_IN_A_ROW):
            call()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return min(taken) / _IN_A_ROW


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
