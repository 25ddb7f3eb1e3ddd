"""In which order is one take made, and what does each section see? Draws every order, and moves."""

from pathlib import Path

from longtake.plan import Format, draw_orders, draw_orders_svg, plan_each, sections_for

OUTPUT = Path("out/07_every_order.svg")
FORMAT = Format(height=480, width=832, fps=30)

plans = plan_each(frames=1 + 9 * sections_for(seconds=24, fps=FORMAT.fps, generated=9))
print(draw_orders(plans, FORMAT), end="\n\n")
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(draw_orders_svg(plans, FORMAT))
print(f"wrote {OUTPUT}")
