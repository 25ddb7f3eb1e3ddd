"""Which frames of the history matter most: those nearest in time, those most like what comes next, or both.

The schedule stays what it is, and so does what it costs; what changes is which frames its finest kernels read (paper,
section 3.1 and Figure 1b). Without a word from the paper on how the next section is estimated, and how its several
frames are compared with one, both are choices here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from longtake.plan import Gaps, Look, Plan, Section
from longtake.schedule import Kernel, Side, Span

__all__ = ["COMPARISONS", "SCORES", "Compared", "Importance", "hybrid", "rank", "score", "similarity", "time"]


@dataclass(frozen=True, slots=True)
class Importance:
    """By what history is ranked, and the choices that the paper leaves open.

    The estimate of the next section is the `nearest` known frame, which costs nothing, or the clean prediction of the
    model's own `first_step` from the section's noise, which costs one pass of the network more. Its frames are compared
    with a frame of history one by one; what counts is the `first`, the `best` or the `mean`.
    """

    by: Literal["time", "similarity", "hybrid"] = "time"
    time_weight: float = 1.0  # lambda_time of Eq. 5
    estimate: Literal["nearest", "first_step"] = "nearest"
    compare: Literal["first", "best", "mean"] = "best"


@dataclass(frozen=True, slots=True)
class Compared:
    """Frames of the history and the next section, as far as they can be compared."""

    frames: Float[Tensor, "t c h w"]
    seconds: Float[Tensor, " t"]  # when each begins
    estimate: Float[Tensor, "s c h w"]  # of the section
    begins: float  # the section, in seconds


COMPARISONS: dict[str, Callable[[Float[Tensor, "t s"]], Float[Tensor, " t"]]] = {
    "first": lambda cosines: cosines[:, 0],
    "best": lambda cosines: cosines.amax(1),
    "mean": lambda cosines: cosines.mean(1),
}


def time(compared: Compared, importance: Importance) -> Float[Tensor, " t"]:
    """How near frames are in time (paper, Eq. 4): 1 at the section's own, 0 some seconds away, where ties are common.

    exp(-(time(F_i) - time(X))^2), time in seconds.

    >>> import torch
    >>> nothing = torch.zeros(2, 1, 1, 1)
    >>> time(Compared(nothing, torch.tensor([4.0, 3.0]), nothing, begins=4.0), Importance())
    tensor([1.0000, 0.3679])
    """
    return (-(compared.seconds - compared.begins).square()).exp()


def similarity(compared: Compared, importance: Importance) -> Float[Tensor, " t"]:
    """The mean over pixels of the cosine between their latent vectors (paper, Eq. 3, there the sum over pixels).

    The mean is between -1 and 1 whatever the size of the picture, so that Eq. 5 weighs the same at every size.
    """
    frames, estimate = (
        nn.functional.normalize(rearrange(x.float(), "t c h w -> t (h w) c"), dim=-1)
        for x in (compared.frames, compared.estimate)
    )
    cosines = rearrange(frames, "t p c -> t (p c)") @ rearrange(estimate, "s p c -> (p c) s") / frames.shape[1]
    return COMPARISONS[importance.compare](cosines)


def hybrid(compared: Compared, importance: Importance) -> Float[Tensor, " t"]:
    """Similarity plus `time_weight` times nearness in time (paper, Eq. 5)."""
    return similarity(compared, importance) + importance.time_weight * time(compared, importance)


SCORES: dict[str, Callable[[Compared, Importance], Float[Tensor, " t"]]] = {
    "time": time,
    "similarity": similarity,
    "hybrid": hybrid,
}


def score(compared: Compared, importance: Importance) -> Float[Tensor, " t"]:
    """The scores of frames of history: the higher, the finer they are to be read."""
    return SCORES[importance.by](compared, importance)


def rank(section: Section, plan: Plan, scores: Mapping[int, float]) -> Section:
    """The section with the frames that have the highest scores in its finest spans; equal ones nearest first.

    `scores` are those of all known frames. Each side of the schedule ranks the known frames of its own side, and its
    spans, from the made frames outward, take as many as they have room for; what is left is the tail. Within a span
    frames stand in time order, as kernels merge neighbors. Anchors stay, and no span grows.

    A frame keeps the position that the plan gives it: its number plus its side's shift. With clamped gaps the spans
    reach only so far, and positions beyond were never trained: there a frame from farther away stands where the
    outermost span ends, just as a tail does one place further out. Order in time is kept, distances are cut short.
    """
    left, right, ahead = plan.schedule.left, plan.schedule.right, plan.schedule.ahead
    anchors = _anchors(section, left.far)
    looks, first, last = section.sees[anchors:], section.frames[0], section.frames[-1]
    past = _ranked(left, left.near[::-1], [x for x in looks if x.frames[0] < first], first, -1, scores, plan.gaps)
    future = _ranked(right, ahead, [x for x in looks if x.frames[0] > last], last, 1, scores, plan.gaps)
    return replace(section, sees=(*section.sees[:anchors], *past[::-1], *future))


def _anchors(section: Section, spans: Sequence[Span]) -> int:
    """How many of a section's looks, the first ones, are its anchors."""
    count, first = 0, 0
    for span in spans:
        if count < len(section.sees):
            look = section.sees[count]
            own = look.kernel == span.kernel and look.positions == look.frames
            count += own and first <= look.frames[0] < first + span.frames
        first += span.frames
    return count


def _ranked(
    side: Side,
    spans: Sequence[Span],
    looks: Sequence[Look],
    edge: int,
    direction: Literal[-1, 1],
    scores: Mapping[int, float],
    gaps: Gaps,
) -> list[Look]:
    """The looks of one side of the made frame `edge`, outward, the tail last; `looks` are those by nearness in time."""
    near = [look for look in looks if not look.tail]
    if not near:
        return []
    planned = {f: p for look in near for f, p in zip(look.frames, look.positions, strict=True)}
    known = [f for f in scores if (f - edge) * direction > 0]
    absent = sorted((f for f in planned if f not in scores), key=lambda f: abs(f - edge))  # read as zeros
    ranked = [*sorted(known, key=lambda f: (-scores[f], abs(f - edge))), *absent]
    nearest = min(planned, key=lambda f: abs(f - edge))
    shift = planned[nearest] - nearest
    outermost = planned[nearest] + direction * (sum(span.frames for span in spans) - 1)

    def look(frames: Sequence[int], kernel: Kernel, farthest: int, tail: Literal["", "ta", "tc"] = "") -> Look:
        ordered = tuple(sorted(frames))
        own = [f + shift for f in ordered]
        cut = own if gaps == "true" else [direction * min(direction * p, direction * farthest) for p in own]
        return Look(ordered, kernel, tuple(cut), tail)

    found, taken = list[Look](), 0
    for span in spans:
        if chosen := ranked[taken : taken + span.frames]:
            found.append(look(chosen, span.kernel, outermost))
        taken += span.frames
    if side.tail in ("ta", "tc") and ranked[taken:]:
        found.append(look(ranked[taken:], side.coarsest, outermost + direction, side.tail))
    return found
