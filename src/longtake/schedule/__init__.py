"""What a section sees: schedules as data, their names, and what they cost."""

from longtake.schedule.budget import closed_form, duplications, limit, rate_of, schedule_of
from longtake.schedule.notation import parse
from longtake.schedule.presets import PRESETS, Preset, find_schedule
from longtake.schedule.timeline import Kernel, Schedule, Side, Span, Tail

__all__ = [
    "PRESETS",
    "Kernel",
    "Preset",
    "Schedule",
    "Side",
    "Span",
    "Tail",
    "closed_form",
    "duplications",
    "find_schedule",
    "limit",
    "parse",
    "rate_of",
    "schedule_of",
]
