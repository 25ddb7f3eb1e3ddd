"""The video that is made longer, taken into a run folder: encoded once, in the memory of a few images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from longtake.backbones.backbone import AnyCodec
from longtake.backbones.codec import Codec
from longtake.backbones.hunyuan.intake import HunyuanIntake
from longtake.backbones.pixels import to_pixels
from longtake.errors import InputError
from longtake.media import Film, load_image, save_image, write_segment
from longtake.pipeline.request import Config, Side, Source
from longtake.pipeline.run import source_segments, write_latents
from longtake.schedule import parse

__all__ = ["check_long_enough", "source_of", "take_in", "told_of"]


def source_of(film: Film, side: Side, fps: float, temporal_ratio: int) -> Source:
    """What a video comes to at a model's images a second."""
    images = len(film.picks(fps))
    return Source(side=side, images=images, frames=1 + (images - 1) // temporal_ratio)


def check_long_enough(film: Film, config: Config) -> None:
    """Checks that a video is as long as a section, which is the least that the model knows as a past or a future.

    Raises:
        InputError: it is shorter.
    """
    assert config.source
    least = 1 + config.temporal_ratio * parse(config.schedule).generated
    if config.source.images < least:
        raise InputError(
            f"{film.path}: the video has {config.source.images} images at {config.fps:g} a second; "
            f"{least} would do, which are {least / config.fps:.2f} s"
        )


def told_of(film: Film, config: Config) -> Iterator[str]:
    """What the user should know of how a video is taken in."""
    source = config.source
    assert source
    left_out = source.images - len(source.encoded(config.temporal_ratio))
    yield (
        f"{film.path}: {source.images} images of {config.width} x {config.height} at {config.fps:g} images/s, "
        f"{source.images / config.fps:.2f} s"
    )
    wider = film.width * config.height / (film.height * config.width)
    kept = min(wider, 1 / wider)
    if kept < 0.98:
        yield f"  {1 - kept:.0%} of each picture is cropped away; --height and --width of its shape would keep it"
    if left_out:
        end = {"after": "first", "before": "last"}[source.side]
        images = "image is" if left_out == 1 else f"{left_out} images are"
        yield f"  the {end} {images} kept in the video, but not shown to the model, which reads four at a time"
    if film.sound:
        yield "  its sound is not kept"


@torch.inference_mode()
def take_in(film: Film, config: Config, folder: Path, codec: AnyCodec) -> np.ndarray:
    """Puts a video into a run folder: its images, its latents, its last image. Returns its first one that is encoded.

    Raises:
        InputError: the video cannot be read any more.
        OutputError: the folder cannot be written.
    """
    source = config.source
    assert source
    images = film.images(config.fps, config.height, config.width)
    intake = codec.intake() if isinstance(codec, Codec) else HunyuanIntake(codec)
    encoded, latents = source.encoded(config.temporal_ratio), list[torch.Tensor]()
    (folder / "source").mkdir(parents=True, exist_ok=True)
    number = 0
    for segment in source_segments(folder, config):
        shot = np.stack(list(islice(images, segment.images)))
        write_segment(shot, segment.path, segment.first, config.fps, config.crf, config.scale)
        seen = shot[max(0, encoded.start - number) : encoded.stop - number]
        latents.append(intake.encode(to_pixels(torch.from_numpy(seen)[None], codec.device)))
        if number == 0:
            save_image(seen[0], folder / "start.png")
        number += len(shot)
        if number == source.images:
            save_image(shot[-1], folder / "last.png")
    latents.append(intake.finish())
    write_latents(folder / "source.safetensors", torch.cat(latents, dim=2), {"frames": list(range(source.frames))})
    return load_image(folder / "start.png")
