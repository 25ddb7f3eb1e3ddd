"""How the three Helios are sampled: all at once, from coarse to fine, from coarse to fine in few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from longtake.backbones.weights import read_json
from longtake.errors import ModelError
from longtake.flow import (
    HELIOS_DISTILLED_SHIFT,
    HELIOS_SHIFT,
    Pyramid,
    Renoise,
    Shift,
    block_noise,
    guide,
    guide_zero_star,
    noise,
)
from longtake.plan import Section

__all__ = ["GUIDES", "SAMPLINGS", "Sampling", "read_sampling", "renoising"]

_ZERO_INIT = 2  # steps: the published pipeline's `zero_steps` of 1 counts from 0
_SHIFTS: dict[str, Shift] = {"exponential": HELIOS_SHIFT, "linear": HELIOS_DISTILLED_SHIFT}
_SOLVERS: dict[str, Literal["euler", "unipc_flow", "dmd"]] = {"euler": "euler", "unipc": "unipc_flow", "dmd": "dmd"}
_USUAL = {"HeliosDMDScheduler": "linear"}  # of a scheduler that does not say; of others exponential

GUIDES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"plain": guide, "zero_star": guide_zero_star}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How sections are sampled.

    >>> [sum(SAMPLINGS["distilled"].pyramid(index).steps) for index in (0, 1)]
    [12, 6]
    """

    usual: Pyramid
    guide: Literal["plain", "zero_star"] = "plain"
    first: int = 1  # the section that begins a video takes so many times the steps

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
            ModelError: there are fewer steps than stages.
        """
        count = len(self.usual.steps)
        if steps < count:
            raise ModelError(f"{steps} steps for a model that samples in {count} sizes: expected {count} or more")
        return replace(self, usual=replace(self.usual, steps=tuple((steps + k) // count for k in range(count))))


SAMPLINGS = {
    "base": Sampling(Pyramid((50,), "unipc_flow", HELIOS_SHIFT)),
    "mid": Sampling(Pyramid((20, 20, 20), "unipc_flow", HELIOS_SHIFT), guide="zero_star"),
    "distilled": Sampling(Pyramid((2, 2, 2), "dmd", HELIOS_DISTILLED_SHIFT), first=2),
}


def read_sampling(folder: Path) -> Sampling:
    """How the model in a folder of diffusers' layout wants to be sampled.

    `model_index.json` says which of the three it is, the scheduler's config the rest.

    Raises:
        ModelError: a file is missing, or says what is not known here.
    """
    index, path = read_json(folder / "model_index.json"), folder / "scheduler" / "scheduler_config.json"
    kind, config = _kind_of(folder, index), read_json(path)
    known = SAMPLINGS[kind]
    said = "dmd" if kind == "distilled" else config.get("scheduler_type", "unipc")
    if said not in _SOLVERS or (said == "dmd") != (kind == "distilled"):
        raise ModelError(f"{path}: scheduler_type {said!r}: Helios' {kind} is sampled by 'unipc' or 'euler'")
    stages = len(known.usual.steps)
    if config.get("stages", 3) != stages or not _even(config.get("stage_range"), stages):
        raise ModelError(f"{path}: Helios' {kind} is sampled in {stages} stages of equal parts of the noise levels")
    shift = _shift_of(path, config, stages)
    usual = replace(known.usual, solver=_SOLVERS[said], shift=shift, gamma=config.get("gamma", known.usual.gamma))
    return replace(known, usual=usual, guide="zero_star" if index.get("is_cfg_zero_star", False) else "plain")


def _kind_of(folder: Path, index: Mapping[str, Any]) -> str:
    name = index.get("_class_name")
    if name == "HeliosPipeline":
        return "base"
    if name == "HeliosPyramidPipeline":
        return "distilled" if index.get("is_distilled", False) else "mid"
    raise ModelError(f"{folder}: model_index.json says {name}; a Helios says HeliosPipeline or HeliosPyramidPipeline")


def _even(stage_range: Any, stages: int) -> bool:
    if stages == 1 or stage_range is None:
        return True
    return len(stage_range) == stages + 1 and all(abs(r - k / stages) < 1e-6 for k, r in enumerate(stage_range))


def _shift_of(path: Path, config: Mapping[str, Any], stages: int) -> Shift:
    if not config.get("use_dynamic_shifting", False):
        return 1.0 if stages == 1 else float(config.get("shift", 1.0))  # levels that a pipeline names are taken as such
    kind = config.get("time_shift_type", _USUAL.get(config.get("_class_name", ""), "exponential"))
    if kind not in _SHIFTS:
        raise ModelError(f"{path}: time_shift_type {kind!r}: expected {' or '.join(map(repr, _SHIFTS))}")
    return _SHIFTS[kind]


def renoising(pyramid: Pyramid, section: Section, seeds: Sequence[int], like: Tensor) -> Renoise:
    """The block noise of a section's stages, which belongs to (seed, section, stage), one seed a sample."""

    def renoise(shape: torch.Size, stage: int) -> Tensor:
        one = (1, *shape[1:])
        each = [noise(one, seed, section.index, like.device, like.dtype, stage=stage) for seed in seeds]
        return block_noise(torch.cat(each), pyramid.gamma)

    return renoise
