"""Orders: functions from a schedule and a length to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from longtake.errors import PlanError
from longtake.plan.positions import Gaps, future_shift, past_shift, tail_positions
from longtake.plan.section import Look, Plan, Section
from longtake.schedule import Schedule, Side, Span

__all__ = ["INVERTED", "ORDERS", "VANILLA", "Missing", "Order", "default_order", "make_plan", "sections_for"]

Missing = Literal["absent", "zeros"]

VANILLA = "td_f1k1_x_f16k4f2k2f1k1_g9"  # FramePack-F1's structure
INVERTED = "f1k1_x_g9_f1k1f2k2f16k4_td"  # FramePack's


def _anchors(spans: tuple[Span, ...], known: range) -> list[Look]:
    """The first frames of the video, at their own numbers; those that are not known yet are left out."""
    looks, first = [], 0
    for span in spans:
        frames = tuple(f for f in range(first, first + span.frames) if f in known)
        first += span.frames
        if frames:
            looks.append(Look(frames, span.kernel, frames))
    return looks


def _looks(spans: Iterable[Span], nearest_first: range, known: range, shift: int, missing: Missing) -> list[Look]:
    """Spans next to the made frames, nearest first, read these frames; unknown ones are left out or read as zeros."""
    looks, taken = [], 0
    for span in spans:
        offered = nearest_first[taken : taken + span.frames]
        frames = tuple(sorted(f for f in offered if missing == "zeros" or f in known))
        taken += span.frames
        if frames:
            looks.append(Look(frames, span.kernel, tuple(f + shift for f in frames)))
    return looks


def _tail(side: Side, frames: range, nearest: int, shift: int, gaps: Gaps) -> list[Look]:
    """What lies beyond the spans of a side, if its tail is kept and there is any."""
    if side.tail not in ("ta", "tc") or not frames:
        return []
    coarsest = max((span.kernel for span in side.near), key=lambda k: k.t * k.h * k.w)
    return [Look(tuple(frames), coarsest, tail_positions(frames, nearest, shift, gaps), side.tail)]


def vanilla(schedule: Schedule, sections: int, gaps: Gaps, missing: Missing) -> Iterator[Section]:
    """In time order, each section seeing the past (paper, Figure 2a; the order of FramePack-F1).

    The start frame is in the past like any other: where the schedule also anchors it, a section near it sees it twice.
    """
    g, side = schedule.generated, schedule.left
    near = side.near_frames
    for index in range(sections):
        first = 1 + g * index
        known, oldest = range(first), first - near
        shift = past_shift(first, side.far_frames + near, gaps)
        past = range(first - 1, oldest - 1, -1)
        looks = _looks(side.near[::-1], past, known, shift, missing)
        tail = _tail(side, known[: max(0, oldest)], oldest - 1, shift, gaps)
        frames = tuple(range(first, first + g))
        positions = tuple(f + shift for f in frames)
        yield Section(index, frames, positions, (*_anchors(side.far, known), *tail, *looks[::-1]))


def inverted(schedule: Schedule, sections: int, gaps: Gaps, missing: Missing) -> Iterator[Section]:
    """From the end to the start frame, each section seeing the start and the future (paper, Figure 2c)."""
    g, side = schedule.generated, schedule.right
    near, end = side.near_frames, 1 + g * sections
    for index in range(sections):
        first = 1 + g * (sections - 1 - index)
        known, beyond = range(first + g, end), first + g + near
        shift = future_shift(first, g, sections, 1, gaps)
        looks = _looks(side.near, range(first + g, beyond), known, shift, missing)
        tail = _tail(side, range(beyond, end), beyond, shift, gaps)
        frames = tuple(range(first, first + g))
        positions = tuple(f + shift for f in frames)
        yield Section(index, frames, positions, (*_anchors(schedule.left.far, range(1)), *looks, *tail))


@dataclass(frozen=True, slots=True)
class Order:
    """An order and what it asks of a schedule."""

    sections: Callable[[Schedule, int, Gaps, Missing], Iterator[Section]]
    serves: Callable[[Schedule], bool]
    needs: str


ORDERS: dict[str, Order] = {
    "vanilla": Order(
        vanilla,
        lambda s: not s.right.near and not s.right.far,
        "history on the left of g only, such as td_f16k4f2k2f1k1_g9",
    ),
    "inverted": Order(
        inverted,
        lambda s: bool(s.right.near) and not s.left.near and not s.right.far and s.left.far_frames <= 1,
        "history on the right of g and at most the start frame on the left, such as f1k1_x_g9_f1k1f2k2f16k4_td",
    ),
}


def default_order(schedule: Schedule) -> str:
    """The first order that can serve the schedule.

    Raises:
        PlanError: none can.
    """
    for name, order in ORDERS.items():
        if order.serves(schedule):
            return name
    needs = "; ".join(f"{name} needs {order.needs}" for name, order in ORDERS.items())
    raise PlanError(f"no order can serve the schedule {schedule}: {needs}")


def make_plan(
    schedule: Schedule, frames: int, order: str = "vanilla", gaps: Gaps = "clamped", missing: Missing = "absent"
) -> Plan:
    """The plan of a video of `frames` latent frames, frame 0 being the start image.

    With `missing="zeros"` the spans next to the made frames are always full: they also name frames that are not there
    (negative, or `frames` and above), which a history of zeros fills, as the released models were trained.

    >>> from longtake.schedule import parse
    >>> plan = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g9"), frames=19)
    >>> [(look.frames, str(look.kernel), look.positions) for look in plan.sections[1].sees][-1]
    ((9,), 'k1', (19,))

    Raises:
        PlanError: the order is unknown or cannot serve the schedule, or the length is not 1 + g * n.
    """
    if order not in ORDERS:
        raise PlanError(f"order {order!r} is unknown; there are: {', '.join(ORDERS)}")
    if not ORDERS[order].serves(schedule):
        others = [name for name, o in ORDERS.items() if o.serves(schedule)]
        hint = f"; this schedule can be made in the order {others[0]}" if others else ""
        raise PlanError(f"the order {order} cannot serve the schedule {schedule}: it needs {ORDERS[order].needs}{hint}")
    g = schedule.generated
    sections, rest = divmod(frames - 1, g)
    if rest or sections < 1:
        below, above = max(1, sections), max(1, sections) + 1
        raise PlanError(
            f"{frames} latent frames cannot be made: a video has 1 + {g} n of them, "
            f"for example {1 + g * below} or {1 + g * above}"
        )
    return Plan(schedule, order, frames, tuple(ORDERS[order].sections(schedule, sections, gaps, missing)))


def sections_for(seconds: float, fps: float, generated: int, temporal_ratio: int = 4) -> int:
    """How many sections come nearest to a length; at least one (the official program's rule).

    >>> [sections_for(s, 30, 9) for s in (1, 5, 30, 60)]
    [1, 4, 25, 50]
    """
    return max(1, round(seconds * fps / (temporal_ratio * generated)))
