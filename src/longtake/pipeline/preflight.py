"""Everything that can be refused before any work starts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from longtake.backbones import find_model, load_settings
from longtake.errors import InputError, OutputError
from longtake.media import load_image
from longtake.pipeline.request import Config, Request, resolve
from longtake.pipeline.run import Run

__all__ = ["Preflight", "fingerprint_of", "preflight"]

HEAD = 1 << 16  # bytes of each weight file that enter the fingerprint, besides its size
RESERVE = 32 << 20  # bytes that stay free on the disk


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a request comes to."""

    config: Config
    sections: int
    images: int
    seconds: float  # of video
    section_tokens: int
    context_tokens: int
    disk_bytes: int  # that the run folder will need, about


def _geometry(folder: Path) -> tuple[int, int, int, tuple[int, int, int]]:
    """Time and space ratio, channels and patch of a model, from its configs alone."""
    vae = json.loads((folder / "vae" / "config.json").read_text())
    transformer = json.loads((folder / "transformer" / "config.json").read_text())
    return (
        vae.get("scale_factor_temporal", 4),
        vae.get("scale_factor_spatial", 8),
        vae.get("z_dim", 16),
        tuple(transformer["patch_size"]),
    )


@lru_cache
def fingerprint_of(model: str) -> str:
    """A digest of the model's configs and of the size and first bytes of its weight files.

    Raises:
        ModelError: there is no such model.
    """
    folder, digest = find_model(model), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(str(path.stat().st_size).encode())
        with open(path, "rb") as file:
            digest.update(file.read(HEAD))
    return digest.hexdigest()[:32]


def preflight(request: Request, output: Path, folder: Path) -> Preflight:
    """Checks image, model, schedule, order, length, size, output and disk; loads nothing large.

    Raises:
        LongtakeError: what cannot be, and what would do.
    """
    model = find_model(request.model)
    settings = load_settings(model)
    try:
        temporal, spatial, channels, (_, rows, columns) = _geometry(model)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{model}: not a whole model folder ({error})") from error
    config = resolve(request, settings, (spatial * rows, spatial * columns), temporal, fingerprint_of(request.model))
    load_image(request.image)
    _check_output(output)
    plan = config.plan()
    height, width = config.height // spatial, config.width // spatial
    latents = 4 * channels * height * width * config.frames
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
        context_tokens=plan.schedule.context_tokens(height, width),
        disk_bytes=need,
    )


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise OutputError(f"{output} is a folder; name a file, such as {output / 'video.mp4'}")
    if output.suffix.lower() != ".mp4":
        raise OutputError(f"{output}: the video is written as MP4; name it {output.with_suffix('.mp4').name}")
    parent = output.parent
    if not parent.is_dir():
        raise OutputError(f"{parent}: there is no such folder to write {output.name} into")
    if not os.access(parent, os.W_OK) or (output.exists() and not os.access(output, os.W_OK)):
        raise OutputError(f"{output} cannot be written: no permission")
