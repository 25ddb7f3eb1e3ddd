"""Orders beside each other: which section of one video is made when, what it sees, when the video can be watched."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import wrap

from longtake.plan.draw import Format, Stage, axis, legend, marks_of, strip
from longtake.plan.orders import ORDERS, find_order, order_of
from longtake.plan.section import Plan, Section

__all__ = ["chosen", "draw_orders", "length", "sections_until", "title"]

INDENT = 12  # columns before a strip


def draw_orders(plans: Sequence[Plan], format: Format, columns: int = 100) -> str:
    """Plans of one video as text: the sections with their places in the order of making, and what two of them see.

    >>> from longtake.plan import BOTH_SIDES, make_plan
    >>> from longtake.schedule import parse
    >>> print(draw_orders([make_plan(parse(BOTH_SIDES), 55, "planned:3")], Format()))
    6 sections, 55 frames, 217 images, 7.23 s at 30 images/s, numbered as they are made
    # made   1 2 4 seen through k1, k2, k4   - known, not seen   a column is 1 frame
    <BLANKLINE>
    planned, endpoints every 3 sections                        td_f1k1_x_f16k4f2k2f1k1_g9_x_f1k1f2k2f4k4
    Endpoints first, then what lies between. Errors add up from endpoint to endpoint: a short chain.
                0         10        20        30        40        50
       made as       3        4        1        5        6        2
        2 sees  1                  444444221                  #########
        5 sees  1--------4444444444444444221#########         1224444--
    the first second can be watched after 3 of 6 sections
    """
    frames = plans[0].frames
    per_column = -(-frames // max(20, columns - INDENT))
    marks = {kernel: mark for plan in plans for kernel, mark in marks_of(plan.schedule).items()}
    says = f"{length(plans[0], format)}, numbered as they are made"
    drawn = ["\n".join([*wrap(says, columns), *legend(marks, per_column, columns)])]
    for plan in plans:
        name, schedule = title(plan), str(plan.schedule)
        lines = [
            name + schedule.rjust(max(len(schedule) + 2, columns - len(name))),
            *wrap(ORDERS[order_of(plan.order)].says, columns),
            " " * INDENT + axis(frames, per_column),
            "made as".rjust(INDENT - 2) + "  " + _places(plan, per_column),
        ]
        for index in sorted({section.index for section in chosen(plan)}):
            says, stage = f"{index + 1} sees".rjust(INDENT - 2), Stage.of(plan, index)
            lines.append(f"{says}  {strip(stage, frames, per_column, marks_of(plan.schedule))}")
        drawn.append("\n".join([*lines, _watch(plan, format)]))
    return "\n\n".join(drawn)


def sections_until(plan: Plan, format: Format, seconds: float = 1.0) -> int:
    """How many sections have to be made before so much of the video can be watched from its start.

    >>> from longtake.plan import plan_each
    >>> [sections_until(plan, Format()) for plan in plan_each(frames=109)]
    [1, 12, 3, 1]
    """
    needed = 1 + ceil((seconds * format.fps - 1) / format.temporal_ratio)
    missing = {f for f in range(1, needed) if f not in plan.given}
    return max((s.index + 1 for s in plan.sections if not missing.isdisjoint(s.frames)), default=0)


def length(plan: Plan, format: Format) -> str:
    """How long a video is."""
    n = len(plan.sections)
    return (
        f"{n} section{'s' * (n > 1)}, {plan.frames} frames, {format.images(plan.frames)} images, "
        f"{format.seconds(plan.frames):.2f} s at {format.fps:g} images/s"
    )


def title(plan: Plan) -> str:
    """An order, and how far apart its endpoints are."""
    spacing = find_order(plan.order).spacing
    apart = f", endpoints every {' and '.join(map(str, spacing))} sections" if spacing else ""
    return order_of(plan.order) + apart


def _watch(plan: Plan, format: Format) -> str:
    n = len(plan.sections)
    return f"the first second can be watched after {sections_until(plan, format)} of {n} section{'s' * (n > 1)}"


def chosen(plan: Plan) -> list[Section]:
    """The section made second and the one in the middle of the video: what these see is shown."""
    in_time = sorted(plan.sections, key=lambda section: section.frames)
    return [plan.sections[min(1, len(in_time) - 1)], in_time[len(in_time) // 2]]


def _places(plan: Plan, per_column: int) -> str:
    """The sections' places in the order of making, where they are; where there is no room, in tenths of all, from 0."""
    n, columns = len(plan.sections), -(-plan.frames // per_column)
    roomy = plan.schedule.generated // per_column > len(str(n))
    line = [" "] * columns
    for section in plan.sections:
        says = str(section.index + 1) if roomy else str(10 * section.index // n)
        at = (section.frames[0] + section.frames[-1]) // 2 // per_column - len(says) // 2
        line[at : at + len(says)] = says
    return "".join(line).rstrip()
