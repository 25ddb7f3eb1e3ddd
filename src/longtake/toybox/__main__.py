"""`python -m longtake.toybox`: clips to train on. Needs numpy and MuJoCo alone (and Pillow for a sheet)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from longtake.errors import LongtakeError
from longtake.toybox.captions import caption
from longtake.toybox.clips import Progress, write_clips, write_sheet
from longtake.toybox.difficulty import DIFFICULTIES
from longtake.toybox.truth import read_truths


def main(arguments: list[str] | None = None) -> int:
    """Writes clips, and if asked a contact sheet; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m longtake.toybox", description="Renders clips of the toybox world.")
    parser.add_argument("--output", type=Path, required=True, help="folder for images (*.npy) and truths (*.jsonl)")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--difficulty", default="kind", help=", ".join(DIFFICULTIES))
    parser.add_argument("--images", type=int, default=217, help="images in each clip")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--fps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of the first clips")
    parser.add_argument("--captions", type=int, default=0, help="also print the captions of the first so many clips")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.clips)
    try:
        paths = write_clips(
            options.output, seeds, options.difficulty, options.images, options.height, options.width, options.fps,
            options.workers, report=_say,
        )  # fmt: skip
        if options.sheet:
            write_sheet(paths, options.sheet)
        truths = [t for path in paths for t in read_truths(path.with_suffix(".jsonl"))] if options.captions else []
        for truth in truths[: options.captions]:
            for place, first in enumerate(range(1, truth.images - 35, 36)):
                print(f"{truth.seed} {first:4d}  {caption(truth, first, first + 35, place)}")
    except LongtakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _say(progress: Progress) -> None:
    print(progress, flush=True)


if __name__ == "__main__":
    sys.exit(main())
