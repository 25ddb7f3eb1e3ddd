"""Where the time of a call on a GPU goes: its kernels by kind, those that take most, and when none runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

__all__ = ["kernels_of", "print_kernels"]

KINDS = {  # by parts of their names, the first that fits
    "exchanges": ("nccl",),
    "convolutions": ("conv", "implicit", "fprop_implicit", "cudnn_infer", "xmma_fprop", "dgrad"),
    "attention": ("sdpa", "flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "matmul", "splitk"),
    "transpositions": ("nchw", "nhwc", "transpose"),
    "fused": (
        "triton",
        "_norm_kernel",
        "_sum_kernel",
        "_rotate_kernel",
        "_moments_k",
        "_silu_k",
        "_bias_k",
        "_round_k",
    ),
    "copies": ("copy", "cat", "memcpy", "memset"),
}


def kernels_of(call: Callable[[], object], device: torch.device, most: int = 16) -> dict:
    """Milliseconds of one call on the device, by kind of kernel and of the kernels that take most. Empty on a CPU."""
    if device.type != "cuda":
        return {}
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    events = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    times, counts = defaultdict(float), defaultdict(int)
    for event in events:
        times[event.name] += event.device_time / 1e3
        counts[event.name] += 1
    kinds = defaultdict(float)
    for name, time in times.items():
        kinds[kind_of(name)] += time
    largest = sorted(times, key=lambda name: -times[name])[:most]
    return {
        "kinds": {kind: round(time, 2) for kind, time in sorted(kinds.items(), key=lambda item: -item[1])},
        "kernels": [{"name": name[:120], "calls": counts[name], "ms": round(times[name], 2)} for name in largest],
        "idle": waits(events),
    }


def waits(events: list, most: int = 4) -> dict:
    """Milliseconds between the first and the last kernel in which none ran, and before which kernels most of them."""
    lost, end = [], float("inf")
    for event in sorted(events, key=lambda event: event.time_range.start):
        lost.append((max(0.0, event.time_range.start - end) / 1e3, event.name[:120]))
        end = event.time_range.end if end == float("inf") else max(end, event.time_range.end)
    longest = sorted(lost, reverse=True)[:most]
    return {"ms": round(sum(ms for ms, _ in lost), 2), "longest": [(round(ms, 3), name) for ms, name in longest]}


def kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "others")


def print_kernels(arm: str, found: dict) -> None:
    """The same as a table."""
    if not found:
        return
    total = sum(found["kinds"].values())
    kinds = ", ".join(f"{kind} {time:.1f}" for kind, time in found["kinds"].items())
    longest = ", ".join(f"{ms:.2f} before {name[:40]}" for ms, name in found["idle"]["longest"])
    print(f"\n{arm}: none runs for {found['idle']['ms']:.1f} ms: {longest}")
    print(f"{total:.1f} ms on the device: {kinds}\n\n| ms | calls | kernel |\n| --- | --- | --- |")
    for kernel in found["kernels"]:
        print(f"| {kernel['ms']:.2f} | {kernel['calls']} | {kernel['name'][:90]} |")
