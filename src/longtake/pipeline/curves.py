"""A run over time as text: the numbers of its meters as sparklines, and its sections with the order of their making."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from statistics import fmean
from typing import Literal

from longtake.backbones import said_bytes
from longtake.pipeline.meter import Meter
from longtake.pipeline.run import Run
from longtake.plan import Section
from longtake.plan.draw import round_step

__all__ = [
    "CURVES",
    "Curve",
    "Row",
    "amount",
    "draw_run",
    "given_of",
    "ramp",
    "rows_of",
    "settings_of",
    "sparkline",
    "squeezed",
]

BARS = "".join(map(chr, range(0x2581, 0x2589)))  # eighths of a block
ASCII = "_.:-=+*#"
ROWS = 60  # sections of the table before some are left out
STRETCH = 6  # columns of a section at most


@dataclass(frozen=True, slots=True)
class Curve:
    """A number of the meter over time, and how it is shown."""

    name: str
    unit: str
    of: Callable[[Meter], float]
    top: float  # to which the scale reaches at least, from 0
    steady: float  # what it is without drift; of motion: without motion
    source: Literal["image", "latent"]
    belongs_to: Literal["section", "seam"] = "section"  # the seam to the section before it in time


CURVES = (
    Curve("sharpness", "start image = 1", attrgetter("sharpness"), 1.0, 1.0, "image"),
    Curve("color", "distance from the start", attrgetter("color"), 20.0, 0.0, "image"),
    Curve("motion", "pixels an image", attrgetter("motion"), 1.0, 0.0, "image"),
    Curve("latent mean", "distance from the start", attrgetter("latent_mean"), 0.5, 0.0, "latent"),
    Curve("latent std", "start = 1", attrgetter("latent_std"), 1.5, 1.0, "latent"),
    Curve("jump", "at seams, usual change = 1", attrgetter("jump"), 2.0, 1.0, "latent", "seam"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A section of a run and what is known of it."""

    section: Section
    begins: float  # seconds
    ends: float
    seed: int
    made: bool
    meter: Meter | None  # none before its images are there


def rows_of(run: Run) -> tuple[Row, ...]:
    """All sections of a run in time order."""
    meters = {meter.place: meter for meter in run.read_meters()}
    config = run.config

    def row(place: int, section: Section) -> Row:
        segment = run.segment(place)
        ends = min(config.images, segment.first + segment.images)
        seed, made = config.seed_of(section), run.has_section(section.index)
        return Row(section, segment.first / config.fps, ends / config.fps, seed, made, meters.get(place))

    in_time = sorted(config.plan().sections, key=lambda section: section.frames)
    return tuple(row(place, section) for place, section in enumerate(in_time))


