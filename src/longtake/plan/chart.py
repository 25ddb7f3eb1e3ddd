"""A plan as a chart for a picture: a row for each section, with the video as the section finds it and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from longtake.plan.draw import Format, Stage, ends, round_step, walk
from longtake.plan.section import Look, Plan, Section
from longtake.plan.sheet import MARGIN, WIDTH, Block, text
from longtake.schedule import Kernel, Schedule

__all__ = ["axis", "chart", "heading", "legend", "runs_of"]

STRIP, STRIP_END, POSITIONS, BARS, BARS_END = 104, 686, 756, 780, 912  # columns
ROWS = 200  # that are drawn at most
DETAIL = 4  # width from which a frame is drawn by itself


def heading(plan: Plan, format: Format) -> Block:
    """What is planned, and the heads of the columns."""
    n = len(plan.sections)
    says = (
        f"{n} section{'s' * (n > 1)}, top to bottom as they are made: {plan.frames} frames, "
        f"{format.images(plan.frames)} images, {format.seconds(plan.frames):.2f} s at {format.fps:g} images/s"
    )
    return Block(
        (
            f'<path class="line" d="M{MARGIN} 4H{WIDTH - MARGIN}"/>',
            text(MARGIN, 36, f"The plan: {plan.order}", "head"),
            text(MARGIN, 58, says, "sub"),
            text(STRIP - 22, 84, "section", "sub small end"),
            text(POSITIONS, 84, "positions", "sub small end"),
            text(BARS, 84, "tokens of history", "sub small"),
        ),
        92,
    )


def chart(plan: Plan, format: Format, colors: dict[Kernel, str]) -> Block:
    """The sections from top to bottom in the order of making, the video from left to right."""
    rows = list(walk(plan, ROWS))
    pitch = max(5.0, min(24.0, 640 / len(rows)))
    tall = pitch - max(1.0, pitch / 6)
    most = max(1, *(row.section.context_tokens(*format.grid) for row in rows if isinstance(row, Stage)))
    marks, y, labeled = [], 0.0, float("-inf")
    for row in rows:
        if not isinstance(row, Stage):
            marks.append(text(STRIP, y + 17, f"{row} sections are left out here", "sub small"))
            y, labeled = y + 26, float("-inf")
            continue
        marks.append(f'<g transform="translate(0 {y:.2f})">')
        marks += _strip(row, plan.frames, colors, tall)
        marks += _cost(row.section, format, colors, tall, most)
        if y - labeled >= 13:
            marks += _labels(row.section, format, tall / 2 + 4)
            labeled = y
        marks.append("</g>")
        y += pitch
    marks += _start((STRIP_END - STRIP) / plan.frames / 2, y)
    return Block((*axis(format.seconds(plan.frames), y), *marks), y + 34)


def legend(schedule: Schedule, colors: dict[Kernel, str]) -> Block:
    """What the colors mean."""
    entries = [('class="made"', "made")]
    entries += [(f'fill="{color}"', f"{k} ({k.t} x {k.h} x {k.w})") for k, color in colors.items()]
    if {schedule.left.tail, schedule.right.tail} & {"ta", "tc"}:
        entries.append(('class="tail"', "tail"))
    entries.append(('class="known"', "known, not seen"))
    marks, x, y = [], float(STRIP), 0.0
    for fill, says in entries:
        wide = 36 + 6.3 * len(says)
        if x + wide > WIDTH - MARGIN:
            x, y = float(STRIP), y + 22
        marks += [f'<rect {fill} x="{x:g}" y="{y + 2:g}" width="11" height="11" rx="2"/>']
        marks += [text(x + 17, y + 12, says, "sub small")]
        x += wide
    return Block(tuple(marks), y + 22)


def runs_of(numbers: Sequence[int]) -> list[range]:
    """Rising numbers as runs of neighbors.

    >>> runs_of([0, 4, 5, 6])
    [range(0, 1), range(4, 7)]
    """
    starts = [i for i, n in enumerate(numbers) if not i or n != numbers[i - 1] + 1]
    return [range(numbers[a], numbers[b - 1] + 1) for a, b in pairwise([*starts, len(numbers)])]


def axis(seconds: float, height: float, left: float = STRIP, right: float = STRIP_END) -> Iterator[str]:
    """Lines behind a chart of that height at round times, and the times above it."""
    scale = (right - left) / seconds
    step = round_step(48 / scale)
    for i in range(int(seconds / step) + 1):
        x = left + i * step * scale
        yield f'<path class="line" d="M{x:.1f} -4V{height:.1f}"/>' + text(x, -8, f"{i * step:g} s", "sub small middle")


def _start(half: float, y: float) -> list[str]:
    """A pointer from below to the middle of frame 0."""
    x = STRIP + half
    return [
        f'<path class="dot" d="M{x:.2f} {y + 3:.2f}l4 7h-8z"/>',
        text(x + 9, y + 11, "start image", "sub small"),
    ]


def _strip(row: Stage, frames: int, colors: dict[Kernel, str], tall: float) -> Iterator[str]:
    """The video as a section finds it: a line where frames are known, what it sees, what it makes."""
    cell = (STRIP_END - STRIP) / frames
    levels = {kernel: 1 - 0.5 * i / max(1, len(colors) - 1) for i, kernel in enumerate(colors)}

    def bars(runs: Iterable[range], fill: str, level: float) -> Iterator[str]:
        for run in runs:
            wide, high = len(run) * cell, level * tall
            wide = max(1.2, wide - 0.8 * (wide > DETAIL))  # a seam where there is room for one
            yield (
                f'<rect {fill} x="{STRIP + run.start * cell:.2f}" y="{tall - high:.2f}" width="{wide:.2f}" '
                f'height="{high:.2f}" rx="{int(min(wide, high) > DETAIL)}"/>'
            )

    def grouped(numbers: tuple[int, ...], merged: int) -> list[range]:
        there = [f for f in numbers if 0 <= f < frames]  # others are zeros
        size = merged if merged * cell > DETAIL else len(numbers)
        return [run[i : i + size] for run in runs_of(there) for i in range(0, len(run), size)]

    finest_last = sorted((look for look in row.section.sees if not look.tail), key=lambda look: levels[look.kernel])
    known = (range(run.start, min(run.stop, frames)) for run in row.known if run.start < frames)
    yield from bars(known, 'class="known"', 0.14)
    for look in row.section.sees:
        if look.tail:
            yield from bars(grouped(look.frames, len(look.frames)), 'class="tail"', 0.28)
    for look in finest_last:
        yield from bars(grouped(look.frames, look.kernel.t), f'fill="{colors[look.kernel]}"', levels[look.kernel])
    yield from bars(grouped(row.section.frames, 1), 'class="made"', 1)


def _cost(section: Section, format: Format, colors: dict[Kernel, str], tall: float, most: int) -> Iterator[str]:
    """A bar of the tokens that a section sees, against the most of any section."""
    x = float(BARS)

    def fill(look: Look) -> str:
        return 'class="tail"' if look.tail else f'fill="{colors[look.kernel]}"'

    for look in section.sees:
        wide = look.tokens(*format.grid) * (BARS_END - BARS) / most
        place = f'x="{x:.2f}" y="{tall / 4:.2f}" width="{max(0.6, wide - 0.6):.2f}" height="{tall / 2:.2f}"'
        yield f"<rect {fill(look)} {place}/>"
        x += wide


def _labels(section: Section, format: Format, y: float) -> list[str]:
    return [
        text(STRIP - 22, y, str(section.index + 1), "small end"),
        text(POSITIONS, y, ends(section.positions), "sub small end"),
        text(WIDTH - MARGIN, y, f"{section.context_tokens(*format.grid):,}", "small end"),
    ]
