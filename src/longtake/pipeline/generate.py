"""The engine: a plan, section by section, as events."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones import Backbone, load_backbone
from longtake.backbones.pixels import to_pixels
from longtake.backbones.reading import Draft, Reading, Told, read, velocity_of
from longtake.errors import LongtakeError, ModelError, NumericsError, OutputError
from longtake.flow import SOLVERS, noise, sigmas
from longtake.media import fit, load_image, write_video
from longtake.packing import History, Importance
from longtake.pipeline.decoding import Decoded, decoder_for
from longtake.pipeline.events import Event, Finished, Planned, SectionDone, Step
from longtake.pipeline.meter import Meter, measure
from longtake.pipeline.preflight import Preflight, check_output, find_device, fingerprint_of, preflight
from longtake.pipeline.request import Config, Extension, Request
from longtake.pipeline.run import Run, frames_of
from longtake.pipeline.source import take_in
from longtake.plan import Plan, Section

__all__ = ["extend", "generate", "make", "reroll"]


def generate(
    request: Request,
    output: Path,
    folder: Path,
    backbone: Backbone | None = None,
    device: str = "auto",
    checked: Preflight | None = None,
) -> Iterator[Event]:
    """Makes a video into `output`; everything on the way is kept in the run folder `folder`.

    The request's model is loaded onto `device`, unless it is given as `backbone`. `checked` is what `preflight` said of
    the same, if it was asked.

    Raises:
        LongtakeError: the request cannot be served; nothing is written then.
    """
    find_device(device)
    checked = checked or preflight(request, output, folder)
    size = checked.config.height, checked.config.width
    image = fit(load_image(request.image), *size)
    keys = {key.frame: fit(load_image(key.image), *size) for key in checked.script.keys}
    run = Run.create(folder, request, checked.config, image, output, keys)
    yield from make(run, output, backbone, device)


def extend(
    request: Extension,
    output: Path,
    folder: Path,
    backbone: Backbone | None = None,
    device: str = "auto",
    checked: Preflight | None = None,
) -> Iterator[Event]:
    """Makes a video longer: what comes after it or before it, with all of it as history. `output` holds both in order.

    The video is taken into the run folder and encoded there before the first event; then its file may go. `checked` is
    what `preflight` said of the same, if it was asked: a long video takes a while to read.

    Raises:
        LongtakeError: the request cannot be served; nothing is written then.
    """
    target = find_device(device)
    checked = checked or preflight(request, output, folder)
    assert checked.film
    backbone, begun = backbone or load_backbone(request.model, target), folder.exists()
    try:
        start = take_in(checked.film, checked.config, folder, backbone.codec)
        run = Run.create(folder, request, checked.config, start, output)
    except LongtakeError:
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    yield from make(run, output, backbone, device)


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
def make(run: Run, output: Path, backbone: Backbone | None = None, device: str = "auto") -> Iterator[Event]:
    """Makes what a run lacks, from wherever it was stopped.

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
            backbone = backbone or load_backbone(config.model, find_device(device))
            unread = tuple(dict.fromkeys(words for prompt in config.prompts for words in _unread(backbone, prompt)))
            yield Planned(plan, config.steps, finished, run.folder, run.video, unread, run.read_meters())
            yield from _sections(run, plan, backbone)
        comment = run.request.model_copy(update={"seeds": config.seeds}).model_dump_json()
        write_video(run.pieces, output, comment)
    yield Finished(output, config.images)


