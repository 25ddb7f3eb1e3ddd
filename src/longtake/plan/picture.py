"""Schedules and plans as a picture: what a section sees, what that costs, and the sections in the order of making."""

from __future__ import annotations

from longtake.plan.cards import Gap, Shown, cards, colors_of, time_line
from longtake.plan.chart import chart, heading, legend
from longtake.plan.draw import Format
from longtake.plan.section import Plan
from longtake.plan.sheet import INNER, MARGIN, WIDTH, Block, sheet, text
from longtake.schedule import Schedule

__all__ = ["draw_svg"]


def draw_svg(schedule: Schedule, format: Format, plan: Plan | None = None) -> str:
    """An SVG of a schedule, and of a plan that follows it. It scales, prints, and minds a dark page.

    A card is a frame, or as many as its kernel merges; a cell of a card is a token.

    >>> from longtake.schedule import parse
    >>> draw_svg(parse("td_f16k4f2k2f1k1_g9"), Format())[:40]
    '<svg xmlns="http://www.w3.org/2000/svg" '
    """
    colors = colors_of(schedule.kernels)
    line = time_line(schedule, format, colors)
    blocks = [_title(schedule, format), cards(line, format), _costs(line, schedule, format)]
    if plan:
        blocks += [heading(plan, format), chart(plan, format, colors), legend(schedule, colors)]
    return sheet(str(schedule), blocks)


def _title(schedule: Schedule, format: Format) -> Block:
    made, context = schedule.section_tokens(*format.grid), schedule.context_tokens(*format.grid)
    says = (
        f"What a section sees at {format.height} x {format.width}: {context:,} tokens of history "
        f"around {made:,} of its own. A card is a frame, or as many as a kernel merges; a cell is a token."
    )
    name = text(MARGIN, 60, str(schedule), "name", min(24.0, INNER / (0.61 * len(str(schedule)))))
    return Block((name, text(MARGIN, 86, says, "sub")), 122)


def _costs(line: list[Shown | Gap], schedule: Schedule, format: Format) -> Block:
    """Tokens of a section, packed and not, on one scale."""
    spans = [part for part in line if isinstance(part, Shown)]
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
