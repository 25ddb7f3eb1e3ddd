"""One model on one machine: what it would need, what fits, how long a section takes, and what is to be done first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from longtake.backbones import MODELS, find_parts, said_bytes
from longtake.backbones.blueprints import Blueprint, blueprint_of
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.errors import HardwareError, InputError
from longtake.pipeline.machine import Machine
from longtake.pipeline.needs import AUTO, Fit, Need, Seconds, choose_need, fit_of, needs_of, seconds_of
from longtake.pipeline.rates import Rates
from longtake.pipeline.work import Work, grid_of, work_at
from longtake.schedule import find_schedule

__all__ = ["Checkup", "Wish", "check_up"]

T = TypeVar("T")
RESERVE = 1 << 30  # bytes that stay free on the hub's disk, as fetching leaves them


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a model. What is None is the model's own choice."""

    height: int | None = None  # pixels
    width: int | None = None
    schedule: str | None = None
    steps: int | None = None
    guidance: float | None = None
    profile: str = AUTO


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found out."""

    name: str
    blueprint: Blueprint
    schedule: str
    work: Work
    needs: tuple[Need, ...]  # the best first
    fits: Mapping[Need, Fit]
    seconds: Mapping[Need, Seconds]  # of a section
    chosen: Need | None
    refusal: str  # why none was; empty where one was
    download: int  # bytes that are not here yet, about
    remedies: tuple[str, ...]  # what is to be done before it runs

    @property
    def ready(self) -> bool:
        """True if it can be run here as things are."""
        return self.chosen is not None and not self.remedies

    @property
    def nearest(self) -> Need:
        """The need that lacks least."""
        return min(self.needs, key=lambda need: self.fits[need].total)


def check_up(model: str, machine: Machine, rates: Rates, wish: Wish) -> Checkup:
    """What a model would need of a machine, by its name or its folder. Nothing of it is loaded.

    Raises:
        ModelError: there is no such model, or its configs do not describe one.
        InputError: a size is off the model's grid, a number cannot be used, or there is no such profile.
        ScheduleError: the schedule's name cannot be read.
    """
    blueprint = blueprint_of(model, machine.device.dtype)
    settings = blueprint.settings
    schedule = find_schedule(wish.schedule or settings.schedules[settings.order])
    guidance, steps = _or(wish.guidance, settings.guidance), _or(wish.steps, settings.steps)
    if guidance < 1 or steps < 1:
        raise InputError(f"{steps} steps and a guidance of {guidance:g}: expected 1 or more of each")
    unit = blueprint.grid * (settings.sampling.coarsest if settings.sampling else 1)
    size = Bucket(
        _side("height", _or(wish.height, settings.height), unit),
        _side("width", _or(wish.width, settings.width), unit),
    )
    passes = 1 + (guidance > 1) + (settings.history_guidance > 1)
    context = schedule.context_tokens(*grid_of(blueprint, size))
    work = work_at(blueprint, size, schedule, steps, passes, context)
    needs = needs_of(blueprint, work, machine.device)
    chosen, refusal = None, ""
    try:
        chosen = choose_need(model, needs, machine, wish.profile)
    except HardwareError as error:
        refusal = str(error)
    download = find_parts(MODELS[model]).download_bytes if model in MODELS else 0
    return Checkup(
        name=model,
        blueprint=blueprint,
        schedule=str(schedule),
        work=work,
        needs=needs,
        fits={need: fit_of(need, machine) for need in needs},
        seconds={need: seconds_of(work, need, rates, machine.device) for need in needs},
        chosen=chosen,
        refusal=refusal,
        download=download,
        remedies=_remedies(model, download, work, machine),
    )


def _remedies(model: str, download: int, work: Work, machine: Machine) -> tuple[str, ...]:
    """What keeps a model that fits into memory from being run, and what would do."""
    found = []
    if download and machine.hub_free < download + RESERVE:
        found.append(
            f"the disk of {machine.hub} has {said_bytes(machine.hub_free)} free, {said_bytes(download)} are to be "
            f"fetched: HF_HOME names another place"
        )
    if download:
        found.append(f"its weights are not here; to fetch them: longtake models {model} --fetch")
    if machine.folder_free < work.disk:
        found.append(
            f"the disk of {machine.folder.absolute()} has {said_bytes(machine.folder_free)} free, a section takes "
            f"{said_bytes(work.disk)}: --output names another place"
        )
    return tuple(found)


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def _side(name: str, pixels: int, unit: int) -> int:
    if pixels < unit or pixels % unit:
        below = max(1, pixels // unit) * unit
        raise InputError(
            f"a {name} of {pixels} is off the model's grid of {unit} pixels; try {below} or {below + unit}"
        )
    return pixels
