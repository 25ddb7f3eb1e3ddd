"""In which order a video is made: sections, what each sees, and where RoPE puts it."""

from longtake.plan.anchor import ANCHOR, Manner, anchored, images_of
from longtake.plan.comparison import draw_orders, sections_until
from longtake.plan.draw import Format, draw_plan, draw_schedule
from longtake.plan.orders import (
    BOTH_SIDES,
    INVERTED,
    ORDERS,
    VANILLA,
    default_order,
    find_order,
    make_plan,
    order_of,
    plan_each,
    sections_for,
)
from longtake.plan.panels import draw_orders_svg
from longtake.plan.picture import draw_svg
from longtake.plan.positions import Gaps, place_of
from longtake.plan.script import KeyImage, Script, Snap, Told, check_reached, compile_storyboard, sections_that_see
from longtake.plan.section import Look, Plan, Section
from longtake.plan.storyboard import SEEDS, STRONGEST, Cue, Storyboard, as_storyboard, read_prompt, read_storyboard
from longtake.plan.structures import draw_structures, draw_structures_svg

__all__ = [
    "ANCHOR",
    "BOTH_SIDES",
    "INVERTED",
    "ORDERS",
    "SEEDS",
    "STRONGEST",
    "VANILLA",
    "Cue",
    "Format",
    "Gaps",
    "KeyImage",
    "Look",
    "Manner",
    "Plan",
    "Script",
    "Section",
    "Snap",
    "Storyboard",
    "Told",
    "anchored",
    "as_storyboard",
    "check_reached",
    "compile_storyboard",
    "default_order",
    "draw_orders",
    "draw_orders_svg",
    "draw_plan",
    "draw_schedule",
    "draw_structures",
    "draw_structures_svg",
    "draw_svg",
    "find_order",
    "images_of",
    "make_plan",
    "order_of",
    "place_of",
    "plan_each",
    "read_prompt",
    "read_storyboard",
    "sections_for",
    "sections_that_see",
    "sections_until",
]
