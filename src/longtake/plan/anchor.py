"""How the sections of a video are joined: in one stream, or each by itself behind an anchor.

stream      frame 0 is the start image, and the first image of the video; every frame made stands for four. One
codec stream passes all sections, as FramePack and Wan have it.
anchored    every section sees an anchor, which is no frame of the sequence: the start image, encoded alone. The
codec starts anew with each section, whose first frame stands for one image, as Helios has it. The
start image is known, and no image of the video.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from longtake.plan.section import Look, Plan

__all__ = ["ANCHOR", "Manner", "anchored", "images_of"]

Manner = Literal["stream", "anchored"]
ANCHOR = -1_000_000  # before all frames that a span names where nothing is known


def anchored(plan: Plan) -> Plan:
    """The plan with the anchor in the place of the video's first frame, which it shows to every section.

    Plans of schedules that do not begin with one frame beyond a gap have no anchor, and stay as they are.

    >>> from longtake.plan import VANILLA, make_plan
    >>> from longtake.schedule import parse
    >>> plan = anchored(make_plan(parse(VANILLA), 18, missing="zeros", first=0))
    >>> [(look.frames[0], look.positions[0]) for look in plan.sections[0].sees]
    [(-1000000, 0), (-19, 1), (-3, 17), (-1, 19)]
    """
    if [span.frames for span in plan.schedule.left.far] != [1]:
        return plan
    anchor = Look((ANCHOR,), plan.schedule.left.far[0].kernel, (0,))

    def others(sees: tuple[Look, ...]) -> tuple[Look, ...]:
        return sees[1:] if sees and sees[0].frames == (0,) and sees[0].positions == (0,) else sees

    return replace(plan, sections=tuple(replace(s, sees=(anchor, *others(s.sees))) for s in plan.sections))


def images_of(frames: int, temporal_ratio: int = 4, manner: Manner = "stream") -> int:
    """Images of so many frames that are made together.

    >>> images_of(9), images_of(9, manner="anchored")
    (36, 33)
    """
    return temporal_ratio * frames - {"stream": 0, "anchored": temporal_ratio - 1}[manner]
