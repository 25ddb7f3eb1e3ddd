"""Where made images meet those of the video that is made longer.

The video's own images stay as they are, and made ones are the codec's: softer, and off in color as far as the model is.
So one image of the video is also had as a made one: its last, decoded (after), or its first, at which the made frames
arrive (before). What is missing there is added to the made images next to it, less and less, and moves as they do.

The step from image to image at the seam, as a multiple of that of its neighbors, before the file is compressed (medians
of ten held-out clips; the true clip has 1.1 there):

                                   after    before
    nothing is added                 1.7       3.0
    what is missing, in its place    1.0       0.7     edges stay behind as ghosts; a step below 1 is the camera halting
    what is missing, moving          1.2       0.9

Over one second, and not half of one: before a video, where more is missing, images 4 to 9 are then nearer to the true
ones by a tenth.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from longtake.media import load_image
from longtake.pipeline.motion import optical_flow
from longtake.pipeline.run import Run

__all__ = ["close_seam"]

SECONDS = 1.0  # in which the made images take over


def close_seam(run: Run, place: int, before: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The uint8 images "T H W 3" of a section as they are shown: next to the source they follow it, or lead to it.

    `before` is the image before them, as the codec shows it. Images of other sections are as they were.
    """
    config, source = run.config, run.config.source
    count = round(SECONDS * config.fps)
    if source and source.side == "after" and place == 0:
        return _led(images, before, load_image(run.folder / "last.png"), count)
    if source and source.side == "before" and place == run.sections - 1:  # the last image is the source's first
        return _led(images[-2::-1], images[-1], load_image(run.folder / "start.png"), count)[::-1]
    return images


def _led(images: np.ndarray, made: np.ndarray, true: np.ndarray, count: int) -> np.ndarray:
    """Images that begin next to the one of which there are a made and a true one: as if that had always been true."""
    near = np.ascontiguousarray(images[:count])
    flows = optical_flow(near, np.concatenate([made[None], near[:-1]]))
    missing = torch.from_numpy(true.astype(np.float32) - made).permute(2, 0, 1)[None]
    flows = interpolate(flows, size=missing.shape[2:], mode="bilinear")
    led, whole = [], torch.zeros_like(flows[:1])
    for number, flow in enumerate(flows.split(1)):
        whole = flow + _seen(whole, flow, "bilinear")  # from this image to the first: image by image, as it may be far
        moved = (1 - number / count) * _seen(missing, whole, "bicubic")
        led.append(torch.from_numpy(near[number]) + moved[0].permute(1, 2, 0))
    return np.concatenate([torch.stack(led).round().clamp(0, 255).to(torch.uint8).numpy(), images[count:]])


def _seen(picture: Float[Tensor, "1 c H W"], flow: Float[Tensor, "1 2 H W"], mode: str) -> Float[Tensor, "1 c H W"]:
    """A picture as it looks from an image that flows to it, in pixels right and down."""
    _, _, height, width = picture.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows])[None] + 0.5 + flow
    grid = 2 * places / torch.tensor([width, height]).view(1, 2, 1, 1) - 1
    return grid_sample(picture, grid.permute(0, 2, 3, 1), mode=mode, padding_mode="border", align_corners=False)
