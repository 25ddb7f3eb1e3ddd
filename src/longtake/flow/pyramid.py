"""From noise to a sample at several sizes, coarse to fine (Pyramidal Flow, arXiv 2410.05954; Helios).

Each stage goes a part of the way from noise to clean, at twice the height and width of the one before. What a stage
ends with is enlarged, and its noise with it: four neighbors then have the same. Noise that is opposed within each four
makes it white again, at a level that is higher than where the stage before ended. These ways, laid end to end, are the
whole; the network is told where on it the sample is. With three
stages, before any shift:

    stage           0              1              2
    size           1/4            1/2             1
    level      1.00 .. 0.67   0.80 .. 0.33   0.50 .. 0.00
    told       1.00 .. 0.74   0.74 .. 0.39   0.39 .. 0.00

Solvers see none of that: each stage has levels of its own, from 1 to 0, and the velocity leads from its end to its
beginning.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from longtake.errors import InputError
from longtake.flow.sigmas import DirectShift, LinearShift, Shift, shift_for, shifted
from longtake.flow.solvers import SOLVERS, Velocity

__all__ = ["Pyramid", "Renoise", "Stage", "block_noise", "climb", "coarse"]

Renoise = Callable[[torch.Size, int], Tensor]  # block noise of a shape, for a stage

LEVELS = 1000  # that training knows
HIGHEST = 0.999  # of them


@dataclass(frozen=True, slots=True)
class Stage:
    """One size of a section, as numbers."""

    sigmas: tuple[float, ...]  # its own levels, down to 0
    told: tuple[float, ...]  # what the network is told at each of them but 0
    keep: float = 1.0  # of the stage before, enlarged
    renoise: float = 0.0  # of block noise that is added to it


@dataclass(frozen=True, slots=True)
class Pyramid:
    """How a section is sampled from coarse to fine; with one stage, how it is sampled at its size.

    >>> mid = Pyramid(steps=(20, 20, 20), solver="unipc_flow", shift=1.0)
    >>> [(len(stage.told), stage.told[0], round(stage.keep, 3)) for stage in mid.stages(tokens=8640)]
    [(20, 0.999, 1.0), (20, 0.743, 0.6), (20, 0.385, 0.75)]
    """

    steps: tuple[int, ...]  # of each stage, coarse to fine
    solver: Literal["euler", "unipc_flow", "dmd"]
    shift: Shift  # a rule acts on each stage's levels, by tokens; a number on where in the whole it stands
    gamma: float = 1 / 3  # minus the correlation of two neighbors in block noise
    still: int = 0  # first steps that guidance would lead astray and that are left out: CFG-Zero*'s zero init

    @property
    def multiple(self) -> int:
        """Height and width of a latent have to be multiples of this, so that each stage has whole patches of 2 x 2."""
        return 2 ** len(self.steps)

    def stages(self, tokens: int) -> tuple[Stage, ...]:
        """The stages of a section of so many tokens at its full size."""
        if len(self.steps) == 1:
            return (self._only(tokens),)
        count = len(self.steps)
        table = self._table()
        cuts = [*(table[k * LEVELS // count] for k in range(count)), 0.0]
        ways = [(self._begun(cut) if k else cut) - end for k, (cut, end) in enumerate(itertools.pairwise(cuts))]
        shares = list(itertools.accumulate(ways, initial=0.0))
        ends = [table[min(int(share / shares[-1] * LEVELS), LEVELS - 1)] for share in shares]
        # A stage is shifted by the tokens of the size that it comes from, as the published pipelines do it.
        halvings = [count - 1, *range(count - 1, 0, -1)]
        return tuple(
            self._stage(number, cuts[number], ends[number], ends[number + 1], tokens // 4 ** halvings[number])
            for number in range(count)
        )

    def _only(self, tokens: int) -> Stage:
        t = torch.linspace(HIGHEST, 0.0, self.steps[0] + 1, dtype=torch.float64)
        sigmas = shifted(t, shift_for(tokens, self.shift)).tolist()
        return Stage(tuple(sigmas), told=tuple(sigmas[:-1]))

    def _table(self) -> list[float]:
        """The levels of training, from noise to clean."""
        even = torch.arange(LEVELS, 0, -1, dtype=torch.float64) * HIGHEST / LEVELS
        return shifted(even, self.shift if isinstance(self.shift, int | float) else 1.0).tolist()

    def _kept(self, sigma: float) -> float:
        """By how much an enlarged sample at that level shrinks, for its variance to be that of a level again."""
        return 1.0 / (math.sqrt(1.0 + 1.0 / self.gamma) * sigma + 1.0 - sigma)

    def _begun(self, sigma: float) -> float:
        """The level of a sample that was enlarged at `sigma` and made white."""
        return 1.0 - self._kept(sigma) * (1.0 - sigma)

    def _stage(self, number: int, cut: float, first: float, end: float, tokens: int) -> Stage:
        steps = self.steps[number]
        first = min(first, HIGHEST)
        last = first + (end - first) * (1.0 - 1.0 / LEVELS)  # training's levels stop one short of the end
        even = torch.linspace(HIGHEST, HIGHEST / LEVELS, steps + (self.solver == "dmd"), dtype=torch.float64)[:steps]
        if isinstance(self.shift, LinearShift | DirectShift):
            own = shifted(even, shift_for(tokens, self.shift))
            told = last + own * (first - last)
        else:
            own = even
            told = torch.linspace(first, last, steps + (self.solver == "dmd"), dtype=torch.float64)[:steps]
        # Published pipelines tell whole thousandths. A billionth keeps those that are whole from falling to the next.
        thousandths = torch.floor(told * LEVELS + 1e-9) / LEVELS
        sigmas, keep = (*own.tolist(), 0.0), self._kept(cut) if number else 1.0
        return Stage(sigmas, tuple(thousandths.tolist()), keep, keep * cut / math.sqrt(self.gamma) if number else 0.0)


def coarse(noise: Float[Tensor, "b c t h w"], halvings: int) -> Float[Tensor, "b c t h2 w2"]:
    """Noise at a fraction of its height and width, white and of variance 1 as before.

    Raises:
        InputError: the sides cannot be halved so often into whole patches of 2 x 2.
    """
    height, width = noise.shape[3:]
    multiple = 2 ** (halvings + 1)
    if height % multiple or width % multiple:
        above = (-(-side // multiple) * multiple for side in (height, width))
        raise InputError(
            f"a latent of {height} x {width} cannot be sampled from coarse to fine in {halvings + 1} sizes: "
            f"expected multiples of {multiple}, such as {' x '.join(map(str, above))}"
        )
    size = 2**halvings
    return size * reduce(noise, "b c t (h hs) (w ws) -> b c t h w", "mean", hs=size, ws=size)


def block_noise(white: Float[Tensor, "b c t h w"], gamma: float) -> Float[Tensor, "b c t h w"]:
    """Unit white noise made such that two pixels of a square of 2 x 2 have correlation `-gamma`, of variance 1.

    >>> noise = block_noise(torch.randn(1, 1, 1, 4, 4), gamma=1 / 3)
    >>> reduce(noise, "b c t (h hs) (w ws) -> (b c t h w)", "sum", hs=2, ws=2).abs().max() < 1e-5
    tensor(True)
    """
    mean = reduce(white, "b c t (h hs) (w ws) -> b c t h w", "mean", hs=2, ws=2)
    mean = nn.functional.interpolate(mean, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
    return math.sqrt(1.0 + gamma) * (white - mean) + math.sqrt(max(0.0, 1.0 - 3.0 * gamma)) * mean


def climb(
    velocity: Velocity, x: Float[Tensor, "b c t h w"], pyramid: Pyramid, renoise: Renoise
) -> Iterator[Float[Tensor, "b c t h2 w2"]]:
    """Samples `x`, the noise of a section at its full size, from coarse to fine; yields after every step.

    The `velocity` is asked at several sizes, and told levels of the whole.

    Raises:
        InputError: the sides of `x` cannot be halved so often.
    """
    stages = pyramid.stages(x.shape[2] * x.shape[3] * x.shape[4] // 4)
    solve = SOLVERS[pyramid.solver]
    x = coarse(x, len(stages) - 1)
    for number, stage in enumerate(stages):
        if number:
            x = nn.functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
            x = stage.keep * x + stage.renoise * renoise(x.shape, number)
        still = pyramid.still if number == 0 else 0
        for x in solve(_telling(velocity, stage, still), x, torch.tensor(stage.sigmas, dtype=torch.float64)):
            yield x


def _telling(velocity: Velocity, stage: Stage, still: int) -> Velocity:
    """The velocity, told the levels of the whole at those of a stage; none in its first steps."""
    told = dict(zip(stage.sigmas, stage.told, strict=False))  # at 0 nothing is asked

    def at_stage(x: Tensor, sigma: float) -> Tensor:
        if sigma in stage.sigmas[:still]:
            return torch.zeros_like(x)
        return velocity(x, told[sigma])

    return at_stage
