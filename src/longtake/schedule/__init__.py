"""What a section sees: schedules as data, their names, and what they cost."""

from longtake.schedule.budget import closed_form, duplications, limit, rate_of, schedule_of
from longtake.schedule.notation import parse
from longtake.schedule.timeline import Kernel, Schedule, Side, Span, Tail

__all__ = [
    "Kernel",
    "Schedule",
    "Side",
    "Span",
    "Tail",
    "closed_form",
    "duplications",
    "limit",
    "parse",
    "rate_of",
    "schedule_of",
]
