"""Between the pictures of files and the pixels of codecs."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

__all__ = ["to_images", "to_pixels"]


def to_pixels(
    images: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b 3 T H W"]:
    """uint8 videos "b T H W 3" as a codec wants them: -1..1, channels first.

    >>> to_pixels(torch.full((1, 1, 2, 2, 3), 255, dtype=torch.uint8)).unique()
    tensor([1.])
    """
    pixels = images.to(device, non_blocking=True).to(dtype).div_(127.5).sub_(1.0)
    return rearrange(pixels, "b T H W c -> b c T H W").contiguous()


def to_images(pixels: Float[Tensor, "b 3 T H W"]) -> np.ndarray:
    """Pixels in -1..1 as uint8 videos "b T H W 3"; what lies outside is clipped.

    >>> to_images(torch.tensor([-2.0, 0.0, 1.0]).view(1, 3, 1, 1, 1)).tolist()
    [[[[[0, 128, 255]]]]]
    """
    images = rearrange(pixels.float().clamp(-1.0, 1.0), "b c T H W -> b T H W c")
    return ((images + 1.0) * 127.5).round().to(torch.uint8).cpu().numpy()
