"""What a video takes of a machine, for every way of placing the model; and the first way that fits.

Memory has three moments, of which the fullest counts:

    prompts     the largest encoder, alone: on the device where it fits there, else on the host
    denoising   the transformer as it is placed, its activations, the codec's weights
    decoding    the transformer's weights, and the codec with its activations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from longtake.backbones.attention import Kernel, use_kernel
from longtake.backbones.blueprints import Blueprint, blueprint_of
from longtake.backbones.placement import PROFILES, Placement, back_end_of, form_of, place
from longtake.backbones.placement.modulation import can_be_tabulated
from longtake.backbones.placement.plan import RESERVE
from longtake.backbones.placement.storage import store_linears
from longtake.backbones.workload import Decoding, Tiling, decoding_of, tilings_of
from longtake.errors import HardwareError, InputError
from longtake.pipeline.machine import SPARE, Device, Machine
from longtake.pipeline.rates import Rates
from longtake.pipeline.request import Config
from longtake.pipeline.work import Work, work_of

__all__ = [
    "AUTO",
    "Fit",
    "Need",
    "Seconds",
    "check_hardware",
    "choose_need",
    "fit_of",
    "needs_of",
    "seconds_of",
]

AUTO = "auto"  # the first lossless profile that fits
# The allocator holds more than it has given out: 27.87 GiB for 25.97 in the eager step of the 13 B network on an H100.
HELD = 27.87 / 25.97
PROCESS = {"cpu": 1 << 30, "mps": 1 << 30, "cuda": 2 << 30}  # bytes of the host: Python, PyTorch and its libraries


@dataclass(frozen=True, slots=True)
class Need:
    """One way to make the video, in bytes."""

    placement: Placement
    decoding: Decoding
    tiling: Tiling  # of the codec; in parts it takes less memory, and the images are not quite the same
    encoders: Literal["device", "host"]  # where those of prompts are; from the host they visit layer by layer
    device: int  # at the fullest moment, without encoders
    host: int  # the same; what is pinned is in it
    pinned: int
    variable: int  # of the device's, what grows with size and section

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.placement.profile.name

    @property
    def lossless(self) -> bool:
        """True if the transformer's result is that of resident weights."""
        return self.placement.profile.storage is None


