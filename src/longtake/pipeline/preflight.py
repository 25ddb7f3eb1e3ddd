"""Everything that can be refused before any work starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch

from longtake.backbones import BackboneSettings, Outline, inspect_model
from longtake.backbones.caches import CACHES
from longtake.backbones.codebooks import check_sizes
from longtake.backbones.hunyuan.buckets import Bucket, find_bucket, fit_bucket
from longtake.backbones.loading import foresee
from longtake.backbones.lora import Lora, LoraReport
from longtake.backbones.parts import FoundModel, files_beside
from longtake.backbones.placement import back_end_of
from longtake.backbones.registry import locate, present
from longtake.errors import InputError, ModelError, OutputError, PlanError
from longtake.media import Film, fit, load_image, open_film
from longtake.pipeline.request import Config, Extension, Request, resolve, script_of
from longtake.pipeline.run import Run, check_new
from longtake.pipeline.source import check_long_enough, source_of
from longtake.plan import KeyImage, Script

__all__ = ["Preflight", "check_output", "find_device", "fingerprint_of", "fitted", "preflight"]

SAMPLES = 256  # of each weight file enter the fingerprint; up to 16 MiB that is all of it
SAMPLE = 1 << 16  # bytes
NOTHING = MappingProxyType[Any, Any]({})
RESERVE = 32 << 20  # bytes that stay free on the disk
KEPT = 0.75  # of a key image, at least: the rest is cropped


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a request comes to."""

    config: Config
    sections: int
    images: int
    seconds: float  # of video
    section_tokens: int
    context_tokens: int  # of the section that sees most
    disk_bytes: int  # that the run folder will need, about
    script: Script  # what each section is told
    film: Film | None = None  # the video that is made longer, if one is
    loras: tuple[LoraReport, ...] = ()  # what will become of them, as far as their files' headers say


