"""Orders beside each other as a picture: a panel for each, with its sections as a ribbon and arcs to what they see.

The picture stands still and says all of it; over it, where motion is welcome, the sections are made one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from longtake.errors import PlanError
from longtake.plan.cards import colors_of
from longtake.plan.chart import runs_of
from longtake.plan.comparison import chosen, length, sections_until, title
from longtake.plan.draw import Format, round_step
from longtake.plan.orders import ORDERS
from longtake.plan.section import Plan, Section
from longtake.plan.sheet import MARGIN, WIDTH, Block, sheet, text
from longtake.schedule import Kernel

__all__ = ["draw_orders_svg"]

MOST = 100  # sections that a picture has room for
START, LEFT, RIGHT = 46, 96, WIDTH - MARGIN  # width of the start image; where the sections begin and end
ARCH, RIBBON, BAR = 114, 40, 14  # height of the longest arc, of a section, of what is seen through the finest kernel
HEADER, PIPS = 76, 760  # height of the words above a ribbon; the column of those about the first second
STEP, HOLD = 0.9, 3.0  # seconds of the animation: for each section, for the whole before and after
STYLE = """
.first { fill: #2f8f5b; } .later { fill: #dedbd0; } .frame { stroke: #c46a10; stroke-width: 2.5; }
.arc { fill: none; stroke: #b9b4a6; stroke-width: 0.9; } .number { font-size: 15px; font-weight: 700; }
.look { fill: none; stroke: #c46a10; stroke-width: 2; } .cover { fill: #fbfaf7; } .sky { fill: #cfe0f5; }
.sun { fill: #f2b84b; } .far { fill: #8fb09a; } .near { fill: #5d8a6e; }
@media (prefers-color-scheme: dark) {
  .first { fill: #46b37a; } .later { fill: #363b45; } .arc { stroke: #565c69; } .cover { fill: #16181d; }
  .sky { fill: #33455e; } .far { fill: #4d6b58; } .near { fill: #38523f; } .look, .frame { stroke: #e08a2e; }
}
.moving { opacity: 0; }
@media print, (prefers-reduced-motion: reduce) { .moving { display: none; } .still { animation: none !important; } }
"""


def draw_orders_svg(plans: Sequence[Plan], format: Format) -> str:
    """Plans of one video as an SVG, a panel for each.

    Raises:
        PlanError: they have more sections than there is room for.
    """
    n = len(plans[0].sections)
    if n > MOST:
        raise PlanError(f"{n} sections: a picture of the orders has room for {MOST}; ask for fewer seconds")
    kernels = sorted({kernel for plan in plans for kernel in plan.schedule.kernels}, key=lambda kernel: kernel.volume)
    colors = colors_of(tuple(kernels))
    panels = [_panel(plan, format, colors) for plan in plans]
    return sheet("Orders of making one video", [_head(plans[0], format), *panels, _legend(colors)], STYLE + _motion(n))


def _head(plan: Plan, format: Format) -> Block:
    says = (
        "A block is a section, its number says when it is made: the fuller its color, the earlier. "
        "Arcs lead from a section to what it sees,",
        "above to what comes before it, below to what comes after; "
        "for the two that are framed, orange bars show the frames themselves.",
    )
    return Block(
        (
            text(MARGIN, 66, "One take, in every order", "head", 30),
            text(RIGHT, 66, length(plan, format), "sub end"),
            *(text(MARGIN, 94 + 18 * i, line, "sub") for i, line in enumerate(says)),
        ),
        138,
    )


@dataclass(frozen=True, slots=True)
class _Ribbon:
    """The time line of a video, the start image at its left end, in the units of the picture."""

    frames: int
    fps: float
    ratio: int

    @property
    def frame(self) -> float:
        """The width of a frame."""
        return (RIGHT - LEFT) / (self.frames - 1)

    def left(self, frame: int) -> float:
        return LEFT + (frame - 1) * self.frame if frame else MARGIN

    def right(self, frame: int) -> float:
        return LEFT + frame * self.frame if frame else MARGIN + START

    def middle(self, run: Sequence[int]) -> float:
        return (self.left(run[0]) + self.right(run[-1])) / 2

    def at(self, seconds: float) -> float:
        """Where a time is; the first image stands at 0, and as many as the codec has of each frame follow it."""
        return LEFT + (seconds * self.fps - 1) / self.ratio * self.frame

    def place(self, section: Section, beyond: float = 0.0) -> str:
        """Where a section is drawn, a little less wide than it is, as attributes of a rectangle."""
        x, wide = self.left(section.frames[0]) + 1 - beyond, len(section.frames) * self.frame - 2 + 2 * beyond
        round = min(4.0, wide / 6)
        return f'x="{x:.1f}" y="{-beyond:g}" width="{wide:.1f}" height="{RIBBON + 2 * beyond:g}" rx="{round:.1f}"'

    def arc(self, section: Section, run: Sequence[int]) -> _Arc:
        a, b = self.middle(section.frames), self.middle(run)
        return _Arc(a, b, ARCH * sqrt(abs(a - b) / (RIGHT - MARGIN)))


@dataclass(frozen=True, slots=True)
class _Arc:
    """Half an ellipse from a section to what it sees."""

    start: float
    end: float
    height: float

    def path(self, kind: str) -> str:
        """Above the ribbon toward the past, below it toward the future."""
        y = 0 if self.end < self.start else RIBBON
        radius = abs(self.start - self.end) / 2
        return (
            f'<path class="{kind}" d="M{self.start:.1f} {y}A{radius:.1f} {self.height:.1f} 0 0 0 {self.end:.1f} {y}"/>'
        )


def _panel(plan: Plan, format: Format, colors: dict[Kernel, str]) -> Block:
    """An order: its name, its sections as a ribbon, arcs above to the past and below to the future."""
    ribbon = _Ribbon(plan.frames, format.fps, format.temporal_ratio)
    framed = chosen(plan)
    arcs = {section: [ribbon.arc(section, run) for run in _runs(section, plan.frames)] for section in plan.sections}
    above, below = (
        max([BAR, *(arc.height for found in arcs.values() for arc in found if (arc.end < arc.start) == past)])
        for past in (True, False)
    )
    marks = [*_name(plan, format), f'<g transform="translate(0 {HEADER + above:.1f})">']
    for seconds in _times(format.seconds(plan.frames)):
        x = ribbon.at(seconds)
        if x >= MARGIN:
            marks.append(f'<path class="line" d="M{x:.1f} {-above:.1f}V{RIBBON + below:.1f}"/>')
            marks.append(text(x, RIBBON + below + 14, f"{seconds:g} s", "sub small middle"))
    marks += [f'<g class="still" stroke-opacity="{min(1.0, 24 / len(arcs)):.2f}">']
    marks += [arc.path("arc") for section, found in arcs.items() if section not in framed for arc in found]
    marks += ["</g>", *_start(), '<g class="still">']
    for section in framed:
        marks += [arc.path("look") for arc in arcs[section]]
        marks += _bars(section, ribbon, colors)
    marks += ["</g>"]
    marks += [mark for section in plan.sections for mark in _block(section, ribbon, len(plan.sections))]
    frames = [f'<rect class="frame" {ribbon.place(section)}/>' for section in framed]
    marks += ['<g class="still">', *frames, "</g>"]
    first = min(ribbon.at(1), RIGHT) - MARGIN
    marks.append(f'<rect class="first" x="{MARGIN}" y="{RIBBON - 4}" width="{first:.1f}" height="4"/>')
    for section in plan.sections:
        marks.append(f'<rect class="cover moving veil{section.index}" {ribbon.place(section, 2)}/>')
        marks.append(f'<g class="moving turn{section.index}">')
        marks += [arc.path("look") for arc in arcs[section]]
        marks += _bars(section, ribbon, colors)
        marks.append(f'<rect class="frame" {ribbon.place(section)}/></g>')
    return Block((*marks, "</g>"), HEADER + above + RIBBON + below + 30)


def _name(plan: Plan, format: Format) -> Iterator[str]:
    """The name of an order and what it is good for; how much is made before the first second can be watched."""
    n, until = len(plan.sections), sections_until(plan, format)
    kind, _, apart = title(plan).partition(", ")
    yield f'<path class="line" d="M{MARGIN} 0H{RIGHT}"/>'
    yield text(MARGIN, 34, kind, "name", 20)
    yield text(MARGIN + 14 + 12.2 * len(kind), 34, apart, "sub")
    yield text(MARGIN, 57, ORDERS[kind].says, "sub")
    yield f'<path class="first" d="M{PIPS} 24l9 5l-9 5z"/>'
    yield text(PIPS + 15, 34, f"first second after {until} of {n}", "sub")
    wide = (RIGHT - PIPS) / n
    for i in range(n):
        place = f'x="{PIPS + i * wide:.2f}" y="45" width="{max(0.5, 0.86 * wide):.2f}" height="12"'
        yield f'<rect class="{"first" if i < until else "later"}" {place} rx="{min(2.0, wide / 5):.1f}"/>'
        cover = f'x="{PIPS + i * wide - 0.5:.2f}" y="44" width="{0.86 * wide + 1:.2f}" height="14"'
        yield f'<rect class="cover moving veil{i}" {cover}/>'


def _runs(section: Section, frames: int) -> list[range]:
    """What a section sees of a video, as runs of neighbors; zeros are not of it."""
    return runs_of(sorted({f for look in section.sees for f in look.frames if 0 <= f < frames}))


def _bars(section: Section, ribbon: _Ribbon, colors: dict[Kernel, str]) -> Iterator[str]:
    """The frames that a section sees, on the side where it sees them, the higher the finer."""
    for look in section.sees:
        high = BAR * (1 - 0.6 * list(colors).index(look.kernel) / max(1, len(colors) - 1))
        for run in runs_of([f for f in look.frames if 0 <= f < ribbon.frames]):
            for i in range(0, len(run), look.kernel.t):
                part = run[i : i + look.kernel.t]
                x, y = ribbon.left(part[0]), -high - 2 if run[0] < section.frames[0] else RIBBON + 2
                wide = max(1.2, ribbon.right(part[-1]) - x - 0.8)
                yield (
                    f'<rect fill="{colors[look.kernel]}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                    f'height="{high:.1f}" rx="1"/>'
                )


def _start() -> list[str]:
    """The start image: a hill in the sun."""
    x, y, w = MARGIN, RIBBON, START
    return [
        f'<rect class="sky" x="{x}" y="0" width="{w}" height="{y}" rx="4"/>',
        f'<circle class="sun" cx="{x + 33}" cy="11" r="5"/>',
        f'<path class="far" d="M{x} {y - 14}q8 -12 17 -5q9 8 {w - 17} -1v16q0 4 -4 4h-{w - 8}q-4 0 -4 -4z"/>',
        f'<path class="near" d="M{x} {y - 6}q15 -9 26 -3q9 5 {w - 26} 1v4q0 4 -4 4h-{w - 8}q-4 0 -4 -4z"/>',
    ]


def _block(section: Section, ribbon: _Ribbon, n: int) -> Iterator[str]:
    """A section with its number, the darker the earlier it is made."""
    x, wide = ribbon.left(section.frames[0]), len(section.frames) * ribbon.frame
    level, place = 1 - 0.76 * section.index / max(1, n - 1), ribbon.place(section)
    yield f'<rect class="cover" {place}/><rect class="made" fill-opacity="{level:.2f}" {place}/>'
    size = min(15.0, (wide - 3) / (0.65 * len(str(n))))
    if size > 6:
        ink = "number middle on" if level > 0.62 else "number middle"
        yield text(x + wide / 2, RIBBON / 2 + 0.36 * size, str(section.index + 1), ink, size)


def _times(seconds: float) -> list[float]:
    """Times with a tick: a dozen at most."""
    step = round_step(seconds / 12, finest=0.01)
    return [i * step for i in range(int(seconds / step) + 1)]


def _legend(colors: dict[Kernel, str]) -> Block:
    """What the colors mean."""
    marks, x = [f'<path class="line" d="M{MARGIN} 0H{RIGHT}"/>'], float(MARGIN)
    box = 'y="18" width="13" height="13" rx="2"'
    marks += [f'<rect class="made" fill-opacity="{1 - 0.19 * i:.2f}" x="{x + 15 * i}" {box}/>' for i in range(5)]
    entries = [("", "made early to late", 62.0)]
    entries += [(f'fill="{color}"', f"seen through {kernel}", 0.0) for kernel, color in colors.items()]
    entries += [('class="first"', "the first second", 0.0)]
    for fill, says, skip in entries:
        if fill:
            marks.append(f'<rect {fill} x="{x:.1f}" {box}/>')
        marks.append(text(x + skip + 19, 29, says, "sub small"))
        x += skip + 46 + 6.3 * len(says)
    return Block(tuple(marks), 40)


def _motion(n: int) -> str:
    """The style of what moves: all stands, the sections go, come back in the order of making, and all stands again."""
    step = min(STEP, 20 / n)
    lasts = 2 * HOLD + n * step

    def frames(name: str, *stops: tuple[float, float]) -> str:
        inner = " ".join(f"{100 * min(at, lasts) / lasts:.2f}% {{ opacity: {level:g}; }}" for at, level in stops)
        return f"@keyframes {name} {{ {inner} }} .{name} {{ animation: {name} {lasts:g}s linear infinite; }}\n"

    gone = HOLD - 0.6
    rules = [frames("still", (0, 1), (gone, 1), (HOLD, 0.1), (lasts - HOLD, 0.1), (lasts - gone, 1), (lasts, 1))]
    for i in range(n):
        at = HOLD + i * step
        rules.append(frames(f"veil{i}", (0, 0), (gone, 0), (HOLD, 0.92), (at, 0.92), (at + step / 3, 0), (lasts, 0)))
        rules.append(
            frames(f"turn{i}", (0, 0), (at, 0), (at + step / 4, 1), (at + step, 1), (at + 1.3 * step, 0), (lasts, 0))
        )
    return "".join(rules)
