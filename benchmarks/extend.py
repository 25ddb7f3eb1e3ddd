"""How visible is the seam where a video is made longer? Held-out clips whose camera moves, on both sides.

    python benchmarks/extend.py --clips HELD_OUT --output out/extend --count 12

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). The first half
of each clip is given and what comes after it is made (after), or the second half is given and what was before it
(before). The seam is the mean absolute difference of the two images that meet there, as a multiple of the median
difference of neighboring images within two seconds on each side: 1 is no seam. The true clip's own number at the same
place stands beside it, once as it is and once compressed in the same two pieces, since each begins with a key frame.
Prints a table, writes numbers.json and a contact sheet of each side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
from PIL import Image
from setting import arguments, device_name, open_model

from longtake.backbones import Backbone
from longtake.media import read_video, write_segment
from longtake.pipeline import Extension, extend
from longtake.pipeline.request import Side
from longtake.toybox import caption, window_commands
from longtake.training.clips import Clips, open_clips

WITHIN = 24  # images on each side of the seam
BAR = 1.5
SHOWN = (-24, -12, -6, -3, -2, -1, 0, 1, 2, 5, 11, 23)  # images beside the seam, on a contact sheet
CRF = Extension.model_fields["crf"].default


@dataclass(frozen=True, slots=True)
class Seam:
    """One video made longer."""

    clip: int
    side: Side
    made: float  # the seam, before compression
    true: float
    made_in_file: float
    true_in_file: float


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/extend", count="clips whose camera moves around the middle")
    parser.add_argument("--sections", type=int, default=2, help="that are made")
    options = parser.parse_args()
    backbone, clips = open_model(options), open_clips(options.clips)
    middle = clips.images // 2
    moving = [c for c in range(len(clips)) if moves(clips, c, middle)][: options.count]
    device = device_name(options)
    print(f"{len(moving)} clips, {options.sections} sections made on each side of their halves; {device}", flush=True)
    seams, tables = list[Seam](), {}
    for side in get_args(Side):
        sheet = []
        for clip in moving:
            seam, rows = measure(backbone, clips, clip, side, options.sections)
            seams.append(seam)
            sheet += rows
            print(f"{side} clip {clip}: {seam.made:.2f} (true {seam.true:.2f})", flush=True)
        Image.fromarray(np.concatenate(sheet)).save(options.output / f"{side}.png")
        tables[side] = table([seam for seam in seams if seam.side == side])
    numbers = {"device": device, "sections": options.sections, "sides": tables, "videos": [asdict(s) for s in seams]}
    (options.output / "numbers.json").write_text(json.dumps(numbers))
    print_table(tables)


def moves(clips: Clips, clip: int, middle: int) -> bool:
    """True if the camera does something all the time around an image."""
    return "still" not in window_commands(clips.truths[clip], middle - WITHIN, middle + WITHIN)


def measure(backbone: Backbone, clips: Clips, clip: int, side: Side, sections: int) -> tuple[Seam, list[np.ndarray]]:
    """The seam of one clip, and rows of pictures: what was made around it, and what is true there."""
    true, fps = clips.read(clip, 0, clips.images), backbone.settings.fps
    half = len(true) // 2
    given = {"after": true[: half + 1], "before": true[half:]}[side]
    seconds = 36 * sections / fps
    around = {"after": (half + 1, half + 36 * sections), "before": (half - 36 * sections, half - 1)}[side]
    with TemporaryDirectory() as folder:
        source, output = Path(folder, "source.mp4"), Path(folder, "longer.mp4")
        write_segment(given, source, 0, fps, crf=0)
        request = Extension(
            video=source,
            side=side,
            seconds=seconds,
            prompt=caption(clips.truths[clip], *around),
            seed=clip,
            model=backbone.name,
            crf=0,
        )
        for _ in extend(request, output, Path(folder, "run"), backbone):
            pass
        shown = read_video(output)
        write_segment(true, source, 0, fps, crf=0)
        true = read_video(source)  # with as much color as the file has
    at, true_at = {"after": (half + 1, half + 1), "before": (len(shown) - len(given), half)}[side]
    ours, real = window(shown, at), window(true, true_at)
    seam = Seam(clip, side, step(ours), step(real), step(in_file(ours, fps)), step(in_file(real, fps)))
    return seam, [np.concatenate([images[WITHIN + i] for i in SHOWN], axis=1) for images in (ours, real)]


def window(images: np.ndarray, at: int) -> np.ndarray:
    """The images around the seam before image `at`."""
    return images[at - WITHIN : at + WITHIN]


def in_file(images: np.ndarray, fps: float) -> np.ndarray:
    """The images as a file of the usual quality shows them, the pieces on both sides encoded by themselves."""
    with TemporaryDirectory() as folder:
        pieces = [
            write_segment(piece, Path(folder, f"{number}.mp4"), 0, fps, CRF)
            for number, piece in enumerate(np.split(images, [WITHIN]))
        ]
        return np.concatenate([read_video(piece.path) for piece in pieces])


def step(images: np.ndarray) -> float:
    """The step in the middle as a multiple of the median step."""
    steps = np.abs(np.diff(images.astype(np.float32), axis=0)).mean((1, 2, 3))
    return float(steps[WITHIN - 1] / np.median(np.delete(steps, WITHIN - 1)))


def table(seams: Sequence[Seam]) -> dict[str, dict[str, float]]:
    """Medians and the share that is below the bar."""
    found = {}
    for name in ("made", "true", "made_in_file", "true_in_file"):
        values = np.array([getattr(seam, name) for seam in seams])
        found[name] = {"median": float(np.median(values)), "share": float((values <= BAR).mean())}
    return found


def print_table(tables: dict[str, dict[str, dict[str, float]]]) -> None:
    """Everything as Markdown."""
    print(f"\n| side | seam | at most {BAR} | true clip | in the file | at most {BAR} | true clip in the file |")
    print("| --- |" + " --- |" * 6)
    for side, found in tables.items():
        m, t, mf, tf = (found[name] for name in ("made", "true", "made_in_file", "true_in_file"))
        print(
            f"| {side} | {m['median']:.2f} | {m['share']:.0%} | {t['median']:.2f} "
            f"| {mf['median']:.2f} | {mf['share']:.0%} | {tf['median']:.2f} ({tf['share']:.0%}) |"
        )


if __name__ == "__main__":
    main()