def ramp(encoding: str | None) -> str:
    """Eight characters from low to high: block elements where an encoding has them.

    >>> ramp("ascii")
    '_.:-=+*#'
    """
    try:
        BARS.encode(encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BARS


def sparkline(values: Sequence[float | None], top: float, levels: str = BARS) -> str:
    """A character for each value from 0 to `top`; a space for one that is not known.

    >>> sparkline([0.0, 0.5, None, 1.0], top=1.0, levels="_.:-=+*#")
    '_= #'
    """
    n = len(levels)
    return "".join(" " if v is None else levels[max(0, min(n - 1, int(v / top * n)))] for v in values)


def squeezed(values: Sequence[float | None], columns: int) -> list[float | None]:
    """As many values as fit: themselves, or means of neighbors.

    >>> squeezed([1.0, 3.0, None, None, 5.0], columns=3)
    [2.0, None, 5.0]
    """
    size = -(-len(values) // columns)
    groups = [[v for v in values[i : i + size] if v is not None] for i in range(0, len(values), size)]
    return [fmean(group) if group else None for group in groups]


def amount(number: float) -> str:
    """A number with three digits or so.

    >>> amount(0.0567), amount(12.34), amount(123.4)
    ('0.06', '12.3', '123')
    """
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def settings_of(run: Run) -> str:
    """How a run is made, in a line."""
    c = run.config
    how = f"{c.steps} steps ({c.solver}), guidance {c.guidance:g}, seed {c.seed}"
    return ", ".join([f"model {c.model}, order {c.order}, schedule {c.schedule}, {how}", *c.besides])


def given_of(run: Run) -> tuple[str, ...]:
    """What of the video is not made: a line if it makes another one longer."""
    config, source = run.config, run.config.source
    if source is None:
        return ()
    seconds = source.images / config.fps
    side = {"after": f"begins with {seconds:.2f} s", "before": f"ends with {seconds:.2f} s"}[source.side]
    return (f"the video {side} that were there already ({source.images} images)",)


def draw_run(run: Run, columns: int = 100, levels: str = BARS) -> str:
    """The request of a run, its curves over time, and a line for each section in time order."""
    rows, config = rows_of(run), run.config
    made = sum(row.made for row in rows)
    head = [
        str(run.folder),
        *textwrap.wrap(config.prompt, columns - 2, initial_indent="  ", subsequent_indent="  "),
        *textwrap.wrap(settings_of(run), columns - 2, initial_indent="  ", subsequent_indent="  "),
        f"  {made} of {len(rows)} sections made, {config.width} x {config.height}, {config.images} images, "
        f"{config.images / config.fps:.2f} s at {config.fps:g} images/s",
        *(f"  {line}" for line in given_of(run)),
    ]
    curves = _curves(rows, columns, levels) if any(row.meter for row in rows) else [explain_no_meters(run)]
    return "\n".join([*head, "", *curves, "", *_table(rows), *_made_with(run, columns)])


def _made_with(run: Run, columns: int) -> list[str]:
    """A line for each part of what the run began with."""
    manifest = run.read_manifest()
    if manifest is None:
        return []
    lines = ["", "Made with"]
    for part in manifest.parts:
        size, count = said_bytes(sum(file.bytes for file in part.files)), len(part.files)
        what = f"{count} files" if count > 1 else part.files[0].digest.removeprefix("samples:")[:12]
        line = f"  {part.name:<17} {size:>8}  {what:<12}  "
        lines.append(line + _origin(part.source, columns - len(line)))
    return lines


def _origin(source: str, room: int) -> str:
    """Where a part is from, a commit by its first letters and a path by its last ones.

    >>> _origin("lllyasviel/FramePackI2V_HY@86cef4396041b6002c957852daac4c91aaa47c79", 40)
    'lllyasviel/FramePackI2V_HY@86cef4396041'
    >>> _origin("/models/of/mine/transformer.safetensors", 30)
    '.../transformer.safetensors'
    """
    name, at, commit = source.rpartition("@")
    if at and "/" not in commit:
        source = f"{name}@{commit[:12]}"
    if len(source) <= room:
        return source
    kept = source[len(source) - room + 3 :]
    return f"...{kept[max(0, kept.find('/')) :]}"


def explain_no_meters(run: Run) -> str:
    """Why a run without meters has none."""
    if any(run.has_segment(place) for place in range(len(run.config.plan().sections))):
        return "Nothing is measured: the sections were made before sections were measured."
    return "Nothing is measured yet: a section is when its images are there."


def _curves(rows: tuple[Row, ...], columns: int, levels: str) -> list[str]:
    """A line for each number of the meter and one for the order of making, all on one scale of time."""
    room = columns - 43
    stretch = max(1, min(STRETCH, room // len(rows)))

    def drawn(values: Sequence[float | None], top: float) -> str:
        return sparkline([v for v in squeezed(values, room) for _ in range(stretch)], top, levels)

    order = drawn([float(row.section.index) for row in rows], len(rows))
    axis = _axis(rows[0].begins, rows[-1].ends, len(order))
    lines = [f"  {'over time':<12}{'lowest':>9}{'highest':>9}{'full bar':>9}  {axis}"]
    for curve in CURVES:
        values = [curve.of(row.meter) if row.meter else None for row in rows]
        known = [v for v in values if v is not None]
        top = max(curve.top, *known)
        span = "".join(f"{amount(v):>9}" for v in (min(known), max(known), top))
        lines.append(f"  {curve.name:<12}{span}  {drawn(values, top)}".rstrip())
    lines.append(f"  {'making':<12}{'first':>9}{'last':>9}{'last':>9}  {order}")
    return lines


def _axis(begins: float, ends: float, columns: int) -> str:
    """Round times above their columns."""
    seconds = ends - begins
    step = round_step(10 * seconds / columns)
    ticks = ""
    for i in range(ceil(begins / step), int(ends / step) + 1):
        tick = f"{i * step:g} s"
        at = round((i * step - begins) / seconds * columns)
        if at == 0 or at + len(tick) <= columns:
            ticks = f"{ticks:<{at}}{tick}"
    return ticks


def _table(rows: tuple[Row, ...]) -> list[str]:
    """A line for each section in time order, the middle of very many left out."""
    wide = [max(6, len(curve.name)) + 2 for curve in CURVES]
    heads = "".join(f"{curve.name:>{w}}" for curve, w in zip(CURVES, wide, strict=True))
    lines = [f"  {'begins':>9}  {'frames':<10}{'section':>7}{'seed':>8}{heads}"]
    out = range(ROWS // 2, len(rows) - ROWS // 2) if len(rows) > ROWS else range(0)
    for place, row in enumerate(rows):
        if place in out:
            if place == out.start:
                lines.append(f"  ...  {len(out)} sections are left out here")
            continue
        frames = f"{row.section.frames[0]}-{row.section.frames[-1]}"
        if row.meter:
            said = "".join(f"{amount(curve.of(row.meter)):>{w}}" for curve, w in zip(CURVES, wide, strict=True))
        else:
            said = "  made" if row.made else "  to be made"
        lines.append(f"  {row.begins:>7.2f} s  {frames:<10}{row.section.index:>7}{row.seed:>8}{said}")
    return [*lines, "Sections are numbered in the order of making, as resume --from-section takes them."]
