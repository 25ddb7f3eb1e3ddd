"""The time line of a schedule as cards: a card is a frame, or as many as a kernel merges; a cell is a token."""

from __future__ import annotations

from dataclasses import dataclass

from longtake.plan.draw import Format
from longtake.plan.sheet import INNER, MADE, MARGIN, Block, text
from longtake.schedule import Kernel, Schedule, Side, Span

__all__ = ["Gap", "Shown", "card", "cards", "cells", "colors_of", "dots", "shade", "time_line"]

FINE, COARSE = (0xC4, 0x6A, 0x10), (0xF2, 0xCB, 0x8C)  # colors of the finest and the coarsest kernel
CARD, CARD_HEIGHT, SLOT = 104, 84, 74  # a frame at most; the width of a span at least
SPACE, GAP = 20, 62  # between spans; for frames that are not shown
CARDS = 40  # of a span that are drawn at most
CELL = 1.4  # width from which cells are told apart
FATES = {None: "skipped", "td": "deleted", "ta": "pooled", "tc": "one token"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A span of the time line, or the frames made."""

    name: str
    frames: int
    kernel: Kernel
    color: str
    tokens: int
    made: bool = False

    @property
    def fill(self) -> str:
        """Its color as an attribute."""
        return 'class="made"' if self.made else f'fill="{self.color}"'

    @property
    def cards(self) -> int:
        """How many are drawn."""
        return min(CARDS, -(-self.frames // self.kernel.t))

    @property
    def words(self) -> list[str]:
        """What stands under its name."""
        frames = f"{self.frames} frame" + "s" * (self.frames > 1) + " made" * self.made
        return [frames, f"{self.tokens:,} tokens"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames of the time line that no card shows."""

    name: str
    fate: str

    @property
    def words(self) -> list[str]:
        """What stands under its name."""
        return ["frames", self.fate]


def shade(part: float) -> str:
    """A color from dark to light, for kernels from fine (0) to coarse (1)."""
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(FINE, COARSE, strict=True))


def colors_of(kernels: tuple[Kernel, ...]) -> dict[Kernel, str]:
    """From dark to light: the coarser, the lighter."""
    return {kernel: shade(i / max(1, len(kernels) - 1)) for i, kernel in enumerate(kernels)}


def time_line(schedule: Schedule, format: Format, colors: dict[Kernel, str]) -> list[Shown | Gap]:
    """All of a schedule in time order."""

    def shown(spans: tuple[Span, ...]) -> list[Shown | Gap]:
        tokens = [span.kernel.tokens(span.frames, *format.grid) for span in spans]
        return [Shown(str(s), s.frames, s.kernel, colors[s.kernel], n) for s, n in zip(spans, tokens, strict=True)]

    def gap(side: Side) -> list[Shown | Gap]:
        names = [name for name in ("x" if side.far else "", side.tail) if name]
        return [Gap(" ".join(names), FATES[side.tail])] if names else []

    left, right, g = schedule.left, schedule.right, schedule.generated
    name, tokens = f"g{g}" + "+D" * schedule.discrete, schedule.section_tokens(*format.grid)
    made = Shown(name, g, Kernel(1, 2, 2), MADE, tokens, made=True)
    return [*shown(left.far), *gap(left), *shown(left.near), made, *shown(right.near), *gap(right), *shown(right.far)]


def cards(line: list[Shown | Gap], format: Format) -> Block:
    """The time line, the past on the left; later cards lie on earlier ones."""
    spans = [part for part in line if isinstance(part, Shown)]
    room = INNER - SPACE * (len(line) - 1) - GAP * (len(line) - len(spans))
    share = 0.72 * room / len(spans)
    width = min(CARD, CARD_HEIGHT * format.width / format.height, share)
    height, slot = width * format.height / format.width, max(width, min(SLOT, share))
    step = min(width + 5, (room - slot * len(spans)) / max(1, sum(span.cards - 1 for span in spans)))
    fans = [width + step * (part.cards - 1) if isinstance(part, Shown) else 0.0 for part in line]
    wides = [max(fan, slot) if fan else float(GAP) for fan in fans]
    words = [part.words for part in line]
    small = min(
        12.0, *((wide + SPACE - 6) / (0.56 * len(w)) for wide, ws in zip(wides, words, strict=True) for w in ws)
    )
    marks, x = [], float(MARGIN)
    for number, (part, fan, wide) in enumerate(zip(line, fans, wides, strict=True)):
        if isinstance(part, Shown):
            marks.append(cells(f"cells{number}", part, format, width, height))
            for i in range(part.cards):
                marks += card(f"cells{number}", part, x + (wide - fan) / 2 + step * i, width, height)
        else:
            marks += dots(x + wide / 2, height / 2)
        large = min(13.0, (wide + SPACE - 4) / (0.61 * len(part.name)))
        marks.append(text(x + wide / 2, height + 24, part.name, "span middle", large))
        for y, says in zip((42, 58), part.words, strict=True):
            marks.append(text(x + wide / 2, height + y, says, "sub middle", small))
        x += wide + SPACE
    return Block(tuple(marks), height + 92)


def dots(x: float, y: float) -> list[str]:
    """A mark for frames that are not shown."""
    return [f'<circle class="dot" cx="{x + d:.1f}" cy="{y:.1f}" r="2"/>' for d in (-10, 0, 10)]


def cells(name: str, span: Shown, format: Format, width: float, height: float) -> str:
    """A pattern with a cell for each token of a card; cells too small to be told apart are one."""
    w, h = width / -(-format.grid[1] // span.kernel.w), height / -(-format.grid[0] // span.kernel.h)
    seam = min(1.0, 0.22 * min(w, h))
    if min(w, h) < CELL:
        w, h, seam = width, height, 0.0
    return (
        f'<pattern id="{name}" width="{w:.4f}" height="{h:.4f}" patternUnits="userSpaceOnUse">'
        f'<rect {span.fill} width="{w - seam:.4f}" height="{h - seam:.4f}"/></pattern>'
    )


def card(pattern: str, span: Shown, x: float, width: float, height: float) -> list[str]:
    """A card with its tokens, and behind it the edges of the frames that it merges."""
    marks, place = [], ""
    for i in range(min(3, span.kernel.t - 1), -1, -1):
        place = f'x="{x + 2.5 * i:.2f}" y="{-2.5 * i:.2f}" width="{width:.2f}" height="{height:.2f}" rx="2"'
        marks += [f'<rect class="edge" {place}/>', f'<rect {span.fill} stroke="{span.color}" opacity="0.45" {place}/>']
    tokens = f'<rect fill="url(#{pattern})" width="{width:.2f}" height="{height:.2f}"/>'
    marks.append(f'<g transform="translate({x:.2f} 0)">{tokens}</g>')
    return [*marks, f'<rect class="frame" stroke="{span.color}" {place}/>']
