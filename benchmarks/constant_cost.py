"""Cost of section k against section 1: time of each section, and memory of the process, for one long video.

    python benchmarks/constant_cost.py --sections 200 --output out/constant_cost.json

Each section is made, decoded, encoded and written as `longtake generate` does it. Prints a table; the slope of memory
is fitted over the second half of the video, after caches and allocator have settled.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from longtake.backbones import load_backbone
from longtake.cli.demo import examples
from longtake.pipeline import Request, SectionDone, generate


def resident_bytes() -> int:
    """Memory of this process now (Linux); its peak elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
    image, prompt = examples()[0]
    seconds = options.sections * 36 / backbone.settings.fps
    times, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            image=image, prompt=prompt, seconds=seconds, order=options.order, steps=options.steps, model=options.model
        )
        before = time.perf_counter()
        for event in generate(request, Path(folder) / "video.mp4", Path(folder) / "run", backbone):
            if isinstance(event, SectionDone):
                now = time.perf_counter()
                times.append(now - before)
                memory.append(resident_bytes())
                before = now
    times, memory = np.array(times), np.array(memory) / 2**20
    half = len(times) // 2
    slope = float(np.polyfit(np.arange(half, len(memory)), memory[half:], 1)[0])
    tenth = max(1, len(times) // 10)
    # Section 1 also warms up; sections with a full history begin with the fourth.
    early, late = float(np.median(times[3 : 3 + tenth])), float(np.median(times[-tenth:]))
    numbers = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "order": options.order,
        "sections": len(times),
        "seconds_section_1": float(times[0]),
        "seconds_early_median": early,
        "seconds_late_median": late,
        "late_over_early": late / early,
        "memory_mib_section_1": float(memory[0]),
        "memory_mib_last": float(memory[-1]),
        "memory_mib_per_section": slope,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**numbers, "times": times.tolist(), "memory_mib": memory.tolist()}, indent=2))
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
