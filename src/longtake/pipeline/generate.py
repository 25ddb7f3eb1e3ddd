"""The engine: a plan, section by section, as events."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.backbones import Backbone
from longtake.backbones.backbone import AnyCodec
from longtake.backbones.company import Company
from longtake.backbones.families import Conditioning, beside
from longtake.backbones.loading import load_any_codec
from longtake.backbones.parts import manifest_of
from longtake.backbones.prompts import Words
from longtake.backbones.reading import Draft, Reading, Told, read, velocity_of
from longtake.backbones.registry import locate, present
from longtake.backbones.running import Demand, Runtime
from longtake.errors import HardwareError, InputError, LongtakeError, ModelError, NumericsError, OutputError
from longtake.flow import NOISES, SOLVERS, Velocity, climb, renoising, sigmas
from longtake.media import load_image, write_video
from longtake.packing import History, Importance
from longtake.pipeline.decoding import Decoded, decoder_for
from longtake.pipeline.events import Event, Finished, Planned, SectionDone, Step
from longtake.pipeline.known import known_of
from longtake.pipeline.meter import Meter, measure
from longtake.pipeline.preflight import Preflight, check_output, find_device, fingerprint_of, fitted, preflight
from longtake.pipeline.request import Config, Extension, Request
from longtake.pipeline.run import Run, frames_of
from longtake.pipeline.shelf import Shelf
from longtake.pipeline.source import take_in
from longtake.plan import Plan, Section

__all__ = ["begin", "extend", "generate", "make", "reroll"]

Supply = Backbone | Shelf | None  # a model that is set up by the caller, where to look for one, or nothing
DEFAULT = Runtime()


def generate(
    request: Request,
    output: Path,
    folder: Path,
    backbone: Supply = None,
    runtime: Runtime = DEFAULT,
    checked: Preflight | None = None,
    company: Company | None = None,
) -> Iterator[Event]:
    """Makes a video into `output`; everything on the way is kept in the run folder `folder`.

    The request's model is loaded and run as `runtime` says, unless it lies on a shelf or is given as `backbone`, set up
    by the caller. `checked` is what `preflight` said of the same, if it was asked. A `company` computes along.

    Raises:
        LongtakeError: the request cannot be served; nothing is written then.
    """
    target = find_device(runtime.device)
    checked, begun = checked or preflight(request, output, folder), folder.exists()
    run = begin(request, output, folder, checked, lambda: codec_of(checked.config, target))
    yield from _or_nothing(folder, begun, make(run, output, backbone, runtime, company))


def extend(
    request: Extension,
    output: Path,
    folder: Path,
    backbone: Supply = None,
    runtime: Runtime = DEFAULT,
    checked: Preflight | None = None,
    company: Company | None = None,
) -> Iterator[Event]:
    """Makes a video longer: what comes after it or before it, with all of it as history. `output` holds both in order.

    The video is taken into the run folder and encoded there before the first event; then its file may go. `checked` is
    what `preflight` said of the same, if it was asked: a long video takes a while to read.

    Raises:
        LongtakeError: the request cannot be served; nothing is written then.
    """
    target = find_device(runtime.device)
    checked, begun = checked or preflight(request, output, folder), folder.exists()
    given = backbone.codec if isinstance(backbone, Backbone) else None
    run = begin(request, output, folder, checked, lambda: given or codec_of(checked.config, target))
    yield from _or_nothing(folder, begun, make(run, output, backbone, runtime, company))


def begin(
    request: Request | Extension,
    output: Path,
    folder: Path,
    checked: Preflight,
    codec: Callable[[], AnyCodec],
    noted: Request | Extension | None = None,
) -> Run:
    """The run of a request, with nothing made yet; `make` does the rest.

    Args:
        request: as it was checked.
        output: where the video will go.
        folder: of the run.
        checked: what `preflight` said.
        codec: gives what a video that is to be made longer is encoded with.
        noted: what run and video say was asked, if it is not `request`: such as one whose files have other names.

    Raises:
        LongtakeError: it cannot begin; nothing is written then.
    """
    config = checked.config
    loras = dict.fromkeys(lora.file for lora in config.loras)
    manifest = manifest_of(present(locate(config.model, config.parts)), loras)
    if noted:
        manifest = manifest.unplaced(noted.model)
    noted = noted or request
    if isinstance(request, Request):
        image = fitted(load_image(request.image), config)
        keys = {key.frame: fitted(load_image(key.image), config) for key in checked.script.keys}
        return Run.create(folder, noted, config, image, output, keys, manifest)
    assert checked.film
    begun = folder.exists()
    try:
        start = take_in(checked.film, config, folder, codec())
        return Run.create(folder, noted, config, start, output, manifest=manifest)
    except LongtakeError:
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _or_nothing(folder: Path, begun: bool, events: Iterator[Event]) -> Iterator[Event]:
    """The events of a new run; where it is refused before the first of them, its folder is as it was."""
    try:
        first = next(events)
    except (HardwareError, InputError, ModelError):
        shutil.rmtree(folder, ignore_errors=True)
        if begun:
            folder.mkdir()
        raise
    yield first
    yield from events


def reroll(run: Run, section: int, seed: int) -> Run:
    """The run with everything from the section made as `section` on to be made again, from another seed.

    Sections before it stay, bit for bit.

    Raises:
        RunError: there is no such section, or another process works on this run.
        ModelError: the model's files changed since the run began; nothing is forgotten then.
    """
    _check_model(run)
    return run.forget_from(section, {s.index: seed for s in run.config.plan().sections[section:]})


@torch.inference_mode()
def make(
    run: Run,
    output: Path,
    backbone: Supply = None,
    runtime: Runtime = DEFAULT,
    company: Company | None = None,
) -> Iterator[Event]:
    """Makes what a run lacks, from wherever it was stopped. Model, machine and company are as for `generate`.

    Raises:
        RunError: another process works on this run.
        ModelError: the model's files changed since the run began.
        NumericsError: a section's latents are not finite; the sections before it are kept.
        OutputError: the disk is full; the sections before are kept.
    """
    config = run.config
    check_output(output)
    with run.lock(), _hinted(run):
        _check_model(run)
        plan = config.plan()
        places = range(len(plan.sections))
        finished = sum(run.has_section(s.index) for s in plan.sections)
        run.rebuild_video()
        if finished == len(plan.sections) and all(map(run.has_segment, places)):
            yield Planned(plan, config.steps, finished, run.folder, run.video, (), run.read_meters())
        else:
            with _ready(run, plan, backbone, runtime, company or Company(runtime.device)) as (ready, words):
                remarks = ready.remarks
                yield Planned(
                    plan, config.steps, finished, run.folder, run.video, words.unread, run.read_meters(), remarks
                )
                yield from _sections(run, plan, ready, words.told)
        write_video(run.pieces, output, comment_of(run))
    yield Finished(output, config.images)


def comment_of(run: Run) -> str:
    """What a video says of itself: the request that gives it again."""
    return run.request.model_copy(update={"seeds": run.config.seeds}).model_dump_json()


@contextmanager
def _ready(
    run: Run, plan: Plan, backbone: Supply, runtime: Runtime, company: Company
) -> Iterator[tuple[Backbone, Words]]:
    """The backbone as the run wants it, and what it is told. Encoders have read, and left, before the network comes."""
    config, tiled = run.config, False
    placed = not isinstance(backbone, Backbone)
    if isinstance(backbone, Backbone):
        device = backbone.device
    else:
        device = find_device(runtime.device)
        taken = (backbone or Shelf(company.load)).take(config, device, runtime, run.folder)
        backbone, runtime, tiled = taken.backbone, taken.runtime, taken.tiled
        del taken
    told = {"compat": config.compat, "distilled_guidance": config.distilled_guidance}
    backbone = replace(backbone, settings=backbone.settings.model_copy(update=told))
    guided = config.second_guidance > 1.0 or any(config.guidance_of(section) > 1.0 for section in plan.sections)
    prompts = list(dict.fromkeys((*config.prompts, *((config.negative_prompt,) if guided else ()))))
    words = backbone.prompts.tell(prompts, load_image(run.folder / "start.png"))
    if not placed and config.cache == "none":
        yield backbone, words
        return
    height, width = (side // backbone.codec.spatial_ratio for side in (config.height, config.width))
    tokens = plan.schedule.section_tokens(height, width) + max(s.context_tokens(height, width) for s in plan.sections)
    demand = Demand(
        tokens=tokens + max(map(beside, words.told.values())),
        levels=sigmas(config.steps, config.shift)[:-1],
        told=tuple(words.told.values()),
        cache=config.cache,
        tiled=tiled,
    )
    if not placed:
        runtime = replace(runtime, profile="resident")
    with company.running(backbone, device, runtime, demand) as backbone:
        yield backbone, words


def codec_of(config: Config, device: torch.device) -> AnyCodec:
    """The codec of a video's model alone.

    Raises:
        ModelError: it cannot be loaded.
    """
    return load_any_codec(config.model, device, config.parts)


def _sections(run: Run, plan: Plan, backbone: Backbone, told: Mapping[str, Conditioning]) -> Iterator[Event]:
    """Makes, decodes and encodes each section that the run lacks, and reads the others."""
    config = run.config
    told = {prompt: backbone.bring(each) for prompt, each in told.items()}
    rounding = backbone.discretization(config.codebook, config.discretize_images)
    history = History(config.missing, rounding)
    for known in known_of(run, plan, backbone):
        history.remember(known.frames, known.latents, exact=True)
    decoder = decoder_for(run, plan, backbone.codec)
    reading = _reading(config)
    last_read = {f: s.index for s in plan.sections for f in s.seen}
    by_place, start_image = plan.by_place(), load_image(run.folder / "start.png")
    images = sum(piece.images for piece in run.pieces if piece.path.exists())
    for section in plan.sections:
        began = time.monotonic()
        if not run.has_section(section.index):
            run.write_section(section, (yield from _solve(run, plan, section, history, backbone, told)))
        latents = run.read_section(section).to(backbone.device)  # as whoever goes on reads it, to the bit
        history.remember(section.frames, latents)
        meters = list[Meter]()
        for decoded in decoder.add(section, latents):
            meters.append(_meter(run, by_place, decoded, start_image))
            run.write_meter(meters[-1])  # before the images: where these are on disk, nothing is decoded again
            run.write_images(decoded.place, decoded.images)
            images += len(decoded.images)
        if reading.forgets:
            history.forget([f for f in history.known if last_read.get(f, -1) <= section.index and f != 0])
        yield SectionDone(section, latents, images, time.monotonic() - began, tuple(meters))


def _meter(run: Run, by_place: Mapping[int, Section], decoded: Decoded, start_image: np.ndarray) -> Meter:
    made = by_place[decoded.place].frames
    latents = frames_of(run, by_place, range(max(0, made[0] - 1), made[-1] + 1))
    if made[0] == 0:  # nothing is before it: the second frame is before the first one, as in a mirror
        latents = torch.cat([latents[:, :, 1:2], latents], dim=2)
    return measure(decoded.place, decoded.images, latents, start_image, run.read_start())


def _check_model(run: Run) -> None:
    config = run.config
    if fingerprint_of(config.model, config.parts, config.loras) != config.fingerprint:
        raise ModelError(f"{run.config.model}: the model's files changed since this run began; start a new run")


@contextmanager
def _hinted(run: Run) -> Iterator[None]:
    """Says how to go on to whom a full disk stops."""
    try:
        yield
    except OutputError as error:
        hint = f"what is finished is kept; when there is room, go on with: longtake resume {run.folder}"
        raise OutputError(f"{error}\n  {hint}") from error


def _reading(config: Config) -> Reading:
    c = config
    importance = Importance(c.importance, c.importance_time, c.importance_estimate, c.importance_compare)
    return Reading(importance, c.history_sigma, c.history_guidance, c.history_without)


def _solve(
    run: Run, plan: Plan, section: Section, history: History, backbone: Backbone, told: Mapping[str, Conditioning]
) -> Iterator[Event]:
    """The latents of one section, with a `Step` for each step; returns them."""
    config = run.config
    _, c, h, w = history.shape
    seed = config.seed_of(section)
    x = NOISES[config.noise]((1, c, len(section.frames), h, w), seed, section.index, backbone.device)
    draft = Draft(x, told[config.prompt_of(section)], [seed])
    backbone.begin_section()

    def velocity_by(network: Backbone, guidance: float) -> Velocity:
        context = read(network, plan, section, history, _reading(config), draft)
        return velocity_of(network, context, _told(config, section, told, guidance), config.history_guidance)

    velocity = velocity_by(backbone, config.guidance_of(section))
    if backbone.second is not None:
        boundary = backbone.settings.boundary
        velocity = _split(boundary, velocity, velocity_by(backbone.second, config.second_guidance))
    steps, clean = config.steps_of(section), x

    def watched(x: Tensor, sigma: float) -> Tensor:
        nonlocal clean
        predicted = velocity(x, sigma)
        clean = x - sigma * predicted
        return predicted

    for number, x in enumerate(_toward_clean(config, section, watched, x), start=1):
        yield Step(section, number, x, steps, clean if clean.shape == x.shape else x)
    if not torch.isfinite(x).all():
        raise NumericsError(
            f"section {section.index} (frames {section.frames[0]} to {section.frames[-1]}) is not finite; "
            f"the sections before it are kept.\n"
            f"  another seed may do: longtake resume {run.folder} --from-section {section.index} --seed SEED"
        )
    return x


def _toward_clean(config: Config, section: Section, velocity: Velocity, x: Tensor) -> Iterator[Tensor]:
    """The noise of a section on its way to what is clean, at its own size or from coarse to fine."""
    pyramid = config.pyramid_of(section)
    if pyramid is None:
        return SOLVERS[config.solver](velocity, x, sigmas(config.steps, config.shift))
    return climb(velocity, x, pyramid, renoising(pyramid, section.index, [config.seed_of(section)], x))


def _split(boundary: float, noisy: Velocity, calm: Velocity) -> Velocity:
    """One network's velocity down to a noise level, another's below it."""
    return lambda x, sigma: noisy(x, sigma) if sigma >= boundary else calm(x, sigma)


def _told(config: Config, section: Section, told: Mapping[str, Conditioning], guidance: float) -> Told:
    """The section's prompt, the negative one if guidance leads away from it."""
    positive = told[config.prompt_of(section)]
    if guidance == 1.0:
        return Told(positive)
    guide = config.sampling.guide if config.sampling else "plain"
    return Told(positive, told[config.negative_prompt], guidance, config.guidance_rescale, guide)
