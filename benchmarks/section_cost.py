"""What section 50 of the 13 B network costs against an early one: time by part, device and host memory.

    python benchmarks/section_cost.py --output out/section_cost
    python benchmarks/section_cost.py --tiny --device cpu            the same at tiny size, to see that it runs

Weights are random, and so is what came before: a video of that many sections is remembered, then the next one is
packed, sampled in a few steps and decoded, as `longtake generate` does it; sections take turns. The history is whole
from section 3 on: before, there are fewer tokens. Prints a table, writes numbers.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch
from backbone_13b import FULL, GUIDANCE, SCHEDULE, SHIFT, TINY, Setting, new_transformer
from hunyuan_codec import dtype_of, new_network
from torch import Tensor

from longtake.backbones.hunyuan.blocks import fuse_blocks
from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.network import as_told, history_patchify, rope_axes, velocity
from longtake.backbones.hunyuan.stream import SectionStream
from longtake.backbones.placement import tabulate
from longtake.flow import sigmas
from longtake.packing import History, pack
from longtake.plan import make_plan
from longtake.schedule import parse

WINDOW = 9


def main() -> None:
    """Measures each section by turns, prints and writes what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/section_cost"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--sections", type=int, nargs="*", default=(3, 50))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        rows = measured(options)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    (options.output / "numbers.json").write_text(json.dumps({"device": name, "rows": rows}))
    columns = ("tokens", "pack", "steps", "decode", "seconds", "device GiB", "host GiB")
    print(f"\n{name}\n\n| section | {' | '.join(columns)} |\n" + "| --- " * (1 + len(columns)) + "|")
    for row in rows:
        print(f"| {row['section']} | {' | '.join(f'{row[column]:.4g}' for column in columns)} |")


def measured(options: argparse.Namespace) -> list[dict]:
    """A row a section, medians of its turns."""
    device = torch.device(options.device)
    transformer = new_transformer(TINY if options.tiny else FULL, device)
    setting = Setting(transformer, device, options.tiny)
    levels = sigmas(options.steps, SHIFT)
    tabulate(transformer, device, as_told(levels[:-1]), [setting.told], as_told(torch.tensor([GUIDANCE])))
    setting.bring()
    fuse_blocks(transformer, setting.seams)
    codec = HunyuanCodec(new_network(options), layers="folded", channels_last=True)
    rows: dict[int, list[dict]] = {section: [] for section in options.sections}
    one(options.sections[0], setting, codec, levels, options)
    for _ in range(options.turns):
        for section, found in rows.items():
            found.append(one(section, setting, codec, levels, options))
            print(f"section {section}: {found[-1]}", flush=True)
    return [
        {"section": section} | {name: statistics.median(cost[name] for cost in found) for name in found[0]}
        for section, found in rows.items()
    ]


def one(number: int, setting: Setting, codec: HunyuanCodec, levels: Tensor, options: argparse.Namespace) -> dict:
    """Makes one section after so many others."""
    device, transformer = setting.x.device, setting.transformer
    shape = (1, setting.x.shape[1], 1 + WINDOW * number, *setting.x.shape[3:])
    known, history = torch.randn(shape, device=device, dtype=torch.bfloat16), History()
    history.remember(range(shape[2]), known)
    section = make_plan(parse(SCHEDULE), 1 + WINDOW * (number + 1)).sections[number]
    z = torch.randn(1, 16, shape[2] + WINDOW, *shape[3:], device=device, dtype=dtype_of(options))
    bounds = [0, *range(1 + WINDOW, z.shape[2] + 1, WINDOW)]
    frames = [range(a, b) for a, b in pairwise(bounds)]
    stream = SectionStream(codec, z.shape[2] + WINDOW)
    begin = max(0, number - 1)
    if begin:
        stream.warm_up(frames[begin - 1], z[:, :, frames[begin - 1].start : frames[begin - 1].stop])
    for past in frames[begin:number]:
        stream.add(past, z[:, :, past.start : past.stop])
    marks = [now(device)]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        marks = [now(device)]
    packed = pack(section, history, history_patchify(transformer), rope_axes(transformer))
    marks.append(now(device))
    x = torch.randn_like(setting.x)
    for level, after in pairwise(levels):
        v = velocity(transformer, setting.seams, x, level[None], setting.brought, packed)
        x = x + (after - level).item() * v
    history.remember(range(shape[2], shape[2] + WINDOW), x)
    marks.append(now(device))
    stream.add(frames[number], z[:, :, frames[number].start : frames[number].stop])
    marks.append(now(device))
    on_gpu = device.type == "cuda"
    return {
        "tokens": packed.tokens.shape[1] + setting.x[0, 0].numel() // 4,
        "pack": marks[1] - marks[0],
        "steps": marks[2] - marks[1],
        "decode": marks[3] - marks[2],
        "seconds": marks[3] - marks[0],
        "device GiB": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan"),
        "host GiB": resident_bytes() / 2**30,
    }


def now(device: torch.device) -> float:
    """The time when all that was queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def resident_bytes() -> int:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
