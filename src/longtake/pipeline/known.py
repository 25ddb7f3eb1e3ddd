"""What is known before the first section is made, as latents; each picture is encoded once in the life of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones import Backbone, Codec
from longtake.backbones.backbone import AnyCodec
from longtake.backbones.helios.anchor import noised, start_of
from longtake.backbones.pixels import to_pixels
from longtake.media import load_image
from longtake.pipeline.request import Config
from longtake.pipeline.run import Run
from longtake.plan import ANCHOR, Manner, Plan

__all__ = ["Known", "known_of"]


@dataclass(frozen=True, slots=True)
class Known:
    """Frames by their numbers, with their latents."""

    frames: Sequence[int]
    latents: Float[Tensor, "1 c t h w"]


def known_of(run: Run, plan: Plan, backbone: Backbone) -> list[Known]:
    """The frames of a start image, of key images, or of the video that is made longer."""
    return _KNOWN[run.config.manner](run, plan, backbone)


def _in_stream(run: Run, plan: Plan, backbone: Backbone) -> list[Known]:
    source = run.config.source
    if source is None:
        return [Known((frame,), latents) for frame, latents in _pictured(run, backbone).items()]
    own = range(int(source.side == "before"), source.frames)  # without the first image alone, where others lead to it
    return [Known(around, run.read_source(own).to(backbone.device)) for around in plan.known]


def _pictured(run: Run, backbone: Backbone) -> dict[int, Tensor]:
    """Latents of the start image and of key images by frame."""
    pictures = {0: load_image(run.folder / "start.png")}
    if not run.has_start():
        run.write_start(_encoded(run.config, pictures[0], backbone.codec))
    latents = {0: run.read_start()}
    for frame in run.config.given:
        pictures[frame] = load_image(run.key_path(frame).with_suffix(".png"))
        if not run.has_key(frame):
            same = next((other for other in latents if np.array_equal(pictures[other], pictures[frame])), None)
            run.write_key(
                frame, _encoded(run.config, pictures[frame], backbone.codec) if same is None else latents[same]
            )
        latents[frame] = run.read_key(frame)
    return {frame: known.to(backbone.device) for frame, known in latents.items()}


def _encoded(config: Config, picture: np.ndarray, codec: AnyCodec) -> Float[Tensor, "1 c 1 h w"]:
    pixels = _pixels(picture, codec)
    return codec.sample(pixels, config.seed) if config.posterior == "sample" else codec.encode(pixels)


def _anchored(run: Run, plan: Plan, backbone: Backbone) -> list[Known]:
    """The start image alone and as frame 0, with the little noise that the model was trained to see in images."""
    codec = backbone.codec
    assert isinstance(codec, Codec)
    if not run.has_start():
        start = start_of(codec, _pixels(load_image(run.folder / "start.png"), codec), run.generated)
        run.write_anchored(start.anchor, start.still)
    clean = torch.cat([run.read_anchor(), run.read_start()], dim=2).to(backbone.device)
    return [Known((ANCHOR, 0), noised(clean, [run.config.seed], stream=ANCHOR))]


def _pixels(picture: np.ndarray, codec: AnyCodec) -> Float[Tensor, "1 3 1 H W"]:
    return to_pixels(torch.from_numpy(picture)[None, None], codec.device)


_KNOWN: Mapping[Manner, Callable[[Run, Plan, Backbone], list[Known]]] = {"stream": _in_stream, "anchored": _anchored}
