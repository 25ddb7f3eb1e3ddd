"""The frame that Helios always sees, apart from the sequence of frames.

Helios' layout is FramePack-F1's, `td_f1k1_x_f16k4f2k2f1k1_g9`, with clamped gaps and zeros for what is not known. But
its first span shows no frame of the sequence. It shows

    with a start image      the image, encoded alone; the sequence begins with the same image inside a still video
    without                 zeros to the first section, to all others the first frame that this one made

So the anchor has a number of its own, before all frames (`plan/anchor.py`). And Helios' codec starts anew with every
section: nine latents are 33 images, and the first latent of each section is that of one image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.codec import Codec
from longtake.flow import noise
from longtake.plan import VANILLA, images_of

__all__ = ["IMAGE_SIGMAS", "SCHEDULE", "Start", "noised", "start_of"]

SCHEDULE = VANILLA
IMAGE_SIGMAS = (0.111, 0.135)  # between these, noise is mixed into images that the user gave (the published pipelines)


@dataclass(frozen=True, slots=True)
class Start:
    """A start image as Helios sees it."""

    anchor: Float[Tensor, "b c 1 h w"]  # alone
    still: Float[Tensor, "b c 1 h w"]  # as the last frame of a section in which nothing moves


def start_of(codec: Codec, image: Float[Tensor, "b 3 1 H W"], generated: int) -> Start:
    """Both encodings of an image in -1..1, for sections of so many frames."""
    video = image.expand(-1, -1, images_of(generated, codec.temporal_ratio, "anchored"), -1, -1)
    return Start(codec.encode(image), codec.encode(video)[:, :, -1:])


def noised(latents: Float[Tensor, "b c t h w"], seeds: Sequence[int], stream: int) -> Float[Tensor, "b c t h w"]:
    """Given images as Helios wants to see them: with a little noise, of a level of its own in each frame.

    Levels and noise belong to (seed, stream), one seed a sample. Helios is told that they are clean.
    """
    parts = []
    for clean, seed in zip(latents, seeds, strict=True):
        drawn = noise(clean.shape[1:2], seed, stream, clean.device, clean.dtype, stage=1)
        share = 0.5 * (1.0 + torch.erf(drawn / math.sqrt(2.0)))  # uniform in 0..1, of a normal number
        sigma = (IMAGE_SIGMAS[0] + share * (IMAGE_SIGMAS[1] - IMAGE_SIGMAS[0])).view(1, -1, 1, 1)
        parts.append(torch.lerp(clean, noise(clean.shape, seed, stream, clean.device, clean.dtype), sigma))
    return torch.stack(parts)
