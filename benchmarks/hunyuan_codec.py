"""One section's new images through HunyuanVideo's decoder: diffusers' way, and longtake's.

    python benchmarks/hunyuan_codec.py --output out/hunyuan_codec
    python benchmarks/hunyuan_codec.py --tiny --device cpu           the same at tiny size, to see that it runs

Weights and latents are random: speed and memory do not depend on their values. FramePack decodes eighteen frames for
each section's thirty-six new images at 640 x 608; from the third section on two of their six tiles are known. All arms
are measured in this one run, each with the whole autoencoder on the device and nothing else. An arm's difference is
that of five frames from what diffusers makes of them, as a share of its spread. Prints a table and the kernels of
arms that miss their bar, writes numbers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo
from kernels import kernels_of, print_kernels

from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.stream import SectionStream

TINY = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
LAYERS = ("whole", "pieces", "folded")
TILINGS = {"untiled": False, "256-pixel tiles": True, "halves": "halves"}
BARS = {False: (1.5, 8.0), True: (2.5, 4.0), "halves": (2.5, 4.0)}  # seconds, GiB
WINDOW, SECTIONS = 9, 6


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/hunyuan_codec"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument(
        "--layouts", nargs="*", choices=("first", "last"), default=("first", "last"), help="of channels"
    )
    parser.add_argument("--tilings", nargs="*", choices=TILINGS, default=TILINGS)
    parser.add_argument("--layers", nargs="*", choices=LAYERS, default=LAYERS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    h, w = (16, 12) if options.tiny else (80, 76)
    latents = torch.randn(1, 16, 1 + WINDOW * SECTIONS, h, w, device=options.device, dtype=dtype_of(options))
    last = latents[:, :, -2 * WINDOW :]
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    network = new_network(options)
    arms = [measure("diffusers", options, lambda: network.decode(last / network.config.scaling_factor).sample)]
    with torch.no_grad():
        tile = network.decode(last[:, :, :5] / network.config.scaling_factor).sample.clamp(-1, 1)
    del network
    for layers in options.layers:
        for channels_last in (layout == "last" for layout in options.layouts):
            for tiling in options.tilings:
                tiled = TILINGS[tiling]
                arm = ", ".join([layers, *["channels last"] * channels_last, *[tiling] * (tiled is not False)])
                codec = HunyuanCodec(new_network(options), layers=layers, tiled=tiled, channels_last=channels_last)
                arms.append(streamed(arm, options, codec, latents, BARS[tiled]))
                made = codec.decode(last[:, :, :5])
                arms[-1]["difference"] = ((made - tile).float().std() / tile.float().std()).item()
    (options.output / "numbers.json").write_text(json.dumps({"device": name, "rows": arms}))
    print(f"\n{name}\n\n| | s a section | peak GiB | difference |\n| --- | --- | --- | --- |")
    for arm in arms:
        print(f"| {arm['arm']} | {arm['seconds']:.2f} | {arm['peak']:.2f} | {arm.get('difference', 0):.2g} |")


@torch.no_grad()
def streamed(name: str, options, codec: HunyuanCodec, latents: torch.Tensor, bars: tuple[float, float]) -> dict:
    """The last sections of a video that is decoded as it is made."""
    stream = SectionStream(codec, latents.shape[2])
    bounds = [0, *range(1 + WINDOW, latents.shape[2] + 1, WINDOW)]
    sections = [range(a, b) for a, b in pairwise(bounds)]
    for section in sections[:2]:
        stream.add(section, latents[:, :, section.start : section.stop])
    rest = iter(sections[2:])

    def step() -> object:
        section = next(rest)
        return stream.add(section, latents[:, :, section.start : section.stop])

    arm = measure(name, options, step, repeats=len(sections) - 4)
    if arm["seconds"] > bars[0] or arm["peak"] > bars[1]:
        arm["kernels"] = kernels_of(step, torch.device(options.device))
        print_kernels(name, arm["kernels"])
    return arm


@torch.no_grad()
def measure(name: str, options, call, repeats: int = 2) -> dict:
    """The median time of a call after a first one, and the peak of memory."""
    on_gpu = options.device == "cuda"
    call()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan")
    print(f"{name}: {statistics.median(seconds):.2f} s, {peak:.2f} GiB", flush=True)
    return {"arm": name, "seconds": statistics.median(seconds), "peak": peak}


def dtype_of(options) -> torch.dtype:
    """Half precision on a GPU, as the official program has it."""
    return torch.float16 if options.device == "cuda" else torch.float32


def new_network(options) -> AutoencoderKLHunyuanVideo:
    """The autoencoder with random weights, which are the same each time."""
    torch.manual_seed(0)
    with torch.device(options.device):
        network = AutoencoderKLHunyuanVideo(**(TINY if options.tiny else {}))
    return network.to(options.device, dtype_of(options)).eval()


if __name__ == "__main__":
    main()