def _sections(run: Run, plan: Plan, backbone: Backbone) -> Iterator[Event]:
    """Makes, decodes and encodes each section that the run lacks, and reads the others."""
    config = run.config
    rounding = backbone.discretization(config.codebook, config.discretize_images)
    history = History(config.missing, rounding)
    for frames, latents in _given(run, plan, backbone):
        history.remember(frames, latents, exact=True)
    decoder = decoder_for(run, plan, backbone.codec)
    reading = _reading(config)
    last_read = {f: s.index for s in plan.sections for f in s.seen}
    texts = _texts(config, plan, backbone)
    by_place, start_image = plan.by_place(), load_image(run.folder / "start.png")
    images = sum(piece.images for piece in run.pieces if piece.path.exists())
    for section in plan.sections:
        began = time.monotonic()
        if not run.has_section(section.index):
            run.write_section(section, (yield from _solve(run, plan, section, history, backbone, texts)))
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
    if fingerprint_of(run.config.model) != run.config.fingerprint:
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
    run: Run, plan: Plan, section: Section, history: History, backbone: Backbone, texts: Mapping[str, Tensor]
) -> Iterator[Event]:
    """The latents of one section, with a `Step` for each step; returns them."""
    config = run.config
    _, c, h, w = history.shape
    seed = config.seed_of(section)
    x = noise((1, c, len(section.frames), h, w), seed, section.index, backbone.device)
    told = _told(config, section, texts)
    context = read(backbone, plan, section, history, _reading(config), Draft(x, told.positive, [seed]))
    velocity = velocity_of(backbone, context, told, config.history_guidance)
    for number, x in enumerate(SOLVERS[config.solver](velocity, x, sigmas(config.steps, config.shift)), start=1):
        yield Step(section, number, x)
    if not torch.isfinite(x).all():
        raise NumericsError(
            f"section {section.index} (frames {section.frames[0]} to {section.frames[-1]}) is not finite; "
            f"the sections before it are kept.\n"
            f"  another seed may do: longtake resume {run.folder} --from-section {section.index} --seed SEED"
        )
    return x


def _texts(config: Config, plan: Plan, backbone: Backbone) -> dict[str, Tensor]:
    """Each prompt that a section is told or led away from, encoded once."""
    guided = any(config.guidance_of(section) > 1.0 for section in plan.sections)
    prompts = {*config.prompts, *([config.negative_prompt] if guided else [])}
    return {prompt: backbone.prompts.encode([prompt]) for prompt in prompts}


def _told(config: Config, section: Section, texts: Mapping[str, Tensor]) -> Told:
    """The section's prompt, the negative one if guidance leads away from it."""
    positive, guidance = texts[config.prompt_of(section)], config.guidance_of(section)
    if guidance == 1.0:
        return Told(positive)
    return Told(positive, texts[config.negative_prompt], guidance, config.guidance_rescale)


def _unread(backbone: Backbone, prompt: str) -> tuple[str, ...]:
    report = backbone.prompts.report(prompt)
    return (*report.unknown, *([report.lost] if report.lost else []))


def _given(run: Run, plan: Plan, backbone: Backbone) -> list[tuple[range, Tensor]]:
    """Frames that are known before the first section, with their latents."""
    source = run.config.source
    if source is None:
        return [(range(frame, frame + 1), latents) for frame, latents in _pictured(run, backbone).items()]
    own = range(int(source.side == "before"), source.frames)  # without the first image alone, where others lead to it
    return [(around, run.read_source(own).to(backbone.device)) for around in plan.known]


def _pictured(run: Run, backbone: Backbone) -> dict[int, Tensor]:
    """Latents of the start image and of key images by frame; each picture is encoded once in the life of a run."""
    pictures = {0: load_image(run.folder / "start.png")}
    if not run.has_start():
        run.write_start(_encoded(pictures[0], backbone))
    latents = {0: run.read_start()}
    for frame in run.config.given:
        pictures[frame] = load_image(run.key_path(frame).with_suffix(".png"))
        if not run.has_key(frame):
            same = next((other for other in latents if np.array_equal(pictures[other], pictures[frame])), None)
            run.write_key(frame, _encoded(pictures[frame], backbone) if same is None else latents[same])
        latents[frame] = run.read_key(frame)
    return {frame: known.to(backbone.device) for frame, known in latents.items()}


def _encoded(picture: np.ndarray, backbone: Backbone) -> Float[Tensor, "1 c 1 h w"]:
    return backbone.codec.encode(to_pixels(torch.from_numpy(picture)[None, None], backbone.device))
