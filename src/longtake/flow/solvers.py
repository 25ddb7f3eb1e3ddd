"""From noise to a sample along the flow: functions that yield after every evaluation of the network.

A solver asks for the velocity `noise - clean` exactly once a step, and its last yield is the result. Closing the
generator stops it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SOLVERS", "Solver", "Velocity", "dmd", "euler", "unipc", "unipc_flow", "unipc_official"]

Velocity = Callable[[Tensor, float], Tensor]
Solver = Callable[[Velocity, Tensor, Tensor], Iterator[Tensor]]


def euler(velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"]) -> Iterator[Tensor]:
    """Straight steps along the velocity, down to the last sigma.

    >>> clean = torch.full((1, 2), 3.0)
    >>> *_, result = euler(lambda x, sigma: (x - clean) / sigma, torch.zeros(1, 2), torch.tensor([1.0, 0.5, 0.0]))
    >>> result
    tensor([[3., 3.]])
    """
    levels = sigmas.tolist()
    for sigma, after in itertools.pairwise(levels):
        x = x + (after - sigma) * velocity(x, sigma)
        yield x


@dataclass(frozen=True, slots=True)
class _Step:
    """The numbers of one UniPC step; letters as in the paper."""

    scale: float  # sigma_t / sigma_prev
    phi: float  # alpha_t phi_1, where phi_1 = expm1(-h)
    b: float  # alpha_t B(h)
    r: tuple[float, ...]  # places of older predictions, newest first
    predict: tuple[float, ...]  # weights of their differences
    correct: tuple[float, ...]  # weights of their differences, then of the newest one


@dataclass(frozen=True, slots=True)
class _Scheme:
    """Which of the paper's family."""

    order: int  # at most
    variant: Literal["bh1", "bh2"]
    alpha: Callable[[float], float]  # how much of the clean sample is in one at this level; lambda = ln(alpha / sigma)


def _unipc_step(levels: Sequence[float], scheme: _Scheme) -> _Step:
    """The step from `levels[-2]` to `levels[-1]`; the levels before are those of older predictions."""
    alpha, variant = scheme.alpha(levels[-1]), scheme.variant
    *older, previous, target = (sigma / scheme.alpha(sigma) for sigma in levels)
    order = len(older) + 1
    h = math.log(previous / target)
    hh = -h
    b_of_h = hh if variant == "bh1" else math.expm1(hh)
    r = [math.log(previous / sigma) / h for sigma in reversed(older)]
    phi = math.expm1(hh)
    phi_k, b = phi / hh - 1.0, []
    for i in range(1, order + 1):
        b.append(phi_k * math.factorial(i) / b_of_h)
        phi_k = phi_k / hh - 1.0 / math.factorial(i + 1)
    r_and_one = torch.tensor([*r, 1.0], dtype=torch.float64)
    R = torch.stack([r_and_one**i for i in range(order)])
    solved = torch.linalg.solve(R, torch.tensor(b, dtype=torch.float64))
    leading = torch.linalg.solve(R[:-1, :-1], torch.tensor(b[:-1], dtype=torch.float64))
    return _Step(
        scale=levels[-1] / levels[-2],
        phi=alpha * phi,
        b=alpha * b_of_h,
        r=tuple(r),
        predict=(0.5,) if order == 2 else tuple(leading.tolist()),
        correct=(0.5,) if order == 1 else tuple(solved.tolist()),
    )


def unipc(
    velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"], variant: Literal["bh1", "bh2"] = "bh1"
) -> Iterator[Tensor]:
    """UniPC (arXiv 2302.04867) on clean predictions with `lambda = -ln sigma`, as FramePack samples.

    The order rises from 1 to 3 (less where there are fewer steps); each step is corrected by the evaluation that the
    next one needs anyway. No step to sigma 0 is taken: the result is the clean prediction at the last level above it.

    >>> clean = torch.full((1, 2), 3.0)
    >>> *_, result = unipc(lambda x, sigma: (x - clean) / sigma, torch.zeros(1, 2), torch.tensor([1.0, 0.5, 0.25, 0.0]))
    >>> result
    tensor([[3., 3.]])
    """
    yield from _unipc(velocity, x, sigmas, _Scheme(order=3, variant=variant, alpha=lambda sigma: 1.0))


def unipc_flow(velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"]) -> Iterator[Tensor]:
    """UniPC with the flow's own `lambda = ln((1 - sigma) / sigma)`, of order 2, B2: as Wan and Helios are published.

    The result is the clean prediction at the last level above 0, as in `unipc`.
    """
    # At sigma 1 nothing of the clean sample is left, and lambda is infinite: diffusers takes a millionth off, too.
    yield from _unipc(velocity, x, sigmas, _Scheme(order=2, variant="bh2", alpha=lambda sigma: max(1.0 - sigma, 1e-6)))


def _unipc(
    velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"], scheme: _Scheme
) -> Iterator[Tensor]:
    levels = sigmas.tolist()[:-1]
    most = max(1, min(scheme.order, len(levels) - 1))
    clean = x - levels[0] * velocity(x, levels[0])
    known = [clean]  # clean predictions, newest first
    for k in range(1, len(levels)):
        step = _unipc_step(levels[max(0, k - most) : k + 1], scheme)
        differences = [(older - known[0]) / r for older, r in zip(known[1:], step.r, strict=True)]
        base = step.scale * x - step.phi * known[0]
        x = base
        for weight, difference in zip(step.predict, differences, strict=True):
            x = x - step.b * weight * difference
        yield x
        clean = x - levels[k] * velocity(x, levels[k])
        x = base
        for weight, difference in zip(step.correct, [*differences, clean - known[0]], strict=True):
            x = x - step.b * weight * difference
        known = [clean, *known][:most]
    yield clean


def unipc_official(velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"]) -> Iterator[Tensor]:
    """UniPC as the official program has it: each clean prediction is `bfloat16(x) - sigma v`.

    The network sees no more of `x` than its rounding, and what is predicted starts from there.
    """

    def seen(x: Tensor, sigma: float) -> Tensor:
        rounded = x.bfloat16().to(x.dtype)
        return velocity(rounded, sigma) + (x - rounded) / sigma

    return unipc(seen, x, sigmas)


def dmd(velocity: Velocity, x: Float[Tensor, "b ..."], sigmas: Float[Tensor, " k"]) -> Iterator[Tensor]:
    """Steps for distilled models: to the clean prediction, and from there back along the line to where `x` began.

    At each level what is clean is predicted anew, and the same noise is mixed into it. This does not follow the flow:
    more steps do not come closer to its solution (DMD, arXiv 2405.14867; the noise is kept, as Helios has it).

    >>> clean = torch.full((1, 2), 3.0)
    >>> list(dmd(lambda x, sigma: (x - clean) / sigma, torch.zeros(1, 2), torch.tensor([1.0, 0.5, 0.0])))
    [tensor([[1.5000, 1.5000]]), tensor([[3., 3.]])]
    """
    begun = x
    for sigma, after in itertools.pairwise(sigmas.tolist()):
        x = torch.lerp(x - sigma * velocity(x, sigma), begun, after)
        yield x


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "unipc": unipc,
    "unipc_flow": unipc_flow,
    "unipc_official": unipc_official,
    "dmd": dmd,
}