@dataclass(frozen=True, slots=True)
class Fit:
    """What is lacking of a need; nothing where it fits."""

    device: int
    host: int
    pinned: int

    @property
    def fits(self) -> bool:
        """True if nothing is lacking."""
        return not self.total

    @property
    def total(self) -> int:
        """All that is lacking."""
        return self.device + self.host + self.pinned


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a section takes."""

    step: float  # all evaluations of one step at full size
    denoising: float
    decoding: float

    @property
    def section(self) -> float:
        """All together."""
        return self.denoising + self.decoding


def needs_of(blueprint: Blueprint, work: Work, device: Device) -> tuple[Need, ...]:
    """Every way of making the video on such a device, the best first.

    Whole pictures are decoded before tiles, since a transformer that is streamed costs next to no time and a tiled
    codec changes the images; within each, the order is that of `PROFILES`.
    """
    placements = [
        place(blueprint.transformer, work.tokens.sequence, profile)
        for profile in PROFILES
        if (device.streams or profile.blocks == "resident")
        and (can_be_tabulated(blueprint.transformer) or not profile.tables)
    ]
    if device.unified:
        placements = placements[:1]  # there is nowhere else to put anything
    return tuple(
        _need(blueprint, placement, decoding_of(blueprint, work.size, work.frames, way), way, device)
        for way in tilings_of(blueprint, work.size)
        for placement in placements
    )


def _need(blueprint: Blueprint, placement: Placement, decoding: Decoding, tiling: Tiling, device: Device) -> Need:
    count = blueprint.transformers
    weights = count * placement.weights
    workspace = 0 if device.kind == "cpu" else decoding.workspace
    denoising = weights + placement.activations + decoding.weights
    opened = weights + decoding.weights + decoding.activations + workspace + decoding.held + RESERVE
    encoder = max(blueprint.encoders, default=0) * device.dtype.itemsize + RESERVE
    needed = max(denoising, opened)
    variable = needed - weights - decoding.weights
    process, rests = PROCESS[device.kind], count * placement.pageable
    if device.unified:
        needed = max(needed, encoder) + process + rests
        return Need(placement, decoding, tiling, "device", needed, needed, 0, variable)
    if placement.profile.host == "staged":
        rests = 0  # pages of the weights' files, which the system takes back when it wants to
    pinned = count * placement.pinned
    on_device = encoder <= max(needed, usable(device))
    host = process + max(pinned + rests, 0 if on_device else encoder)
    return Need(placement, decoding, tiling, "device" if on_device else "host", needed, host, pinned, variable)


def usable(device: Device) -> int:
    """Bytes that may be given out of those that are free."""
    return max(0, device.free - SPARE) if device.unified else int(device.free / HELD)


def fit_of(need: Need, machine: Machine) -> Fit:
    """What this machine lacks for it."""
    return Fit(
        device=max(0, need.device - usable(machine.device)),
        host=0 if machine.device.unified else max(0, need.host - max(0, machine.host_free - SPARE)),
        pinned=max(0, need.pinned - machine.pinnable),
    )


def choose_need(name: str, needs: tuple[Need, ...], machine: Machine, profile: str = AUTO) -> Need:
    """The first need that fits: of a profile, or of all that are lossless.

    Raises:
        InputError: there is no such profile for this model on this device.
        HardwareError: none fits; the message names one that would do, or says how much is lacking.
    """
    names = tuple(dict.fromkeys(need.name for need in needs))
    if profile not in (AUTO, *names):
        known = {each.name for each in PROFILES}
        what = (
            f"{name} cannot be placed so on {machine.device.kind}" if profile in known else "there is no such profile"
        )
        raise InputError(f"profile {profile!r}: {what}; there are {AUTO}, {', '.join(names)}")
    wanted = [need for need in needs if (need.lossless if profile == AUTO else need.name == profile)]
    fitting = [need for need in needs if fit_of(need, machine).fits]
    for need in wanted:
        if need in fitting:
            return need
    least = min(wanted, key=lambda need: fit_of(need, machine).total)
    lines = [f"{name} does not fit here{'' if profile == AUTO else f' as {profile}'}: {_says(least, machine)}"]
    if fitting:
        best = fitting[0]
        remark = "" if best.lossless else ", which rounds the matrices to fp8 and changes the video a little"
        lines.append(f"  this would do: --profile {best.name}{remark}")
    else:
        nearest = min(needs, key=lambda need: fit_of(need, machine).total)
        if nearest is not least:
            lines.append(f"  no profile does; the nearest: {_says(nearest, machine)}")
        fit = fit_of(nearest, machine)
        if fit.device == fit.total < nearest.variable:
            lines.append(
                "  a smaller --height and --width need less; so does a schedule that makes fewer frames at once"
            )
    raise HardwareError("\n".join(lines))


def check_hardware(model: str, config: Config, profile: str, machine: Machine, attention: str = AUTO) -> Need:
    """How the model will be placed for a video on this machine, before anything of it is loaded.

    Args:
        model: a name or a folder.
        config: of the video.
        profile: the name of one of `PROFILES`, or "auto" for the first that is lossless and fits.
        machine: from `probe_machine`.
        attention: the name of a kernel, or "auto" for the best that the device has.

    Raises:
        InputError: there is no such profile for this model on this device, or the device has no such kernel.
        ModelError: the kernel or the package that stores is not installed, or the kernel cannot what the network asks.
        HardwareError: it does not fit; the message names the profile that would, or says how much is lacking.
    """
    blueprint = blueprint_of(model, machine.device.dtype, config.parts)
    _check_kernel(blueprint.transformer, attention, machine.device)
    store_linears(blueprint.transformer, "fp8" if config.fp8 else form_of(config.storage), torch.device("meta"))
    needs = needs_of(blueprint, work_of(blueprint, config), machine.device)
    package = back_end_of(config.storage)
    if not package:
        return choose_need(model, needs, machine, profile)
    try:
        stay = tuple(need for need in needs if need.placement.profile.blocks == "resident")
        return choose_need(model, stay, machine, profile)
    except HardwareError as error:
        hint = f"{package}'s blocks cannot be streamed; those of --storage {form_of(config.storage)} can"
        raise HardwareError(f"{error}\n  {hint}") from None


def _check_kernel(transformer: nn.Module, attention: str, device: Device) -> None:
    if attention == AUTO:
        return
    use_kernel(transformer, cast(Kernel, attention))
    if attention not in device.kernels:
        raise InputError(
            f"attention {attention!r}: {device.name} does not have it in {str(device.dtype).removeprefix('torch.')}; "
            f"there are {AUTO}, {', '.join(device.kernels)}"
        )


def seconds_of(work: Work, need: Need, rates: Rates, device: Device) -> Seconds:
    """What a section takes, about: blocks not compiled, and without the caches that skip steps."""
    transfer, staged = need.placement.transfer, need.placement.profile.host == "staged"
    steps = []
    for stage in work.stages:
        traffic = stage.fused_traffic if device.kind == "cuda" else stage.traffic
        steps.append(work.passes * rates.step(stage.operations, traffic, transfer, staged))
    denoising = sum(stage.steps * step for stage, step in zip(work.stages, steps, strict=True))
    return Seconds(steps[-1], denoising, need.decoding.operations / rates.decoding)


def _says(need: Need, machine: Machine) -> str:
    """What is needed and what is there, of that which is lacking most."""
    fit, device = fit_of(need, machine), machine.device
    where = "of memory" if device.unified else f"on {device.name}"
    most = max(
        (fit.device, f"needs {_gib(need.device)} {where}", usable(device)),
        (fit.pinned, f"locks {_gib(need.pinned)} of the host's memory", machine.pinnable),
        (fit.host, f"needs {_gib(need.host)} of the host's memory", max(0, machine.host_free - SPARE)),
        key=lambda each: each[0],
    )
    lacking, what, there = most
    return f"{need.name} {what}, {_gib(there)} can be used: {_gib(lacking)} too few"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
