"""How far the picture moves: optical flow by coarse-to-fine Lucas-Kanade, quick enough to watch a video being made.

Lucas and Kanade, "An iterative image registration technique" (1981): in a window with image gradient g and difference
e = before - after, the flow d solves (sum g g^T) d = sum g e. On a pyramid each level begins with the flow of the
coarser one and sees only what that left. Between levels the flow is averaged over neighboring windows by how sure each
is, so that a wall without texture moves with its edges.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad

from longtake.media.statistics import luma

__all__ = ["displacement", "motion", "optical_flow"]

LONG_SIDE = 80  # about so many pixels of a reduced picture: halves of the embedded model's, tenths of 480p's
COARSEST = 8  # pixels of the shorter side of the smallest picture, at least
WINDOW, STRIDE = 8, 4  # pixels of a window, and to the next
NOISE = 4.0  # squared gray levels a pixel of gradient that noise alone can have
FLOOR = 0.1  # sureness of a window without texture: so small that any other overrules it


def displacement(before: np.ndarray, after: np.ndarray) -> float:
    """The mean length of the flow from uint8 images "n H W 3" to as many others, in pixels.

    It is good up to a sixteenth of the longer side; what is quicker is found too slow.

    >>> noise = np.random.default_rng(0).integers(0, 256, (1, 12, 24, 3))
    >>> picture = np.kron(noise, np.ones((1, 8, 8, 1))).astype(np.uint8)
    >>> round(displacement(picture[:, :, :160], picture[:, :, 2:162]), 1)
    2.0
    """
    return float(np.linalg.norm(optical_flow(before, after).numpy(), axis=1).mean())


def motion(images: np.ndarray, stride: int) -> float:
    """The mean length of the flow from every `stride`-th of uint8 images "T H W 3" to its next, in pixels an image."""
    after = images[1::stride]
    return displacement(images[::stride][: len(after)], after)


def optical_flow(before: np.ndarray, after: np.ndarray) -> Float[Tensor, "n 2 h w"]:
    """The flow from uint8 images "n H W 3" to as many others: a vector for each window, in pixels right and down."""
    sides = before.shape[1:3]
    factor = max(1, min(round(max(sides) / LONG_SIDE), min(sides) // COARSEST))
    pairs = torch.from_numpy(np.stack([luma(before), luma(after)], axis=1))
    levels = [avg_pool2d(pairs, factor)]
    while min(levels[-1].shape[-2:]) >= 2 * COARSEST:
        levels.append(avg_pool2d(levels[-1], 2))
    flow = torch.zeros(len(pairs), 2, 1, 1)
    for level in reversed(levels):
        flow = _refined(2 * flow, level)
    return factor * flow


def _refined(flow: Float[Tensor, "n 2 _h _w"], pairs: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n 2 y x"]:
    """The flow of a level, from that of the coarser one in pixels of this."""
    before, after = pairs.split(1, dim=1)
    h, w = pairs.shape[-2:]
    flow = interpolate(flow, size=(h, w), mode="bilinear")
    x, y = torch.arange(w) + flow[:, 0], torch.arange(h)[:, None] + flow[:, 1]
    places = torch.stack([x * (2 / (w - 1)) - 1, y * (2 / (h - 1)) - 1], dim=-1)
    warped = grid_sample(after, places, padding_mode="border", align_corners=True)
    inside = ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1))[:, None]  # elsewhere nothing can be compared
    wide = pad(before, (1, 1, 1, 1), mode="replicate")
    gx = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2 * inside
    gy = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2 * inside
    e = before - warped
    sums = _windows(torch.cat([gx * gx + NOISE, gx * gy, gy * gy + NOISE, gx * e, gy * e], dim=1))
    xx, xy, yy, xe, ye = sums.split(1, dim=1)
    determinant = xx * yy - xy * xy
    step = torch.cat([yy * xe - xy * ye, xx * ye - xy * xe], dim=1) / determinant
    sure = determinant / (xx + yy) - NOISE / 2 + FLOOR  # nearly the smaller eigenvalue, less the noise's
    flow = _windows(flow) + step.clamp(-1, 1)  # gradients are good for a pixel
    mixed = avg_pool2d(torch.cat([sure, sure * flow], 1), 3, 1, padding=1, count_include_pad=False)
    return mixed[:, 1:] / mixed[:, :1]


def _windows(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
    """Means of overlapping windows."""
    return avg_pool2d(x, WINDOW, STRIDE, padding=(WINDOW - STRIDE) // 2, count_include_pad=False)
