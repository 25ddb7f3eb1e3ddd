"""The sheet that every picture is drawn on: its size, its style, and blocks from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["INNER", "MADE", "MARGIN", "WIDTH", "Block", "sheet", "text"]

WIDTH, MARGIN = 1000, 40  # of a picture, in its own units
INNER = WIDTH - 2 * MARGIN
MADE = "#3a5bd0"
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: #2a2d34; }
.name, .span { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; font-weight: 700; }
.code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
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
class Block:
    """A part of a picture, drawn from 0 downwards."""

    marks: tuple[str, ...]
    height: float


def text(x: float, y: float, says: str, kind: str, size: float | None = None) -> str:
    """Words at a place; `kind` names classes of the style."""
    style = f' style="font-size: {size:.1f}px"' if size else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{style}>{says}</text>'


def sheet(title: str, blocks: Iterable[Block], style: str = "") -> str:
    """An SVG of blocks, one under the other. `style` adds to the common one.

    It scales, prints, and minds a dark page.
    """
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
