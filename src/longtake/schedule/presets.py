"""Schedules that have a name of their own: the kernel structures of the paper's Figure 1."""

from __future__ import annotations

from dataclasses import dataclass

from longtake.errors import ScheduleError
from longtake.schedule.notation import parse
from longtake.schedule.timeline import Schedule

__all__ = ["PRESETS", "Preset", "find_schedule"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A schedule, and why one would want it, in a sentence."""

    schedule: str
    why: str


# The paper names and describes its structures; the kernel sizes that its figure draws are not in its text. These are
# examples that do what is described, all of powers of two.
PRESETS: dict[str, Preset] = {
    "geometric": Preset(
        "td_f1k1h8w8f1k1h4w8f1k1h4w4f1k1h2w4f1k1_g9",
        "Each older frame has half the tokens of the next: a past of any length costs less than two frames.",
    ),
    "level-duplication": Preset(
        "td_f3k1h8w8f3k1h4w4f1k1_g9",
        "Frames share levels, so that kernels are square: seven frames at the price of geometric's five.",
    ),
    "temporal-kernels": Preset(
        "td_f16k4f2k2f1k1_g9",
        "Frames that follow each other are merged in time, too: 19 frames at the price of one and a half.",
    ),
    "important-start": Preset(
        "td_f1k1_x_f16k4f2k2f1k1_g9",
        "The start image keeps its full length however long ago it was: image to video.",
    ),
    "symmetric": Preset(
        "td_f1k1f2k2f8k4_x_f8k4f2k2f1k1_g9",
        "The beginning matters as much as what is newest: fine at both ends, coarse toward the middle.",
    ),
}


def find_schedule(name: str) -> Schedule:
    """The schedule of a preset's name, or of any other that `parse` reads.

    >>> str(find_schedule("important-start")), str(find_schedule("f1k1_g9"))
    ('td_f1k1_x_f16k4f2k2f1k1_g9', 'f1k1_g9')

    Raises:
        ScheduleError: there is no such preset, or the name cannot be read.
    """
    if name in PRESETS:
        return parse(PRESETS[name].schedule)
    if not any(c.isdigit() for c in name):  # every name that can be read says how many frames are made
        raise ScheduleError(
            f"schedule {name!r} is unknown; there are: {', '.join(PRESETS)}; "
            f"any other is written as {PRESETS['temporal-kernels'].schedule} is"
        )
    return parse(name)
