"""In which order a video is made: sections, what each sees, and where RoPE puts it."""

from longtake.plan.orders import INVERTED, ORDERS, VANILLA, default_order, make_plan, sections_for
from longtake.plan.positions import Gaps
from longtake.plan.section import Look, Plan, Section

__all__ = [
    "INVERTED",
    "ORDERS",
    "VANILLA",
    "Gaps",
    "Look",
    "Plan",
    "Section",
    "default_order",
    "make_plan",
    "sections_for",
]
