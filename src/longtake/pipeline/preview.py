"""What latents will look like, about, without decoding them: a linear map to colors, fitted to one picture.

    rgb = latents @ weights + bias        one pixel for each latent pixel, the bias being the last row of `weights`

The picture is the start image of the run, whose latents are known before anything is made: one picture is enough, so
there is no table of codecs here. How near the sheets come to the images is tested on the embedded model.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from longtake.backbones.pixels import to_images, to_pixels

__all__ = ["Glance", "fit_glance", "sheet_of"]

RIDGE = 1e-2  # of the mean square of a latent channel, which is about 1: colors that a picture lacks stay moderate
TALL = 96  # pixels of a frame on a sheet
QUALITY = 60  # of WebP: a sheet of nine frames takes about 10 kB


@dataclass(frozen=True, slots=True)
class Glance:
    """A linear map from latents to colors in -1..1."""

    weights: Float[Tensor, "k 3"]  # a row for each channel, and the bias

    def of(self, latents: Float[Tensor, "1 c t h w"]) -> UInt8[np.ndarray, "t h w 3"]:
        """Small pictures, one for each frame, a pixel for each latent pixel."""
        rgb = _rows(latents.float().cpu()) @ self.weights
        _, _, t, h, w = latents.shape
        return to_images(rearrange(rgb, "(t h w) c -> 1 c t h w", t=t, h=h, w=w))[0]


def fit_glance(picture: UInt8[np.ndarray, "H W 3"], latents: Float[Tensor, "1 c 1 h w"]) -> Glance:
    """The map that gives a picture from its own latents, in the least squares sense."""
    pixels = to_pixels(torch.from_numpy(picture)[None, None])[:, :, 0]
    small = functional.interpolate(pixels, latents.shape[-2:], mode="area")
    x, y = _rows(latents.float().cpu()).double(), rearrange(small, "1 c h w -> (h w) c").double()
    penalty = torch.full((x.shape[1],), RIDGE, dtype=torch.float64)
    penalty[-1] = 0.0  # any brightness is as good as any other
    return Glance(torch.linalg.solve(x.T @ x / len(x) + penalty.diag(), x.T @ y / len(x)).float())


def sheet_of(pictures: UInt8[np.ndarray, "t h w 3"]) -> str:
    """The pictures side by side, each 96 pixels high, as the data URL of a WebP."""
    _, h, w, _ = pictures.shape
    size = round(TALL * w / h), TALL
    large = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in pictures]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(large, axis=1)).save(file, format="WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _rows(latents: Float[Tensor, "1 c t h w"]) -> Float[Tensor, "n k"]:
    """A row for each latent pixel, with a one for the bias."""
    rows = rearrange(latents, "1 c t h w -> (t h w) c")
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
