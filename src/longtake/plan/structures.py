"""The five kernel structures of the paper's Figure 1 beside each other, as text and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import log2
from textwrap import wrap

from longtake.plan.cards import Gap, Shown, card, cells, dots, shade, time_line
from longtake.plan.chart import chart, legend
from longtake.plan.draw import Format, draw_plan
from longtake.plan.section import Plan
from longtake.plan.sheet import MARGIN, WIDTH, Block, sheet, text
from longtake.schedule import PRESETS, Kernel, Preset, Schedule, Span, parse, rate_of

__all__ = ["draw_structures", "draw_structures_svg"]

CARD, CARD_HEIGHT, SLOT, TOP = 88, 64, 80, 80  # of a frame at most; of a span at least; where cards begin in a row
FAN, MADE_FAN, SPACE = 44, 12, 10  # from card to card, also of those made; from span to span
BARS = 730  # where costs begin
COARSEST = 6  # halvings of a frame's tokens that have a shade of their own
NOTE = "The structures of the paper's Figure 1, which describes them; the kernels that it draws are not in its text."


def draw_structures(format: Format, plans: Mapping[str, Plan] | None = None, columns: int = 100) -> str:
    """The presets as text: each frame a bar, a line higher for twice the tokens; under it its plan, if there is one.

    >>> print(draw_structures(Format()).partition("level-duplication")[0].rstrip())
    The structures of the paper's Figure 1, at 480 x 832: what a section sees, the past on the left.
    A column is a frame, and a line higher is twice the tokens; #: the frames made.
    <BLANKLINE>
    geometric
    td_f1k1h8w8f1k1h4w8f1k1h4w4f1k1h2w4f1k1_g9
    Each older frame has half the tokens of the next: a past of any length costs less than two frames.
      1             o  # # # # # # # # #
      1/2         o o  # # # # # # # # #
      1/4       o o o  # # # # # # # # #
      1/8     o o o o  # # # # # # # # #
      1/16  o o o o o  # # # # # # # # #
    5 frames at the price of 1.94: 3,029 of 17,069 tokens; unpacked it would be 7,800 of 21,840
    """
    drawn = [
        f"The structures of the paper's Figure 1, at {format.height} x {format.width}: "
        "what a section sees, the past on the left.\n"
        "A column is a frame, and a line higher is twice the tokens; #: the frames made."
    ]
    for name, preset in PRESETS.items():
        schedule = parse(preset.schedule)
        why, price = wrap(preset.why, columns), wrap(_price(schedule, format), columns)
        drawn.append("\n".join([name, str(schedule), *why, *_columns(schedule), *price]))
        if plans:
            drawn.append(draw_plan(plans[name], format, columns))
    return "\n\n".join(drawn)


def draw_structures_svg(format: Format, plans: Mapping[str, Plan] | None = None) -> str:
    """The presets as an SVG, a row for each, with its plan where there is one."""
    says = (
        f"What a section sees at {format.height} x {format.width}, the past on the left, the frames made on the right. "
        "A card is a frame, or as many as a kernel merges."
    )
    title = Block(
        (
            text(MARGIN, 60, "Five ways to pack a past", "head", 24),
            text(MARGIN, 84, says, "sub"),
            text(MARGIN, 102, NOTE, "sub"),
        ),
        124,
    )
    blocks = [title]
    for name, preset in PRESETS.items():
        blocks.append(_row(name, preset, format))
        if plans:
            plan, colors = plans[name], _colors(plans[name].schedule)
            blocks += [Block((), 14), chart(plan, format, colors), legend(plan.schedule, colors), Block((), 20)]
    return sheet("The five structures of the paper's Figure 1", blocks)


def _price(schedule: Schedule, format: Format) -> str:
    made, context = schedule.section_tokens(*format.grid), schedule.context_tokens(*format.grid)
    frames = sum(span.frames for span in schedule.spans)
    unpacked = frames * (made // schedule.generated)
    return (
        f"{frames} frames at the price of {float(rate_of(schedule)):.2f}: {context:,} of {context + made:,} tokens; "
        f"unpacked it would be {unpacked:,} of {unpacked + made:,}"
    )


def _halvings(kernel: Kernel) -> int:
    """How often a frame's tokens are halved, against k1."""
    return round(log2(kernel.volume / 4))