def fingerprint_of(model: str, parts: Mapping[str, Path] = NOTHING, loras: Iterable[Lora] = ()) -> str:
    """A digest of a model's configs and weights and of its LoRAs: sizes, and samples from the whole length of files.

    Raises:
        ModelError: there is no such model, or a part of it is not here.
    """
    files = [
        *_files(present(locate(model, parts))),
        *((str(path), path) for path in sorted({lora.file for lora in loras})),
    ]
    try:
        stats = [path.stat() for _, path in files]
        return _sampled(tuple(files), tuple((stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats))
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read ({error.strerror})") from error


@lru_cache(maxsize=8)
def _sampled(files: tuple[tuple[str, Path], ...], stamps: tuple[tuple[int, int, int], ...]) -> str:
    """The digest of files as long as they stay as they are: a server asks for it with every request."""
    digest = hashlib.sha256()
    for (name, path), (size, *_) in zip(files, stamps, strict=True):
        digest.update(f"{name} {size} ".encode())
        with open(path, "rb") as file:
            for at in range(0, size, max(SAMPLE, size // SAMPLES)):
                file.seek(at)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:32]


def _files(found: FoundModel) -> Iterator[tuple[str, Path]]:
    """The files that make a model, with names that do not depend on where it lies."""
    for one in found.parts:
        for path in one.files:
            yield f"{one.part.name}/{path.name}", path
    for path in files_beside(found):
        yield path.name, path


def fitted(image: np.ndarray, config: Config) -> np.ndarray:
    """The uint8 picture "H W 3" at the size of the video, cropped at its center."""
    if config.compat == "official":
        return fit_bucket(image, Bucket(config.height, config.width))
    return fit(image, config.height, config.width)


def preflight(request: Request | Extension, output: Path, folder: Path) -> Preflight:
    """Checks images, model, LoRAs, schedule, order, length, size, output, run folder and disk; loads nothing large.

    A video that is to be made longer is read to its end.

    Raises:
        LongtakeError: what cannot be, and what would do.
    """
    model = inspect_model(request.model, request.parts)
    _check_ways(request, model)
    spatial, patch = model.spatial_ratio, model.patch
    grid = spatial * patch.h, spatial * patch.w
    ratio, film, source = model.temporal_ratio, None, None
    if isinstance(request, Extension):
        if output.resolve() == request.video.resolve():
            raise OutputError(f"{output} is the video that is to be made longer; name another file")
        film = open_film(request.video)
        source = source_of(film, request.side, model.settings.fps, ratio)
    loras = foresee(request.model, request.parts, request.loras)
    model = replace(model, settings=_sized(request, model, film))
    fingerprint = fingerprint_of(request.model, request.parts, request.loras)
    config = resolve(request, model.settings, grid, ratio, fingerprint, source)
    script = script_of(request, config)
    if config.manner == "anchored" and (config.order != "vanilla" or config.given):
        raise PlanError(f"{request.model} makes videos forward from a start image: order vanilla, without key images")
    if isinstance(request, Request):
        _check_images(request.image, script.keys, config)
    elif film:
        check_long_enough(film, config)
    check_output(output)
    check_new(folder)
    plan = config.plan()
    foreign = [str(kernel) for kernel in plan.schedule.kernels if kernel not in model.kernels]
    if foreign:
        raise ModelError(
            f"{request.model}: the model has no history weights for the kernel {foreign[0]} of {config.schedule}; "
            f"it has {', '.join(map(str, model.kernels))}"
        )
    check_sizes(request.model, config.codebook, model.codebooks)
    height, width = config.height // spatial, config.width // spatial
    latents = 4 * model.channels * height * width * (config.frames + plan.beyond)
    pictures = config.images * config.height * config.width * config.scale**2 // 4  # generous: 2 bits a pixel
    need = latents + 2 * pictures
    free = Run.free_bytes(folder)
    if free < need + RESERVE:
        raise OutputError(f"{folder}: {free >> 20} MiB are free, about {(need + RESERVE) >> 20} MiB are needed")
    return Preflight(
        config=config,
        sections=len(plan.sections),
        images=config.images,
        seconds=config.images / config.fps,
        section_tokens=plan.schedule.section_tokens(height, width),
        context_tokens=max(section.context_tokens(height, width) for section in plan.sections),
        disk_bytes=need,
        script=script,
        film=film,
        loras=loras,
    )


def _check_ways(request: Request | Extension, model: Outline) -> None:
    """Checks what only some kinds of models can be asked."""
    if request.compat == "official" and model.family != "hunyuan":
        raise InputError(f"{request.model}: compat official is for FramePack on HunyuanVideo; leave it out")
    if request.distilled_guidance is not None and model.settings.distilled_guidance is None:
        raise InputError(f"{request.model} was not distilled to obey guidance; --guidance leads it")
    if model.settings.manner == "anchored":
        _check_anchored(request)
    package = back_end_of(request.storage)
    if package and request.fp8:
        raise InputError(f"storage {request.storage}: {package} computes with what it stores; leave out fp8")
    if request.cache not in ("none", "draft", *CACHES):
        raise InputError(f"unknown step cache {request.cache!r}; there are none, draft, {', '.join(CACHES)}")


def _check_anchored(request: Request | Extension) -> None:
    """Checks that nothing is asked for that needs one stream of frames."""
    if isinstance(request, Extension):
        raise InputError(f"{request.model} makes videos from a start image; it does not make others longer")
    for option, given, usual, says in (
        ("importance", request.importance, "time", "the frames that it sees are the nearest: expected time"),
        ("posterior", request.posterior, "mean", "start images are encoded as their mean: expected mean"),
        ("cache", request.cache, "none", "no step cache knows its network: expected none"),
    ):
        if given not in (None, usual):
            raise InputError(f"{option} {given} for {request.model}: {says}")


def _sized(request: Request | Extension, model: Outline, film: Film | None) -> BackboneSettings:
    """The model's settings; where no size is asked for, with the size of its own that is nearest to the picture's."""
    if request.height or request.width or len(model.buckets) < 2:
        return model.settings
    height, width = (film.height, film.width) if film else load_image(cast(Request, request).image).shape[:2]
    bucket = find_bucket(height, width, model.buckets)
    return model.settings.model_copy(update={"height": bucket.height, "width": bucket.width})


def _check_images(start: Path, keys: tuple[KeyImage, ...], config: Config) -> None:
    """Checks that all images can be read, and that key images have the picture's shape or that of the start image."""
    height, width = load_image(start).shape[:2]
    for key in keys:
        rows, columns = load_image(key.image).shape[:2]
        wider = columns * config.height / (rows * config.width)
        kept = min(wider, 1 / wider)
        if kept < KEPT and columns * height != width * rows:
            raise InputError(
                f"{key.image}: {columns} x {rows} pixels, of which {1 - kept:.0%} would be cropped away; "
                f"one of the picture's shape would do, such as {config.width} x {config.height}"
            )


def find_device(name: str) -> torch.device:
    """The device of that name, such as cpu or cuda:1; "auto" is a GPU where there is one.

    >>> find_device("cpu")
    device(type='cpu')

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*there, *(["cuda"] if len(there) > 1 else [])):
        raise InputError(f"there is no device {name!r} here; there are: {', '.join(there)}")
    return torch.device(name)


def check_output(output: Path) -> None:
    """Checks that a video can be written there.

    Raises:
        OutputError: it cannot.
    """
    if os.path.isdir(output):
        raise OutputError(f"{output} is a folder; name a file, such as {output / 'video.mp4'}")
    if output.suffix.lower() != ".mp4":
        raise OutputError(f"{output}: the video is written as MP4; name it {output.with_suffix('.mp4').name}")
    parent = output.parent
    if not os.path.isdir(parent):
        raise OutputError(f"{parent}: there is no such folder to write {output.name} into")
    if os.path.exists(output) and not os.access(output, os.W_OK):
        raise OutputError(f"{output} cannot be written: no permission to replace it")
    trial = output.with_name(output.name + ".unfinished")  # the name that it will be written under
    try:
        if not os.path.exists(trial):  # else somebody is writing it, or was killed then
            trial.touch(exist_ok=False)
            trial.unlink()
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror})") from error
