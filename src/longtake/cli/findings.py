"""What `longtake doctor` found, as text of 80 columns."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from longtake.pipeline.checkup import Checkup
    from longtake.pipeline.machine import Machine
    from longtake.pipeline.needs import Need
    from longtake.pipeline.rates import Rates

__all__ = ["draw_machine", "draw_model", "draw_models"]

WIDTH = 80  # columns
MINUTE = 60.0  # seconds of video


def draw_machine(machine: Machine, rates: Rates) -> str:
    """What the machine has, a line for each, and what should be known of it."""
    from longtake.pipeline.machine import remarks_on

    device = machine.device
    types = " and ".join(name for name, has in (("bfloat16", device.bf16), ("fp8", device.fp8)) if has)
    capability = f", compute capability {device.capability}" if device.capability else ""
    others = [kernel for kernel in device.kernels if kernel != device.kernel]
    rows = {
        "device": f"{device.kind}: {device.name}{capability}",
        "memory": f"{_gib(device.total)}, of which {_gib(device.free)} are free",
        "computes": f"in {str(device.dtype).removeprefix('torch.')}" + (f"; {types} in hardware" if types else ""),
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
    return "\n".join([_rows(rows), *(_filled(f"! {remark}") for remark in remarks_on(machine))])


def draw_models(found: list[Checkup]) -> str:
    """A model a line: whether it fits, and how."""
    from longtake.backbones import MODELS

    table = _table("", "model", "to fetch", "profile", "device", "host", "a section")
    for one in found:
        fetch = _gb(one.download) if one.download else "here"
        name = one.name if MODELS[one.name].use == "ready" else f"({one.name})"
        need = one.chosen or one.nearest
        mark, seconds = ("-", "") if one.chosen is None else ("+", _time(one.seconds[need].section))
        table.add_row(mark, name, fetch, need.name, _number(need.device), _number(need.host), seconds)
    lines = (
        "+ it fits; - it does not, and what lacks least is shown. (...) is a base: it is to be trained before it makes "
        "long videos. Device and host: memory in GiB, the most that is held at any time; all figures are estimates.",
        "One of them, with all ways of placing it:  longtake doctor --model NAME",
    )
    return "\n".join([_drawn(table), "", *(textwrap.fill(line, WIDTH) for line in lines)])


def draw_model(one: Checkup, machine: Machine) -> str:
    """A model, what making a section with it is, and every way of placing it."""
    work, tokens, fps = one.work, one.work.tokens, one.blueprint.settings.fps
    read = {"noisy": tokens.noisy, "of history": tokens.history, "of text": tokens.text, "of the image": tokens.image}
    parts = ", ".join(f"{count:,} {what}" for what, count in read.items() if count)
    across = "" if tokens.joint else " (text is looked at across)"
    passes = "" if work.passes == 1 else f", {work.passes} passes each"
    each = [(stage.operations.linear + stage.operations.attention) / 1e12 for stage in work.stages]
    counts = " + ".join(str(stage.steps) for stage in work.stages)
    sizes = " from coarse to fine" if len(each) > 1 else ""
    rows = {
        "model": one.name if not one.blueprint.remark else f"{one.name}: {one.blueprint.remark}",
        "size": f"{work.size.height} x {work.size.width} (height x width){_sizes(one)}",
        "section": f"{work.images} images, {work.images / fps:.2g} s of video; {one.schedule}",
        "tokens": f"{tokens.sequence:,}: {parts}{across}",
        "steps": f"{counts}{sizes}{passes}, {', '.join(f'{one:,.3g}' for one in each)} TFLOP a pass",
        "weights": "all here" if not one.download else f"{_gb(one.download)} to fetch to {machine.hub}",
    }
    table = _table("", "profile", "codec", "device", "host", "pinned", "a section", "lacks")
    for need in _ways(one):
        mark = ">" if need is one.chosen else ""
        row = (_number(need.device), _number(need.host), _number(need.pinned), _time(one.seconds[need].section))
        table.add_row(mark, need.name, need.tiling, *row, _lacks(one, need, machine))
    note = "Memory in GiB, the most that is held at any time; all figures are estimates."
    return "\n".join([_rows(rows), "", _drawn(table), "", note, "", *map(_filled, _verdict(one))])


def _sizes(one: Checkup) -> str:
    """How the size stands to those that the model is published for."""
    from longtake.backbones import MODELS

    buckets = MODELS[one.name].buckets if one.name in MODELS else ()
    if not buckets:
        return ""
    if one.work.size in buckets:
        return f", one of {len(buckets)} that it was made for" if len(buckets) > 1 else ", what it was made for"
    known = ", ".join(f"{bucket.height} x {bucket.width}" for bucket in buckets)
    return f"; it was made for {known}"


def _verdict(one: Checkup) -> list[str]:
    need = one.chosen
    if need is None:
        return [*one.refusal.splitlines(), *one.remedies]
    seconds = one.seconds[need]
    sections = max(1, round(MINUTE * one.blueprint.settings.fps / one.work.images))
    told = [f"> {need.name} is how it would be placed."]
    if not need.lossless:
        told.append("Its matrices are rounded to fp8: the video changes a little.")
    if need.tiling != "whole":
        told.append(f"The codec decodes pictures in {need.tiling}, cross-faded: seams can show in flat areas.")
    if need.encoders == "host":
        told.append("What reads prompts is larger than the device, and visits it layer by layer, once a video.")
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
    what = max(lacking, key=lambda name: lacking[name])
    return f"{_number(lacking[what])} {what}" if lacking[what] else ""


def _rows(rows: dict[str, str]) -> str:
    filled = (
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11, break_on_hyphens=False)
        for name, text in rows.items()
    )
    return "\n".join(filled)


def _filled(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        number = column in ("to fetch", "device", "host", "pinned", "a section")
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number or column in ("model", "profile")
        )
    return table


def _drawn(table: Table) -> str:
    from rich.console import Console

    page = io.StringIO()
    Console(width=WIDTH, file=page, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


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
