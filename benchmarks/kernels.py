"""Where the time of a call on a GPU goes: its kernels by kind, and those that take most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

__all__ = ["kernels_of", "print_kernels"]

KINDS = {  # by parts of their names, the first that fits
    "convolutions": ("conv", "implicit", "fprop_implicit", "cudnn_infer", "xmma_fprop", "dgrad"),
    "attention": ("sdpa", "flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "matmul", "splitk"),
    "transpositions": ("nchw", "nhwc", "transpose"),
    "fused": ("triton", "_norm_kernel", "_sum_kernel", "_rotate_kernel", "_moments_kernel", "_silu_kernel", "_bias_k"),
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
    times, counts = defaultdict(float), defaultdict(int)
    for event in recorded.events():
        if event.device_type == DeviceType.CUDA:
            times[event.name] += event.device_time / 1e3
            counts[event.name] += 1
    kinds = defaultdict(float)
    for name, time in times.items():
        kinds[kind_of(name)] += time
    largest = sorted(times, key=lambda name: -times[name])[:most]
    return {
        "kinds": {kind: round(time, 2) for kind, time in sorted(kinds.items(), key=lambda item: -item[1])},
        "kernels": [{"name": name[:120], "calls": counts[name], "ms": round(times[name], 2)} for name in largest],
    }


def kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "others")


def print_kernels(arm: str, found: dict) -> None:
    """The same as a table."""
    if not found:
        return
    total = sum(found["kinds"].values())
    kinds = ", ".join(f"{kind} {time:.1f}" for kind, time in found["kinds"].items())
    print(f"\n{arm}: {total:.1f} ms on the device: {kinds}\n\n| ms | calls | kernel |\n| --- | --- | --- |")
    for kernel in found["kernels"]:
        print(f"| {kernel['ms']:.2f} | {kernel['calls']} | {kernel['name'][:90]} |")
