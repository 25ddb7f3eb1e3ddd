"""How the sections of a model that is sampled from coarse to fine are sampled, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from longtake.errors import InputError
from longtake.flow.noise import noise
from longtake.flow.pyramid import Pyramid, Renoise, block_noise

__all__ = ["Sampling", "renoising"]

_ZERO_INIT = 2  # steps: the published pipeline's `zero_steps` of 1 counts from 0
_ALIKE = {"dmd": ("dmd",), "euler": ("euler", "unipc_flow"), "unipc_flow": ("euler", "unipc_flow")}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How sections are sampled.

    >>> distilled = Sampling(Pyramid((2, 2, 2), "dmd", 1.0), first=2)
    >>> [sum(distilled.pyramid(index).steps) for index in (0, 1)]
    [12, 6]
    """

    usual: Pyramid
    guide: Literal["plain", "zero_star"] = "plain"
    first: int = 1  # the section that begins a video takes so many times the steps

    @property
    def steps(self) -> int:
        """Those of a section, but of the first."""
        return sum(self.usual.steps)

    @property
    def coarsest(self) -> int:
        """How many times as high and wide as the coarsest size the finest is."""
        return 2 ** (len(self.usual.steps) - 1)

    def pyramid(self, index: int) -> Pyramid:
        """The pyramid of the section made in this place."""
        times = self.first if index == 0 else 1
        return replace(self.usual, steps=tuple(times * steps for steps in self.usual.steps))

    def guided(self, scale: float) -> Sampling:
        """The same under guidance of that scale: CFG-Zero* leaves the first steps out."""
        still = _ZERO_INIT if self.guide == "zero_star" and scale > 1.0 else 0
        return replace(self, usual=replace(self.usual, still=still))

    def spread(self, steps: int) -> Sampling:
        """The same with so many steps in all, shared out evenly; what is over goes to the finer stages.

        Raises:
            InputError: there are fewer steps than stages.
        """
        count = len(self.usual.steps)
        if steps < count:
            raise InputError(f"{steps} steps for a model that samples in {count} sizes: expected {count} or more")
        return replace(self, usual=replace(self.usual, steps=tuple((steps + k) // count for k in range(count))))

    def solved(self, solver: str) -> Sampling:
        """The same by another solver.

        Raises:
            InputError: a distilled model is to follow the flow, another is not to, or the solver knows no stages.
        """
        known = _ALIKE[self.usual.solver]
        if solver not in known:
            raise InputError(f"solver {solver!r} for a model that is sampled otherwise: expected {' or '.join(known)}")
        return replace(self, usual=replace(self.usual, solver=solver))


def renoising(pyramid: Pyramid, section: int, seeds: Sequence[int], like: Tensor) -> Renoise:
    """The block noise of a section's stages, which belongs to (seed, section, stage), one seed a sample."""

    def renoise(shape: torch.Size, stage: int) -> Tensor:
        one = (1, *shape[1:])
        each = [noise(one, seed, section, like.device, like.dtype, stage=stage) for seed in seeds]
        return block_noise(torch.cat(each), pyramid.gamma)

    return renoise
