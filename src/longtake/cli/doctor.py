"""`longtake doctor`: what this machine has, what each model would need of it, and how long a section would take."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from longtake.errors import InputError

if TYPE_CHECKING:
    from longtake.pipeline.checkup import Checkup
    from longtake.pipeline.machine import Machine
    from longtake.pipeline.rates import Rates

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Says what this machine has, what each model would need of it, and how long a section would take.

    Nothing is loaded and nothing is downloaded; the device is measured for about a second. With --model it goes into
    the ways of placing that model, and the exit code is 1 if it cannot be run here as things are.
    """

    model: str | None = None
    """A model's name or folder."""
    height: int | None = None
    """Pixels, a multiple of the model's grid; default: the model's."""
    width: int | None = None
    """Pixels, likewise."""
    schedule: str | None = None
    """What each section sees; default: the model's."""
    num_inference_steps: Annotated[int | None, tyro.conf.arg(aliases=["--steps"])] = None
    """Steps of each section; default: the model's."""
    guidance: Annotated[float | None, tyro.conf.arg(aliases=["--true-cfg-scale"])] = None
    """Classifier-free guidance; above 1 it is twice the work."""
    profile: str = "auto"
    """One of the ways of placing it, or auto: the first that fits and is lossless."""
    device: str = "auto"
    """cpu, cuda, ... or auto: a GPU where there is one."""
    folder: Path = Path()
    """Where the video would go, to see the room on that disk."""
    json: bool = False
    """All of it as JSON on stdout."""


def run(options: Options) -> int:
    """Probes, measures, counts and says."""
    steps = options.num_inference_steps
    asked = (options.height, options.width, options.schedule, steps, options.guidance)
    if options.model is None and (options.profile != "auto" or any(value is not None for value in asked)):
        raise InputError("sizes, steps and profiles are for one model: expected --model NAME")
    from longtake.backbones import MODELS
    from longtake.cli.findings import draw_machine, draw_model, draw_models
    from longtake.pipeline import find_device
    from longtake.pipeline.checkup import Wish, check_up
    from longtake.pipeline.machine import probe_machine
    from longtake.pipeline.rates import measure_rates

    device = find_device(options.device)
    machine = probe_machine(device, options.folder)
    names = list(MODELS) if options.model is None else [options.model]
    rates = measure_rates(device, machine.device.dtype, machine.device.kernel)
    found = [check_up(name, machine, rates, Wish(*asked, options.profile)) for name in names]
    if options.json:
        print(json.dumps(_data(machine, rates, found), default=str))
    else:
        shown = draw_models(found) if options.model is None else draw_model(found[0], machine)
        print(draw_machine(machine, rates), shown, sep="\n\n")
    return 0 if options.model is None or found[0].ready else 1


def _data(machine: Machine, rates: Rates, found: list[Checkup]) -> dict[str, Any]:
    from longtake.pipeline.machine import remarks_on

    return {
        "machine": asdict(machine),
        "remarks": remarks_on(machine),
        "rates": asdict(rates),
        "models": [_model_data(one) for one in found],
    }


def _model_data(one: Checkup) -> dict[str, Any]:
    return {
        "model": one.name,
        "ready": one.ready,
        "chosen": one.chosen.name if one.chosen else None,
        "refusal": one.refusal,
        "remedies": one.remedies,
        "download_bytes": one.download,
        "schedule": one.schedule,
        "work": asdict(one.work),
        "ways": [
            {
                "profile": need.name,
                "lossless": need.lossless,
                "tiling": need.tiling,
                "encoders": need.encoders,
                "device_bytes": need.device,
                "host_bytes": need.host,
                "pinned_bytes": need.pinned,
                "transfer_bytes": need.placement.transfer,
                "lacking": asdict(one.fits[need]),
                "seconds": asdict(one.seconds[need]) | {"section": one.seconds[need].section},
            }
            for need in one.needs
        ],
    }
