"""Whether equal images become equal bytes, whatever lies in memory: segments of one clip, encoded again and again.

    python benchmarks/same_bytes.py --seconds 60 --processes 4

Before each segment arrays of random bytes are made and let go, so that what the encoder is given holds other things.
`as it comes` is x264 with all that the processor can do; `ours` is `longtake.media.write_segment`. Prints how many
segments there were and how many had other bytes than most; writes numbers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from longtake.media import video, write_segment

SIZE = (160, 96)


def main() -> None:
    """Measures both arms, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("out/same_bytes"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| arm | segments | with other bytes |\n| --- | --- | --- |")
    for arm in ("as it comes", "ours"):
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            counts = pool.starmap(encoded, [(arm, options.seconds, seed) for seed in range(options.processes)])
        found = sum(counts, Counter())
        total, usual = sum(found.values()), max(found.values())
        rows.append({"arm": arm, "segments": total, "other": total - usual})
        print(f"| {arm} | {total} | {total - usual} |", flush=True)
    (options.output / "numbers.json").write_text(json.dumps(rows))


def encoded(arm: str, seconds: float, seed: int) -> Counter[str]:
    """How often which bytes came out."""
    if arm == "as it comes":
        video._steady = dict  # no options of ours
    rng, found = np.random.default_rng(seed), Counter[str]()
    colors = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(colors).resize(SIZE))
    images = np.stack([np.roll(picture, shift, 1) for shift in range(36)])
    with tempfile.TemporaryDirectory() as folder:
        end, path = time.monotonic() + seconds, Path(folder) / "segment.mp4"
        while time.monotonic() < end:
            for _ in images:
                litter = [rng.integers(0, 256, int(size), dtype=np.uint8) for size in rng.integers(16, 9000, 12)]
                del litter
            write_segment(images, path, 0, fps=12.0)
            found[hashlib.sha256(path.read_bytes()).hexdigest()] += 1
    return found


if __name__ == "__main__":
    main()