def _colors(schedule: Schedule) -> dict[Kernel, str]:
    """A shade for each rate, the same in all rows."""
    return {kernel: shade(min(1.0, _halvings(kernel) / COARSEST)) for kernel in schedule.kernels}


def _columns(schedule: Schedule) -> Iterator[str]:
    """A bar for each frame, as high as its tokens are, on a scale of powers of two; merged frames stand together."""
    lowest = max(map(_halvings, schedule.kernels))

    def bars(spans: tuple[Span, ...], line: int) -> str:
        marks = []
        for span in spans:
            mark, merged = "o" if _halvings(span.kernel) <= line else " ", span.kernel.t
            marks += [mark * min(merged, span.frames - i) for i in range(0, span.frames, merged)]
        return " ".join(marks)

    for line in range(lowest + 1):
        skipped = ("  ...  " if line == lowest else " " * 7) if schedule.left.far else ""
        past = bars(schedule.left.far, line) + skipped + bars(schedule.left.near, line)
        yield f"  {Fraction(1, 2**line)!s:<5} {past}  {'# ' * schedule.generated}".rstrip()


def _row(name: str, preset: Preset, format: Format) -> Block:
    """A structure: its cards, those that are made at the right end and those beyond a gap at the left, and its cost."""
    schedule = parse(preset.schedule)
    line = time_line(schedule, format, _colors(schedule))
    *past, made = (part for part in line if isinstance(part, Shown))
    far, near = past[: len(schedule.left.far)], past[len(schedule.left.far) :]
    width = min(CARD, CARD_HEIGHT * format.width / format.height)
    height = width * format.height / format.width
    marks = [
        f'<path class="line" d="M{MARGIN} 0H{WIDTH - MARGIN}"/>',
        text(MARGIN, 30, name, "name", 17),
        text(MARGIN + 12 + 10.4 * len(name), 30, str(schedule), "code sub", 12),
        text(MARGIN, 50, preset.why, "sub"),
        *_cost(schedule, past, format),
        f'<g transform="translate(0 {TOP})">',
    ]

    def wide(span: Shown) -> float:
        return max(SLOT, width + FAN * (span.cards - 1))

    def draw(span: Shown, x: float, fan: float, step: float) -> None:
        pattern = f"{name}-{span.name}-{x:.0f}"
        first = x + (fan - width - step * (span.cards - 1)) / 2
        marks.append(cells(pattern, span, format, width, height))
        for i in range(span.cards):
            marks.extend(card(pattern, span, first + step * i, width, height))
        for y, says, kind in zip((19, 35, 50), (span.name, *span.words), ("span", "sub", "sub"), strict=True):
            marks.append(text(x + fan / 2, height + y, says, f"{kind} small middle"))

    fan = width + MADE_FAN * (made.cards - 1)
    x = WIDTH - MARGIN - fan
    draw(made, x, fan, MADE_FAN)
    x -= SPACE
    for span in near[::-1]:
        x -= SPACE + wide(span)
        draw(span, x, wide(span), FAN)
    left = float(MARGIN)
    for span in far:
        draw(span, left, wide(span), FAN)
        left += SPACE + wide(span)
    middle = (left - SPACE + x) / 2 if far else x - 36
    marks += dots(middle, height / 2)
    marks += [
        text(middle, height + y, says, "sub small middle")
        for gap in line
        if isinstance(gap, Gap)
        for y, says in zip((35, 50), gap.words, strict=True)
    ]
    return Block((*marks, "</g>"), TOP + height + 78)


def _cost(schedule: Schedule, past: list[Shown], format: Format) -> Iterator[str]:
    """What a past costs, in frames and tokens, as a bar on one scale for all rows."""
    frames, tokens = f"{float(rate_of(schedule)):.2f} frames", f"{schedule.context_tokens(*format.grid):,} tokens"
    yield text(BARS, 30, frames, "total")
    yield text(WIDTH - MARGIN, 30, tokens, "sub end")
    scale = (WIDTH - MARGIN - BARS) / max(parse(p.schedule).context_tokens(*format.grid) for p in PRESETS.values())
    x = float(BARS)
    for span in past:
        wide = span.tokens * scale
        yield f'<rect {span.fill} x="{x:.2f}" y="39" width="{max(0.5, wide - 1):.2f}" height="13"/>'
        x += wide
