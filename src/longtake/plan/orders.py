"""Orders: functions from a schedule and a length to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from longtake.errors import PlanError
from longtake.plan.positions import Gaps, clamped_gap
from longtake.plan.section import Look, Plan, Section
from longtake.schedule import Schedule, Side, Span

__all__ = ["INVERTED", "ORDERS", "VANILLA", "Missing", "Order", "default_order", "make_plan", "sections_for"]

Missing = Literal["absent", "zeros"]

VANILLA = "td_f1k1_x_f16k4f2k2f1k1_g9"  # FramePack-F1's structure
INVERTED = "f1k1_x_g9_f1k1f2k2f16k4_td"  # FramePack's


@dataclass(frozen=True, slots=True)
class _Frames:
    """Numbers that a side's spans may read, nearest to the made frames first, and those that are known among them."""

    nearest_first: range
    known: range


def _looks(
    spans: tuple[Span, ...], offered: _Frames, positions: Callable[[int, int], int], missing: Missing
) -> list[Look]:
    """The spans' frames, spans and frames given nearest first; what is not known is left out or read as zeros."""
    looks, taken = [], 0
    for span in spans:
        frames = [
            (f, positions(f, taken + i))
            for i, f in enumerate(offered.nearest_first[taken : taken + span.frames])
            if missing == "zeros" or f in offered.known
        ]
        taken += span.frames
        if frames:
            frames.sort()
            looks.append(Look(tuple(f for f, _ in frames), span.kernel, tuple(p for _, p in frames)))
    return looks


def _tail(side: Side, left_over: range, position: Callable[[int], int]) -> list[Look]:
    if side.tail not in ("ta", "tc") or not left_over:
        return []
    frames = tuple(sorted(left_over))
    coarsest = max((s.kernel for s in side.near), key=lambda k: k.t * k.h * k.w)
    return [Look(frames, coarsest, tuple(position(f) for f in frames), side.tail)]


def _anchor(schedule: Schedule) -> list[Look]:
    frames, looks = 0, []
    for span in schedule.left.far:
        numbers = tuple(range(frames, frames + span.frames))
        looks.append(Look(numbers, span.kernel, numbers))
        frames += span.frames
    return looks


def vanilla(schedule: Schedule, sections: int, gaps: Gaps, missing: Missing) -> Iterator[Section]:
    """In time order, each section seeing the past (paper, Figure 2a; the order of FramePack-F1)."""
    g, near, anchors = schedule.generated, schedule.left.near_frames, schedule.left.far_frames
    for s in range(sections):
        first = 1 + g * s
        past = range(first - 1, first - 1 - max(near, first), -1)
        moved = (
            0 if gaps == "true" else anchors + near - first
        )  # clamped: the made frames always begin at anchors + near

        def position(f: int, moved: int = moved) -> int:
            return f + moved

        looks = _looks(schedule.left.near[::-1], _Frames(past, range(first)), lambda f, _, at=position: at(f), missing)
        old = range(first - near)
        tail = _tail(schedule.left, old, position if gaps == "true" else lambda _: anchors - 1)
        made = tuple(range(first, first + g))
        yield Section(s, made, tuple(map(position, made)), (*_anchor(schedule), *tail, *looks[::-1]))


def inverted(schedule: Schedule, sections: int, gaps: Gaps, missing: Missing) -> Iterator[Section]:
    """From the end to the start image, each section seeing the start and the future (paper, Figure 2c)."""
    g, near, anchors = schedule.generated, schedule.right.near_frames, max(1, schedule.left.far_frames)
    end = 1 + g * sections
    for s in range(sections):
        before = sections - 1 - s
        first = 1 + g * before
        beyond = first + g
        gap = before if gaps == "true" else clamped_gap(before, sections)
        moved = anchors + g * gap - first if gaps == "clamped" else 0

        def position(f: int, moved: int = moved) -> int:
            return f + moved

        future = range(beyond, beyond + max(near, end - beyond))
        looks = _looks(
            schedule.right.near, _Frames(future, range(beyond, end)), lambda f, _, at=position: at(f), missing
        )
        tail = _tail(
            schedule.right,
            range(beyond + near, end),
            position if gaps == "true" else lambda _, last=beyond + near, at=position: at(last),
        )
        made = tuple(range(first, beyond))
        yield Section(s, made, tuple(map(position, made)), (*_anchor(schedule), *looks, *tail))


@dataclass(frozen=True, slots=True)
class Order:
    """An order and what it asks of a schedule."""

    sections: Callable[[Schedule, int, Gaps, Missing], Iterator[Section]]
    serves: Callable[[Schedule], bool]
    needs: str


ORDERS: dict[str, Order] = {
    "vanilla": Order(
        vanilla,
        lambda s: bool(s.left.near) and not s.right.near and not s.right.far,
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

    With `missing="zeros"` spans are always full: they also name frames that are not there (negative, or `frames` and above),
    which a history of zeros fills, as the released models were trained.

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
            f"{frames} latent frames cannot be made: a video has 1 + {g} n of them, for example {1 + g * below} or {1 + g * above}"
        )
    return Plan(schedule, order, frames, tuple(ORDERS[order].sections(schedule, sections, gaps, missing)))


def sections_for(seconds: float, fps: float, generated: int, temporal_ratio: int = 4) -> int:
    """How many sections come nearest to a length; at least one (the official program's rule).

    >>> [sections_for(s, 30, 9) for s in (1, 5, 30, 60)]
    [1, 4, 25, 50]
    """
    return max(1, round(seconds * fps / (temporal_ratio * generated)))
