"""`longtake doctor`: what this machine has, what each model would need of it, and how long a section would take."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from longtake.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from longtake.pipeline.checkup import Checkup
    from longtake.pipeline.machine import Machine
    from longtake.pipeline.needs import Need
    from longtake.pipeline.rates import Rates

__all__ = ["Options", "run"]

WIDTH = 80  # columns
MINUTE = 60.0  # seconds of video


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
    guidance: float | None = None
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
        _print_machine(machine, rates)
        if options.model is None:
            _print_models(found)
        else:
            _print_model(found[0], machine)
    return 0 if options.model is None or found[0].ready else 1


def _print_machine(machine: Machine, rates: Rates) -> None:
    from longtake.pipeline.machine import remarks_on

    device = machine.device
    types = " and ".join(name for name, has in (("bfloat16", device.bf16), ("fp8", device.fp8)) if has)
    capability = f", compute capability {device.capability}" if device.capability else ""
    others = [kernel for kernel in device.kernels if kernel != device.kernel]
    rows = {
        "device": f"{device.kind}: {device.name}{capability}",
        "memory": f"{_gib(device.total)}, of which {_gib(device.free)} are free",
        "computes": f"in {_type(machine)}" + (f"; {types} in hardware" if types else ""),
        "attention": f"{device.kernel}; there are also {', '.join(others)}",
        "host": f"{_gib(machine.host)}, of which {_gib(machine.host_free)} are free; {machine.cores} cores",
        "measured": f"{_rate(rates.linear)} in matrix products, {_rate(rates.attention)} in attention, "
        f"{rates.copy / 1e9:,.0f} GB/s of memory",
        "link": f"{device.link or 'unknown'}; {rates.link / 1e9:.1f} GB/s measured, "
        f"{_gib(machine.pinnable)} of the host can be pinned",
        "hub": f"{machine.hub}: {_gb(machine.hub_free)} free",
        "videos": f"{machine.folder.absolute()}: {_gb(machine.folder_free)} free",
        "software": f"PyTorch {machine.torch}{f', CUDA {machine.cuda}' if machine.cuda else ''}, {machine.system}",
    }
    if device.unified:
        del rows["link"]
        if device.kind == "cpu":
            del rows["memory"]  # it is the host's
    _print_rows(rows)
    for remark in remarks_on(machine):
        print(textwrap.fill(remark, WIDTH, initial_indent="! ", subsequent_indent="  ", break_long_words=False))
    print()


def _print_models(found: list[Checkup]) -> None:
    from longtake.backbones import MODELS

    table = _table("", "model", "to fetch", "profile", "device", "host", "a section")
    for one in found:
        fetch = _gb(one.download) if one.download else "here"
        name = one.name if MODELS[one.name].use == "ready" else f"({one.name})"
        need = one.chosen or one.nearest
        mark, seconds = ("-", "") if one.chosen is None else ("+", _time(one.seconds[need].section))
        table.add_row(mark, name, fetch, need.name, _number(need.device), _number(need.host), seconds)
    _print_table(table)
    lines = (
        "+ it fits; - it does not, and what lacks least is shown. (...) is a base: it is to be trained before it makes "
        "long videos. Device and host: memory in GiB, the most that is held at any time; all figures are estimates.",
        "One of them, with all ways of placing it:  longtake doctor --model NAME",
    )
    for line in lines:
        print(textwrap.fill(line, WIDTH))


def _print_model(one: Checkup, machine: Machine) -> None:
    work, tokens, fps = one.work, one.work.tokens, one.blueprint.settings.fps
    read = {"noisy": tokens.noisy, "of history": tokens.history, "of text": tokens.text, "of the image": tokens.image}
    parts = ", ".join(f"{count:,} {what}" for what, count in read.items() if count)
    across = "" if tokens.joint else " (text is looked at across)"
    passes = "" if work.passes == 1 else f", {work.passes} passes each"
    each = (work.operations.linear + work.operations.attention) / 1e12
    _print_rows(
        {
            "model": one.name,
            "size": f"{work.height} x {work.width} (height x width)",
            "section": f"{work.images} images, {work.images / fps:.2g} s of video; {one.schedule}",
            "tokens": f"{tokens.sequence:,}: {parts}{across}",
            "steps": f"{work.steps}{passes}, {each:,.3g} TFLOP a pass",
            "weights": "all here" if not one.download else f"{_gb(one.download)} to fetch to {machine.hub}",
        }
    )
    print()
    table = _table("", "profile", "codec", "device", "host", "pinned", "a section", "lacks")
    for need in _ways(one):
        mark = ">" if need is one.chosen else ""
        codec = "in tiles" if need.tiled else "whole"
        row = (_number(need.device), _number(need.host), _number(need.pinned), _time(one.seconds[need].section))
        table.add_row(mark, need.name, codec, *row, _lacks(one, need, machine))
    _print_table(table)
    print("Memory in GiB, the most that is held at any time; all figures are estimates.\n")
    for line in _verdict(one):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _verdict(one: Checkup) -> list[str]:
    need = one.chosen
    if need is None:
        return [*one.refusal.splitlines(), *one.remedies]
    seconds = one.seconds[need]
    sections = max(1, round(MINUTE * one.blueprint.settings.fps / one.work.images))
    told = [f"> {need.name} is how it would be placed."]
    if not need.lossless:
        told.append("Its matrices are rounded to fp8: the video changes a little.")
    if need.tiled:
        told.append("The codec decodes in tiles of 256 pixels, cross-faded: their seams can show in flat areas.")
    if need.encoders == "host":
        told.append("Prompts are encoded by the CPU, once a video: the device is too small for their network.")
    told.append(
        f"A section takes about {_time(seconds.section)}: {_time(seconds.step)} a step, {_time(seconds.decoding)} to "
        f"decode. A minute of video is {sections} sections, about {_time(sections * seconds.section)}, and "
        f"{_gb(sections * one.work.disk)} of disk."
    )
    return [*told, *one.remedies]


def _ways(one: Checkup) -> list[Need]:
    """Of each profile the way that fits, or the one that lacks least."""
    best: dict[str, Need] = {}
    for need in one.needs:
        known = best.get(need.name)
        if known is None or one.fits[need].total < one.fits[known].total:
            best[need.name] = need
    return list(best.values())


def _lacks(one: Checkup, need: Need, machine: Machine) -> str:
    fit = one.fits[need]
    if machine.device.unified:
        return _number(fit.device) if fit.device else ""
    lacking = {"device": fit.device, "host": fit.host, "pinned": fit.pinned}
    return ", ".join(f"{_number(size)} {what}" for what, size in lacking.items() if size)


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
                "tiled": need.tiled,
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


def _print_rows(rows: dict[str, str]) -> None:
    for name, text in rows.items():
        indent = " " * 11
        print(
            textwrap.fill(text, WIDTH, initial_indent=f"{name:<11}", subsequent_indent=indent, break_on_hyphens=False)
        )


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        number = column in ("to fetch", "device", "host", "pinned", "a section")
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number or column in ("model", "profile")
        )
    return table


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console(width=WIDTH, highlight=False).print(table)
    print()


def _type(machine: Machine) -> str:
    return str(machine.device.dtype).removeprefix("torch.")


def _number(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _gb(size: int) -> str:
    from longtake.backbones import said_bytes

    return said_bytes(size)


def _rate(operations: float) -> str:
    return f"{operations / 1e12:,.0f} TFLOP/s" if operations >= 1e13 else f"{operations / 1e9:,.0f} GFLOP/s"


def _time(seconds: float) -> str:
    """A time as people say it.

    >>> _time(0.42), _time(12.3), _time(95), _time(5400), _time(200000)
    ('0.42 s', '12 s', '95 s', '90 min', '56 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 * 60 else f"{seconds / 3600:.0f} h"
