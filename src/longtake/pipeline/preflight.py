"""Everything that can be refused before any work starts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from longtake.backbones import find_model, inspect_model
from longtake.backbones.codebooks import check_sizes
from longtake.errors import InputError, ModelError, OutputError
from longtake.media import Film, load_image, open_film
from longtake.pipeline.request import Config, Extension, Request, resolve, script_of
from longtake.pipeline.run import Run, check_new
from longtake.pipeline.source import check_long_enough, source_of
from longtake.plan import KeyImage, Script

__all__ = ["Preflight", "check_output", "find_device", "fingerprint_of", "preflight"]

SAMPLES = 256  # of each weight file enter the fingerprint; up to 16 MiB that is all of it
SAMPLE = 1 << 16  # bytes
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


def fingerprint_of(model: str) -> str:
    """A digest of the model's configs, and of the sizes and of samples from the whole length of its weight files.

    Raises:
        ModelError: there is no such model.
    """
    folder, digest = find_model(model), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size} ".encode())
        with open(path, "rb") as file:
            for at in range(0, size, max(SAMPLE, size // SAMPLES)):
                file.seek(at)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:32]


def preflight(request: Request | Extension, output: Path, folder: Path) -> Preflight:
    """Checks images, model, schedule, order, length, size, output, run folder and disk; loads nothing large.

    A video that is to be made longer is read to its end.

    Raises:
        LongtakeError: what cannot be, and what would do.
    """
    model = inspect_model(request.model)
    spatial, patch = model.spatial_ratio, model.patch
    grid = spatial * patch.h, spatial * patch.w
    ratio, film, source = model.temporal_ratio, None, None
    if isinstance(request, Extension):
        if output.resolve() == request.video.resolve():
            raise OutputError(f"{output} is the video that is to be made longer; name another file")
        film = open_film(request.video)
        source = source_of(film, request.side, model.settings.fps, ratio)
    config = resolve(request, model.settings, grid, ratio, fingerprint_of(request.model), source)
    script = script_of(request, config)
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
    )


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
