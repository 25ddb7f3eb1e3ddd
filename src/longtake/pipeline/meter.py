"""The meter of a section: drift and motion, measured while the video is made, in milliseconds and without a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from longtake.media.statistics import color_distance, sharpness
from longtake.pipeline.motion import motion

__all__ = ["Meter", "measure"]

STRIDE = 4  # images from one that is measured to the next: as many as a frame has
ROUNDING = 1 / 3  # gradient energy of rounding to 8 bits: a variance of 1/12 for each of two pixels, in two directions
FAINT = 1e-4  # variance of latents, normalized to 1, below which a start image is taken for one flat color
DIGITS = 6  # that are kept: those behind them can depend on the number of threads


@dataclass(frozen=True, slots=True)
class Meter:
    """How far one section is from the start, and how it moves.

    All numbers but `motion` and `jump` compare with the start image as the model sees it or with its latents. The codec
    softens what it shows, so the first section is not at 1 and 0 either: drift is how the numbers change from there. A
    quiet video has little drift because little happens in it: read `motion` beside the others.
    """

    place: int  # of the section in time, from 0
    sharpness: float  # energy of the image gradients, as a share of the start image's
    color: float  # distance of the colors' means and deviations from the start image's, in steps of 255
    motion: float  # mean length of the optical flow, in pixels an image
    latent_mean: float  # distance of the channels' means from the start's (RMS); 1 is the deviation of all latents
    latent_std: float  # deviation within the channels, as a share of the start's
    jump: float  # change of the latents at the seam with the frame before, as a share of the section's mean change


def measure(
    place: int,
    images: np.ndarray,
    latents: Float[Tensor, "1 c t h w"],
    start_image: np.ndarray,
    start: Float[Tensor, "1 c 1 h w"],
) -> Meter:
    """The meter of the section with these uint8 images "T H W 3"; its latents come behind the frame before them.

    Every fourth image is measured, and its displacement to the next.
    """
    means, variance = _moments(latents[:, :, 1:])
    start_means, start_variance = _moments(start)
    changes = latents.diff(dim=2).square().mean((0, 1, 3, 4)).sqrt()
    seen = images[::STRIDE]
    return Meter(
        place,
        sharpness=_kept(sharpness(seen) / max(sharpness(start_image[None]), ROUNDING)),
        color=_kept(color_distance(seen, start_image[None])),
        motion=_kept(motion(images, STRIDE)),
        latent_mean=_kept((means - start_means).square().mean().sqrt().item()),
        latent_std=_kept((variance / start_variance.clamp(min=FAINT)).sqrt().item()),
        jump=_kept((changes[0] / changes.mean().clamp(min=FAINT)).item()),
    )


def _kept(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _moments(latents: Float[Tensor, "1 c t h w"]) -> tuple[Float[Tensor, " c"], Float[Tensor, ""]]:
    """The mean of each channel, and the mean of the channels' variances."""
    return latents.mean((0, 2, 3, 4)), latents.var((0, 2, 3, 4), correction=0).mean()
