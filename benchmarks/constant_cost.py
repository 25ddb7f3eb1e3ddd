"""Cost of section k against an early one: time of each section, and memory of the process, for one long video.

    python benchmarks/constant_cost.py --sections 200 --output out/constant_cost.json

Each section is made, decoded, encoded and written as `longtake generate` does it. Machines change their speed within
the minutes that this takes, so the last tenth is timed by turns with a second video that has just begun: each late
section is compared with an early one of the same minute. The slope of memory is fitted from half of the video, after
caches and allocator have settled, to where the second video begins.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from longtake.backbones import Backbone, load_backbone
from longtake.cli.demo import examples
from longtake.pipeline import Request, SectionDone, generate

WARM = 3  # sections before the first one with a full history


def resident_bytes() -> int:
    """Memory of this process now (Linux); its peak elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sections_of(backbone: Backbone, options: argparse.Namespace, count: int, folder: Path) -> Iterator[float]:
    """Makes a video and gives the seconds that each of its sections took; the clock stands while nobody asks."""
    folder.mkdir()
    image, prompt = examples()[0]
    request = Request(
        image=image,
        prompt=prompt,
        seconds=count * 36 / backbone.settings.fps,
        order=options.order,
        steps=options.steps,
        model=options.model,
    )
    before = time.perf_counter()
    for event in generate(request, folder / "video.mp4", folder / "run", backbone):
        if isinstance(event, SectionDone):
            yield time.perf_counter() - before
            before = time.perf_counter()


def main() -> None:
    """Makes the video and prints what each part of it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--sections", type=int, default=200)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--order", default="vanilla")
    parser.add_argument("--output", type=Path, default=Path("out/constant_cost.json"))
    options = parser.parse_args()
    backbone = load_backbone(options.model)
    tenth = max(1, options.sections // 10)
    late = options.sections - tenth
    times, memory, fresh_times = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        fresh = sections_of(backbone, options, WARM + tenth, Path(folder) / "fresh")
        for seconds in sections_of(backbone, options, options.sections, Path(folder) / "long"):
            times.append(seconds)
            memory.append(resident_bytes() / 2**20)
            if len(times) == late:
                for _ in range(WARM):
                    next(fresh)
            if len(times) > late:
                fresh_times.append(next(fresh))
    half = len(times) // 2
    numbers = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "order": options.order,
        "sections": len(times),
        "seconds_section_1": times[0],
        "seconds_late_median": float(np.median(times[late:])),
        "seconds_early_median_of_the_same_minutes": float(np.median(fresh_times)),
        "late_over_early": float(np.median(np.array(times[late:]) / np.array(fresh_times))),
        "memory_mib_section_1": memory[0],
        "memory_mib_half": float(np.median(memory[half : half + tenth])),
        "memory_mib_late": float(np.median(memory[late - tenth : late])),
        "memory_mib_per_section": float(np.polyfit(np.arange(half, late), memory[half:late], 1)[0]),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    series = {"times": times, "fresh_times": fresh_times, "memory_mib": memory}
    options.output.write_text(json.dumps({**numbers, **series}, indent=2))
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
