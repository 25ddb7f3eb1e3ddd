"""The attention of one section of the 13 B FramePack, by every kernel that this device has.

    python benchmarks/attention.py --output out/attention
    python benchmarks/attention.py --device cpu --tokens 300 --rounds 1        the same, small

19,470 tokens (18,485 of latents, 729 of the image, 256 of the text), 24 heads of 128, random. Queries, keys and values
lie side by side, as the product that makes them leaves them. Kernels take turns, so that what the device's power gives
is given to all; a figure is the median of the rounds. The error is the distance of 512 tokens' results from the same
attention in float32, as a share of its norm. The first result of a kernel takes longer where it has to be loaded or
compiled. `native` is what PyTorch chooses; the kernel that builds the score matrix is left out. Prints a table, writes
numbers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from longtake.backbones.attention import Kernel, attend, best_kernel, installed_kernels

ROWS = 512  # tokens that are compared
CALLS = 20  # between two marks


def main() -> None:
    """Measures every kernel, prints and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/attention"))
    parser.add_argument("--tokens", type=int, default=19_470)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    device, dtype, heads, size = torch.device(options.device), torch.bfloat16, options.heads, options.size
    joined = torch.randn(1, options.tokens, 3 * heads * size, device=device, dtype=dtype)
    given = [part.unflatten(2, (heads, size)) for part in joined.chunk(3, dim=2)]
    kernels: list[Kernel] = [name for name in installed_kernels(device, dtype, size) if name != "math"]
    exact, taken = reference(*given), {}
    rows = {name: started(name, given, exact) for name in kernels}
    for _ in range(options.rounds):
        for name in kernels:
            taken.setdefault(name, []).append(seconds_of(name, given))
    operations = 4 * options.tokens**2 * heads * size
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}, best: {best_kernel(device, dtype, size)}\n")
    print("| kernel | ms | TFLOP/s | error | first result after, s |\n" + "| --- " * 5 + "|")
    for kernel, row in rows.items():
        row["seconds"] = statistics.median(taken[kernel])
        rate = operations / row["seconds"] / 1e12
        print(f"| {kernel} | {1e3 * row['seconds']:.2f} | {rate:.3g} | {row['error']:.4g} | {row['first']:.1f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "numbers.json").write_text(json.dumps({"device": name, "rows": rows}))


def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The first tokens' results in float32, a head at a time."""
    heads = []
    for q, k, v in zip(*(part[0].transpose(0, 1) for part in (query, key, value)), strict=True):
        scores = q[:ROWS].float() @ k.float().T / q.shape[-1] ** 0.5
        heads.append(scores.softmax(-1) @ v.float())
    return torch.stack(heads, dim=1)


def started(kernel: Kernel, given: list[Tensor], exact: Tensor) -> dict[str, float]:
    """The first result, and how long it takes."""
    wait(exact.device)
    began = time.perf_counter()
    result = attend(kernel, *given)
    wait(exact.device)
    first = time.perf_counter() - began
    return {"first": first, "error": ((result[0, :ROWS].float() - exact).norm() / exact.norm()).item()}


def seconds_of(kernel: Kernel, given: list[Tensor]) -> float:
    """Of one call, the mean of some that follow each other."""
    attend(kernel, *given)
    wait(given[0].device)
    began = time.perf_counter()
    for _ in range(CALLS):
        attend(kernel, *given)
    wait(given[0].device)
    return (time.perf_counter() - began) / CALLS


def wait(device: torch.device) -> None:
    """Until everything is computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    with torch.no_grad():
        main()
