"""In which ways can a past be packed? Draws the five structures of the paper's Figure 1."""

from pathlib import Path

from longtake.plan import Format, draw_structures, draw_structures_svg

OUTPUT = Path("out/06_five_structures.svg")
FORMAT = Format(height=480, width=832)

print(draw_structures(FORMAT), end="\n\n")
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(draw_structures_svg(FORMAT))
print(f"wrote {OUTPUT}")
