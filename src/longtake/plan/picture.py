"""Schedules and plans as a picture: what a section sees, what that costs, and the sections in the order of making."""

from __future__ import annotations

from dataclasses import dataclass

from longtake.plan.chart import MARGIN, WIDTH, Block, chart, heading, legend, text
from longtake.plan.draw import Format
from longtake.plan.section import Plan
from longtake.schedule import Kernel, Schedule, Side, Span

__all__ = ["draw_svg", "sheet"]

INNER = WIDTH - 2 * MARGIN
FINE, COARSE = (0xC4, 0x6A, 0x10), (0xF2, 0xCB, 0x8C)  # colors of the finest and the coarsest kernel
MADE = "#3a5bd0"
CARD, CARD_HEIGHT, SLOT = 104, 84, 74  # a frame at most; the width of a span at least
SPACE, GAP = 20, 62  # between spans; for frames that are not shown
CARDS = 40  # of a span that are drawn at most
FATES = {None: "skipped", "td": "deleted", "ta": "pooled", "tc": "one token"}
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: #2a2d34; }
.name, .span { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; font-weight: 700; }
.head { font-size: 16px; font-weight: 600; } .sub { fill: #666b76; } .small { font-size: 10.5px; }
.sheet { fill: #fbfaf7; stroke: #e6e3da; } .edge { fill: #fbfaf7; stroke: #fbfaf7; stroke-width: 3; }
.frame { fill: none; stroke-width: 0.9; } .line { stroke: #e6e3da; } .dot { fill: #7b808b; }
.on { fill: #ffffff; } .ink { fill: #2a2d34; }
.made { fill: #3a5bd0; } .known { fill: #dedbd0; } .tail { fill: #a89f91; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
@media (prefers-color-scheme: dark) {
  text { fill: #e8e9ed; } .sub { fill: #a3a8b4; } .line { stroke: #2b2f38; }
  .sheet { fill: #16181d; stroke: #2b2f38; } .edge { fill: #16181d; stroke: #16181d; }
  .made { fill: #5574e8; } .known { fill: #363b45; } .tail { fill: #6e675c; }
}
"""


@dataclass(frozen=True, slots=True)
class _Span:
    """A span of the time line, or the frames made."""

    name: str
    frames: int
    kernel: Kernel
    color: str
    tokens: int
    made: bool = False

    @property
    def fill(self) -> str:
        return 'class="made"' if self.made else f'fill="{self.color}"'

    @property
    def cards(self) -> int:
        return min(CARDS, -(-self.frames // self.kernel.t))


@dataclass(frozen=True, slots=True)
class _Gap:
    """Frames of the time line that no card shows."""

    name: str
    fate: str


def draw_svg(schedule: Schedule, format: Format, plan: Plan | None = None) -> str:
    """An SVG of a schedule, and of a plan that follows it. It scales, prints, and minds a dark page.

    A card is a frame, or as many as its kernel merges; a cell of a card is a token.

    >>> from longtake.schedule import parse
    >>> draw_svg(parse("td_f16k4f2k2f1k1_g9"), Format())[:40]
    '<svg xmlns="http://www.w3.org/2000/svg" '
    """
    colors = _colors(schedule.kernels)
    line = _time_line(schedule, format, colors)
    blocks = [_title(schedule, format), _cards(line, format), _costs(line, schedule, format)]
    if plan:
        blocks += [heading(plan, format), chart(plan, format, colors), legend(schedule, colors)]
    return sheet(str(schedule), blocks)


def sheet(title: str, blocks: list[Block], style: str = "") -> str:
    """An SVG of blocks, one below the other; `style` adds to the classes that all pictures have."""
    body, y = [], 0.0
    for block in blocks:
        body += [f'<g transform="translate(0 {y:.2f})">', *block.marks, "</g>"]
        y += block.height
    y = round(y + 16)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">',
            f"<title>{title}</title>",
            f"<style>{STYLE}{style}</style>",
            f'<rect class="sheet" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="14"/>',
            *body,
            "</svg>\n",
        ]
    )


def _colors(kernels: tuple[Kernel, ...]) -> dict[Kernel, str]:
    """From dark to light: the coarser, the lighter."""
    steps = max(1, len(kernels) - 1)

    def mixed(part: float) -> str:
        return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(FINE, COARSE, strict=True))

    return {kernel: mixed(i / steps) for i, kernel in enumerate(kernels)}


def _time_line(schedule: Schedule, format: Format, colors: dict[Kernel, str]) -> list[_Span | _Gap]:
    def shown(spans: tuple[Span, ...]) -> list[_Span | _Gap]:
        tokens = [span.kernel.tokens(span.frames, *format.grid) for span in spans]
        return [_Span(str(s), s.frames, s.kernel, colors[s.kernel], n) for s, n in zip(spans, tokens, strict=True)]

    def gap(side: Side) -> list[_Span | _Gap]:
        names = [name for name in ("x" if side.far else "", side.tail) if name]
        return [_Gap(" ".join(names), FATES[side.tail])] if names else []

    left, right, g = schedule.left, schedule.right, schedule.generated
    name, tokens = f"g{g}" + "+D" * schedule.discrete, schedule.section_tokens(*format.grid)
    made = _Span(name, g, Kernel(1, 2, 2), MADE, tokens, made=True)
    return [*shown(left.far), *gap(left), *shown(left.near), made, *shown(right.near), *gap(right), *shown(right.far)]


def _title(schedule: Schedule, format: Format) -> Block:
    made, context = schedule.section_tokens(*format.grid), schedule.context_tokens(*format.grid)
    says = (
        f"What a section sees at {format.height} x {format.width}: {context:,} tokens of history "
        f"around {made:,} of its own. A card is a frame, or as many as a kernel merges; a cell is a token."
    )
    name = text(MARGIN, 60, str(schedule), "name", min(24.0, INNER / (0.61 * len(str(schedule)))))
    return Block((name, text(MARGIN, 86, says, "sub")), 122)


def _cards(line: list[_Span | _Gap], format: Format) -> Block:
    """The time line, the past on the left; later cards lie on earlier ones."""
    spans = [part for part in line if isinstance(part, _Span)]
    room = INNER - SPACE * (len(line) - 1) - GAP * (len(line) - len(spans))
    share = 0.72 * room / len(spans)
    width = min(CARD, CARD_HEIGHT * format.width / format.height, share)
    height, slot = width * format.height / format.width, max(width, min(SLOT, share))
    step = min(width + 5, (room - slot * len(spans)) / max(1, sum(span.cards - 1 for span in spans)))
    marks, x = [], float(MARGIN)
    for number, part in enumerate(line):
        if isinstance(part, _Gap):
            wide, says = float(GAP), [part.name, "frames", part.fate]
            at = [x + GAP / 2 + d for d in (-10, 0, 10)]
            marks += [f'<circle class="dot" cx="{a:.1f}" cy="{height / 2:.1f}" r="2"/>' for a in at]
        else:
            fan = width + step * (part.cards - 1)
            wide = max(fan, slot)
            marks.append(_cells(f"cells{number}", part, format, width, height))
            for i in range(part.cards):
                marks += _card(f"cells{number}", part, x + (wide - fan) / 2 + step * i, width, height)
            frames = f"{part.frames} frame" + "s" * (part.frames > 1) + " made" * part.made
            says = [part.name, frames, f"{part.tokens:,} tokens"]
        sizes = [min(13.0, (wide + SPACE - 4) / (0.61 * len(says[0])))]
        sizes += [min(12.0, (wide + SPACE - 4) / (0.56 * max(map(len, says[1:]))))] * 2
        for y, words, kind, size in zip((24, 42, 58), says, ("span", "sub", "sub"), sizes, strict=True):
            marks.append(text(x + wide / 2, height + y, words, f"{kind} middle", size))
        x += wide + SPACE
    return Block(tuple(marks), height + 92)


def _cells(name: str, span: _Span, format: Format, width: float, height: float) -> str:
    """A pattern with a cell for each token of a card."""
    w, h = width / -(-format.grid[1] // span.kernel.w), height / -(-format.grid[0] // span.kernel.h)
    seam = min(1.0, 0.22 * min(w, h))
    return (
        f'<pattern id="{name}" width="{w:.4f}" height="{h:.4f}" patternUnits="userSpaceOnUse">'
        f'<rect {span.fill} width="{w - seam:.4f}" height="{h - seam:.4f}"/></pattern>'
    )


def _card(cells: str, span: _Span, x: float, width: float, height: float) -> list[str]:
    """A card with its tokens, and behind it the edges of the frames that it merges."""
    marks, place = [], ""
    for i in range(min(3, span.kernel.t - 1), -1, -1):
        place = f'x="{x + 2.5 * i:.2f}" y="{-2.5 * i:.2f}" width="{width:.2f}" height="{height:.2f}" rx="2"'
        marks += [f'<rect class="edge" {place}/>', f'<rect {span.fill} opacity="0.35" {place}/>']
    tokens = f'<rect fill="url(#{cells})" width="{width:.2f}" height="{height:.2f}"/>'
    marks.append(f'<g transform="translate({x:.2f} 0)">{tokens}</g>')
    return [*marks, f'<rect class="frame" stroke="{span.color}" {place}/>']


def _costs(line: list[_Span | _Gap], schedule: Schedule, format: Format) -> Block:
    """Tokens of a section, packed and not, on one scale."""
    spans = [part for part in line if isinstance(part, _Span)]
    a_frame = schedule.section_tokens(*format.grid) // schedule.generated
    rows = {"packed": [s.tokens for s in spans], "unpacked": [s.frames * a_frame for s in spans]}
    left, right, marks = MARGIN + 76, WIDTH - MARGIN - 64, []
    scale = (right - left) / max(sum(tokens) for tokens in rows.values())
    for i, (name, tokens) in enumerate(rows.items()):
        y, x = 26 * i, float(left)
        marks.append(text(MARGIN, y + 14, name, "sub"))
        for span, n in zip(spans, tokens, strict=True):
            wide = n * scale
            marks.append(f'<rect {span.fill} x="{x:.2f}" y="{y}" width="{max(0.5, wide - 1):.2f}" height="19"/>')
            if wide > 42:
                ink = "small middle on" if span.made else "small middle ink"
                marks.append(text(x + wide / 2, y + 13.5, f"{n / sum(tokens):.0%}", ink))
            x += wide
        marks.append(text(x + 8, y + 14, f"{sum(tokens):,}", "total"))
    return Block(tuple(marks), 26 * len(rows) + 20)
