"""A run over time as a picture: in which order its sections were made, and a panel for each number of its meters."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from html import escape

from longtake.errors import RunError
from longtake.pipeline.curves import CURVES, Curve, Row, amount, explain_no_meters, given_of, rows_of, settings_of
from longtake.pipeline.run import Run, source_segments
from longtake.plan.chart import axis
from longtake.plan.sheet import MARGIN, WIDTH, Block, sheet, text

__all__ = ["draw_run_svg"]

LEFT, RIGHT = 210, 884  # of all panels
STRIP, PANEL, GAP = 30, 62, 26  # heights
LINE = 138  # letters of the prompt
TOPS = [m * 10**e for e in range(-3, 39) for m in (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)]
STYLE = """
.image { color: #3a5bd0; } .latent { color: #c46a10; } .what { font-size: 13px; font-weight: 600; }
.curve, .stem { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.knob, .under { fill: currentColor; } .under { opacity: 0.1; }
.steady { stroke: #7b808b; stroke-dasharray: 2 4; } .base { stroke: #c9c5b9; } .to-be { fill: none; stroke: #c9c5b9; }
.given { fill: currentColor; opacity: 0.08; }
@media (prefers-color-scheme: dark) {
  .image { color: #7f98f2; } .latent { color: #e59a45; } .under { opacity: 0.16; } .base, .to-be { stroke: #434852; }
}
"""

Scale = Callable[[float], float]


def draw_run_svg(run: Run) -> str:
    """An SVG of a run, with time from left to right. It scales, prints, and minds a dark page.

    Raises:
        RunError: nothing of it is measured.
    """
    rows = rows_of(run)
    if not any(row.meter for row in rows):
        raise RunError(f"{run.folder}: there is nothing to draw. {explain_no_meters(run)}")
    x = partial(_x, whole=run.config.images / run.config.fps)
    blocks = [_title(run, rows), _making(run, rows, x), *(_panel(curve, rows, x) for curve in CURVES), _legend()]
    return sheet(escape(run.folder.resolve().name), blocks, STYLE)


def _title(run: Run, rows: tuple[Row, ...]) -> Block:
    c, made = run.config, sum(row.made for row in rows)
    name = text(MARGIN, 58, escape(run.folder.resolve().name), "name", 22.0)
    length = f"{c.images} images, {c.images / c.fps:.2f} s at {c.fps:g} images/s"
    says = [f"{made} of {len(rows)} sections made, {c.width} x {c.height}, {length}", *given_of(run), settings_of(run)]
    prompt = [escape(line) for line in textwrap.wrap(c.prompt, LINE, max_lines=3)]
    below = [escape(line) for paragraph in says for line in textwrap.wrap(paragraph, LINE)]
    y = 84 + 18 * len(prompt)
    lines = [text(MARGIN, 82 + 18 * i, line, "", 13.0) for i, line in enumerate(prompt)]
    lines += [text(MARGIN, y + 18 * i, line, "sub") for i, line in enumerate(below)]
    return Block((name, *lines), y + 18 * len(below) + 20)


def _x(seconds: float, whole: float) -> float:
    return LEFT + (RIGHT - LEFT) * seconds / whole


def _making(run: Run, rows: tuple[Row, ...], x: Scale) -> Block:
    """A block for each section, the earlier made the stronger, with its number in the order of making."""
    y = 8
    marks = [
        text(MARGIN, y + 13, "order of making", "what"),
        text(MARGIN, y + 28, "first strong, last faint", "sub small"),
    ]
    for piece in source_segments(run.folder, run.config):
        left, right = (x(image / run.config.fps) for image in (piece.first, piece.first + piece.images))
        marks.append(f'<rect class="given" x="{left:.2f}" y="{y}" width="{right - left:.2f}" height="{STRIP}"/>')
    for row in rows:
        left, right = x(row.begins), x(row.ends)
        wide = right - left
        place = f'x="{left + 0.5:.2f}" y="{y}" width="{max(0.6, wide - 1):.2f}" height="{STRIP}" rx="{2 * (wide > 8)}"'
        level = 1 - 0.8 * row.section.index / max(1, len(rows) - 1)
        marks.append(
            f'<rect class="made" opacity="{level:.2f}" {place}/>' if row.made else f'<rect class="to-be" {place}/>'
        )
        number = str(row.section.index)
        if wide > 7 * len(number) + 4:
            ink = "on" if row.made and level > 0.55 else ""
            marks.append(text((left + right) / 2, y + STRIP / 2 + 4, number, f"small middle {ink}"))
    height = y + STRIP + len(CURVES) * (PANEL + GAP) + 4
    return Block((*axis(run.config.images / run.config.fps, height, LEFT, RIGHT), *marks), y + STRIP)


def _panel(curve: Curve, rows: tuple[Row, ...], x: Scale) -> Block:
    """A number over time, on a scale from 0."""
    values = [curve.of(row.meter) for row in rows if row.meter]
    top = next(t for t in TOPS if t >= max(curve.top, *values))
    bottom = GAP + PANEL

    def y(value: float) -> float:
        return bottom - PANEL * value / top

    marks = [f'<g class="{curve.source}">', f'<path class="base" d="M{LEFT} {bottom}H{RIGHT}"/>']
    marks += [f'<path class="steady" d="M{LEFT} {y(curve.steady):.2f}H{RIGHT}"/>'] if curve.steady else []
    marks += DRAWN[curve.belongs_to](curve, rows, x, y)
    marks.append("</g>")
    marks += [text(MARGIN, GAP + 24, curve.name, "what"), text(MARGIN, GAP + 41, curve.unit, "sub small")]
    marks += [text(LEFT - 8, y(value) + 4, f"{value:g}", "sub small end") for value in (top, 0.0)]
    for at, says, value in ((24, "high", max(values)), (41, "low", min(values))):
        marks.append(text(RIGHT + 12, GAP + at, says, "sub small"))
        marks.append(text(WIDTH - MARGIN, GAP + at, amount(value), "small end"))
    return Block(tuple(marks), bottom)


def _steps(curve: Curve, rows: tuple[Row, ...], x: Scale, y: Scale) -> Iterator[str]:
    """A level for each section, joined where sections follow each other."""
    line, under, joined = "", "", False
    for row in rows:
        if row.meter:
            left, right, at = x(row.begins), x(row.ends), y(curve.of(row.meter))
            line += f"{'V' if joined else f'M{left:.2f} '}{at:.2f}H{right:.2f}"
            under += f"M{left:.2f} {y(0):.2f}V{at:.2f}H{right:.2f}V{y(0):.2f}z"
        joined = row.meter is not None
    yield f'<path class="under" d="{under}"/>'
    yield f'<path class="curve" d="{line}"/>'


def _stems(curve: Curve, rows: tuple[Row, ...], x: Scale, y: Scale) -> Iterator[str]:
    """A stem with a dot where each section begins."""
    radius = max(1.0, min(3.5, 0.2 * (RIGHT - LEFT) / len(rows)))
    for row in rows:
        if row.meter:
            left, at = x(row.begins), y(curve.of(row.meter))
            yield f'<path class="stem" d="M{left:.2f} {y(0):.2f}V{at:.2f}"/>'
            yield f'<circle class="knob" cx="{left:.2f}" cy="{at:.2f}" r="{radius:.2f}"/>'


DRAWN = {"section": _steps, "seam": _stems}


def _legend() -> Block:
    level = '<rect class="under" width="18" height="11"/><path class="curve" d="M0 0H18"/>'
    entries = (
        ("image", level, "every fourth image"),
        ("latent", level, "latents"),
        ("image", '<path class="steady" d="M0 6H18"/>', "no drift"),
    )
    marks, x = [], float(LEFT)
    for kind, key, says in entries:
        marks += [f'<g class="{kind}" transform="translate({x:.0f} 32)">{key}</g>', text(x + 26, 42, says, "sub small")]
        x += 56 + 6 * len(says)
    return Block(tuple(marks), 46)
