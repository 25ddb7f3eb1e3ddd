"""Who sees what, at which cost, in which order? Draws the plan of a long take in both orders."""

from pathlib import Path

from longtake.plan import INVERTED, VANILLA, Format, draw_plan, draw_svg, make_plan, sections_for
from longtake.schedule import parse

OUTPUT = Path("out/02_draw_a_plan.svg")
FORMAT = Format(height=480, width=832, fps=16)

for order, name in (("vanilla", VANILLA), ("inverted", INVERTED)):
    schedule = parse(name)
    sections = sections_for(seconds=30, fps=FORMAT.fps, generated=schedule.generated)
    plan = make_plan(schedule, frames=1 + schedule.generated * sections, order=order)
    print(draw_plan(plan, FORMAT), end="\n\n")

OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(draw_svg(schedule, FORMAT, plan))
print(f"wrote {OUTPUT}")
