"""How the three Helios are sampled: all at once, from coarse to fine, from coarse to fine in few steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from longtake.backbones.weights import read_json
from longtake.errors import ModelError
from longtake.flow import HELIOS_DISTILLED_SHIFT, HELIOS_SHIFT, Pyramid, Sampling, Shift

__all__ = ["SAMPLINGS", "kind_of", "read_sampling", "scheduled"]

_SHIFTS: dict[str, Shift] = {"exponential": HELIOS_SHIFT, "linear": HELIOS_DISTILLED_SHIFT}
_SOLVERS: dict[str, Literal["euler", "unipc_flow", "dmd"]] = {"euler": "euler", "unipc": "unipc_flow", "dmd": "dmd"}
_USUAL = {"HeliosDMDScheduler": "linear"}  # of a scheduler that does not say; of others exponential

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
    index = read_json(folder / "model_index.json")
    sampling = scheduled(SAMPLINGS[kind_of(folder, index)], folder / "scheduler")
    return replace(sampling, guide="zero_star" if index.get("is_cfg_zero_star", False) else "plain")


def kind_of(folder: Path, index: Mapping[str, Any]) -> str:
    """Which of the three is in a folder with this `model_index.json`.

    Raises:
        ModelError: none is.
    """
    name = index.get("_class_name")
    if name == "HeliosPipeline":
        return "base"
    if name == "HeliosPyramidPipeline":
        return "distilled" if index.get("is_distilled", False) else "mid"
    raise ModelError(f"{folder}: model_index.json says {name}; a Helios says HeliosPipeline or HeliosPyramidPipeline")


def scheduled(known: Sampling, scheduler: Path) -> Sampling:
    """One of the three as the scheduler in a folder has it.

    Raises:
        ModelError: its config is missing, or says what is not known here.
    """
    path = scheduler / "scheduler_config.json"
    config, distilled = read_json(path), known.usual.solver == "dmd"
    said = "dmd" if distilled else config.get("scheduler_type", "unipc")
    if said not in _SOLVERS or (said == "dmd") != distilled:
        raise ModelError(
            f"{path}: scheduler_type {said!r}: a Helios that is not distilled is sampled by 'unipc' or 'euler'"
        )
    stages = len(known.usual.steps)
    if config.get("stages", 3) != stages or not _even(config.get("stage_range"), stages):
        raise ModelError(f"{path}: this Helios is sampled in {stages} stages of equal parts of the noise levels")
    shift = _shift_of(path, config, stages)
    usual = replace(known.usual, solver=_SOLVERS[said], shift=shift, gamma=config.get("gamma", known.usual.gamma))
    return replace(known, usual=usual)


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
