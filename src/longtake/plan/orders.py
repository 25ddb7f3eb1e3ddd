"""Orders: in which order the sections of a video are made.

A section's place is its number in time. An order is a function from the number of places to the places in the order of
making; what each section sees follows from the schedule and from what is known when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from longtake.errors import PlanError
from longtake.plan.anchor import Manner, images_of
from longtake.plan.positions import Gaps
from longtake.plan.section import Plan, Section
from longtake.plan.sight import Known, Missing, see
from longtake.schedule import Schedule, parse

__all__ = [
    "BOTH_SIDES",
    "INVERTED",
    "ORDERS",
    "VANILLA",
    "Order",
    "default_order",
    "find_order",
    "make_plan",
    "order_of",
    "plan_each",
    "sections_for",
]

VANILLA = "td_f1k1_x_f16k4f2k2f1k1_g9"  # FramePack-F1's structure
INVERTED = "f1k1_x_g9_f1k1f2k2f16k4_td"  # FramePack's
BOTH_SIDES = "td_f1k1_x_f16k4f2k2f1k1_g9_x_f1k1f2k2f4k4"  # F1's, and the endpoint beyond a gap


def vanilla(places: int, spacing: tuple[int, ...]) -> Iterable[int]:
    """In time order (paper, Figure 2a; FramePack-F1)."""
    return range(places)


def inverted(places: int, spacing: tuple[int, ...]) -> Iterable[int]:
    """From the end to the start image (paper, Figure 2c; FramePack)."""
    return reversed(range(places))


def anti_drifting(places: int, spacing: tuple[int, ...]) -> Iterable[int]:
    """The beginning, then the ending, then what lies between in time order (paper, Figure 2b).

    >>> list(anti_drifting(5, ()))
    [0, 4, 1, 2, 3]
    """
    return dict.fromkeys((0, places - 1, *range(places)))


def planned(places: int, spacing: tuple[int, ...]) -> Iterable[int]:
    """Every so many sections an endpoint, coarse to fine, then what lies between in time order (paper, Figure 2d; P1).

    Each level of endpoints is made in time order and always holds the end of the video.

    >>> list(planned(9, (6, 3)))
    [5, 8, 2, 0, 1, 3, 4, 6, 7]
    """
    endpoints = (place for step in spacing for place in (*range(step - 1, places, step), places - 1))
    return dict.fromkeys((*endpoints, *range(places)))


@dataclass(frozen=True, slots=True)
class Order:
    """An order and what it asks of a schedule."""

    places: Callable[[int, tuple[int, ...]], Iterable[int]]
    serves: Callable[[Schedule], bool]
    needs: str
    example: str  # a schedule that it serves
    says: str  # what it is good for, and what it costs
    spacing: tuple[int, ...] = ()  # of endpoints, in sections, coarse to fine; empty: the order has no such choice


def _right(schedule: Schedule) -> bool:
    """True if a schedule has spans on the right, either next to g or beyond an x."""
    return bool(schedule.right.near) != bool(schedule.right.far)


_BOTH = "history on the left of g and an endpoint on the right"

ORDERS: dict[str, Order] = {  # an order asks more of a schedule than those above it
    "vanilla": Order(
        vanilla,
        lambda s: not s.right.near,
        "history next to g on the left only",
        VANILLA,
        "In time order. It streams, and its length is open; but nothing holds it, and errors add up.",
    ),
    "inverted": Order(
        inverted,
        lambda s: _right(s) and s.left.far_frames <= 1,
        "history on the right of g and at most one anchor on the left",
        INVERTED,
        "From the end to the start. A real picture holds each section; all is made before any is watched.",
    ),
    "planned": Order(
        planned,
        lambda s: _right(s) and bool(s.left.near),
        _BOTH,
        BOTH_SIDES,
        "Endpoints first, then what lies between. Errors add up from endpoint to endpoint: a short chain.",
        spacing=(10,),
    ),
    "anti_drifting": Order(
        anti_drifting,
        lambda s: _right(s) and bool(s.left.near),
        _BOTH,
        BOTH_SIDES,
        "The beginning, the ending, then what lies between, held by the ending as far as that is near.",
    ),
}


def order_of(name: str) -> str:
    """The order that a name begins with.

    >>> order_of("planned:20,10")
    'planned'
    """
    return name.partition(":")[0]


def find_order(name: str) -> Order:
    """The order of that name; a colon and numbers say how far apart its endpoints are, coarse to fine.

    >>> find_order("planned:20,10").spacing
    (20, 10)

    Raises:
        PlanError: there is no such order, or it has no endpoints to space, or not so.
    """
    kind, colon, numbers = name.partition(":")
    if kind not in ORDERS:
        raise PlanError(f"order {kind!r} is unknown; there are: {', '.join(ORDERS)}")
    order = ORDERS[kind]
    if not colon:
        return order
    if not order.spacing:
        spaced = ", ".join(name for name, row in ORDERS.items() if row.spacing)
        raise PlanError(f"order {name!r}: {kind} has no endpoints to space; those that have: {spaced}")
    steps = tuple(int(n) if n.isascii() and n.isdigit() else 0 for n in numbers.split(","))
    if min(steps) < 2 or any(a <= b for a, b in pairwise(steps)):
        raise PlanError(f"order {name!r}: expected sections from endpoint to endpoint, falling, such as {kind}:20,10")
    return replace(order, spacing=steps)


def default_order(schedule: Schedule) -> str:
    """The order that a schedule is made for: of those that can serve it, the one that asks most.

    >>> from longtake.schedule import parse
    >>> default_order(parse("td_f16k4f2k2f1k1_g9")), default_order(parse("td_f16k4f2k2f1k1_g9_x_f1k1"))
    ('vanilla', 'anti_drifting')

    Raises:
        PlanError: none can.
    """
    for name, order in reversed(ORDERS.items()):
        if order.serves(schedule):
            return name
    needs = "; ".join(f"{name} needs {row.needs}, such as {row.example}" for name, row in ORDERS.items())
    raise PlanError(f"no order can serve the schedule {schedule}: {needs}")


def make_plan(
    schedule: Schedule,
    frames: int,
    order: str = "vanilla",
    gaps: Gaps = "clamped",
    missing: Missing = "absent",
    given: Collection[int] = (),
    first: int = 1,
    beyond: int = 0,
) -> Plan:
    """The plan of a video of `frames` latent frames, frame 0 being the start image.

    The frames before the `first` that is made are known: the start image's, or those of a video that goes on. With
    `first=0` none is. So many frames as `beyond` says are known that follow the last one made: those of a video of
    which the beginning is made.

    All sections make as many frames as the schedule says, but for the last in time, which makes what is left. Frames
    `given`, such as those of key images, are known from the beginning, until a section makes them or for good.

    With `missing="zeros"` the spans next to the made frames are always full: they also name frames that are not there
    (negative, or `frames` and above), which a history of zeros fills, as the released models were trained.

    >>> from longtake.schedule import parse
    >>> plan = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g9"), frames=19)
    >>> [(look.frames, str(look.kernel), look.positions) for look in plan.sections[1].sees][-1]
    ((9,), 'k1', (19,))
    >>> [section.frames[0] for section in make_plan(parse("f16k4f2k2f1k1_g9"), frames=48, first=30).sections]
    [30, 39]
    >>> [look.frames for look in make_plan(parse("g9_f1k1f2k2"), 18, "inverted", first=0, beyond=5).sections[0].sees]
    [(18,), (19, 20)]

    Raises:
        PlanError: the order is unknown or cannot serve the schedule, there is no frame to make, or a given one is
            beside the video.
    """
    row = find_order(order)
    if not row.serves(schedule):
        others = [name for name, o in ORDERS.items() if o.serves(schedule)]
        hint = f"; this schedule can be made in the order {' or '.join(others)}" if others else ""
        needs = f"it needs {row.needs}, such as {row.example}"
        raise PlanError(f"the order {order} cannot serve the schedule {schedule}: {needs}{hint}")
    assert first >= 0
    assert beyond >= 0
    if frames < first + 1:
        least = "the start image's and at least one more" if first == 1 else f"at least one behind the {first} known"
        raise PlanError(f"{frames} latent frames cannot be made: a video has {least}")
    stray = [f for f in given if not first <= f <= frames]
    if stray:
        expected = f"expected {first} to {frames}, which follows the last one made"
        raise PlanError(f"frame {stray[0]} cannot be given: {expected}")
    if (given or beyond) and not schedule.ahead:
        raise PlanError(f"the schedule {schedule} sees nothing that lies ahead; one that does: {BOTH_SIDES}")
    g, every = schedule.generated, range(first, frames)
    plan = Plan(schedule, order, frames, (), tuple(sorted(given)), gaps, first, beyond)
    known, sections = Known(plan.known), list[Section]()
    for place in row.places(-(-len(every) // g), row.spacing):
        made = every[g * place : g * (place + 1)]
        sections.append(see(len(sections), made, every, schedule, known, gaps, missing))
        known.add(made)
    return replace(plan, sections=tuple(sections))


def plan_each(frames: int, gaps: Gaps = "clamped", missing: Missing = "absent") -> tuple[Plan, ...]:
    """The same video in each order, with the schedule that is the order's example.

    >>> [plan.sections[0].frames[0] for plan in plan_each(frames=109)]
    [1, 100, 82, 1]
    """
    return tuple(make_plan(parse(row.example), frames, name, gaps, missing) for name, row in ORDERS.items())


def sections_for(seconds: float, fps: float, generated: int, temporal_ratio: int = 4, manner: Manner = "stream") -> int:
    """How many sections come nearest to a length; at least one (the official program's rule).

    >>> [sections_for(s, 30, 9) for s in (1, 5, 30, 60)]
    [1, 4, 25, 50]
    """
    return max(1, round(seconds * fps / images_of(generated, temporal_ratio, manner)))
