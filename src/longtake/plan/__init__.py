"""In which order a video is made: sections, what each sees, and where RoPE puts it."""

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
from longtake.plan.positions import Gaps
from longtake.plan.section import Look, Plan, Section
from longtake.plan.structures import draw_structures, draw_structures_svg

__all__ = [
    "BOTH_SIDES",
    "INVERTED",
    "ORDERS",
    "VANILLA",
    "Format",
    "Gaps",
    "Look",
    "Plan",
    "Section",
    "default_order",
    "draw_orders",
    "draw_orders_svg",
    "draw_plan",
    "draw_schedule",
    "draw_structures",
    "draw_structures_svg",
    "draw_svg",
    "find_order",
    "make_plan",
    "order_of",
    "plan_each",
    "sections_for",
    "sections_until",
]
