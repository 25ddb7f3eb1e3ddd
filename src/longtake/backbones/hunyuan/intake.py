"""A long video to the latents of HunyuanVideo's autoencoder, in the memory of a tile."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.hunyuan.codec import HunyuanCodec

__all__ = ["HunyuanIntake"]


class HunyuanIntake:
    """A video being encoded, some images after others: equal to encoding the whole at once.

    What it keeps is less than a tile of images, so a video of any length needs the memory of a tile.
    """

    def __init__(self, codec: HunyuanCodec) -> None:
        self.codec = codec
        self._waiting: Tensor | None = None  # images of the next tile
        self._begun = False

    def encode(self, images: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The latents of the frames that are complete with these images in -1..1; what is over waits for the next."""
        size, stride = self.codec.tile_images
        pixels = images if self._waiting is None else torch.cat([self._waiting, images.to(self._waiting.device)], dim=2)
        parts = [self._nothing(pixels)]
        while pixels.shape[2] > size:
            parts.append(self._own(pixels[:, :, : size + 1]))
            pixels = pixels[:, :, stride:]
        self._waiting = pixels
        return torch.cat(parts, dim=2)

    def finish(self) -> Float[Tensor, "b c t h w"]:
        """The latents of the last images, at the end of the video."""
        pixels = self._waiting
        assert pixels is not None
        overlap = self.codec.tile_images[0] - self.codec.tile_images[1] + 1
        if self._begun and pixels.shape[2] <= overlap:  # all of them are in the tile before
            return self._nothing(pixels)
        return self._own(pixels[:, :, : (pixels.shape[2] - 1) // 4 * 4 + 1])

    def _own(self, tile: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The latents of a tile, less those that the tile before it gave: its first frame, and the next."""
        latents = self.codec.encode_tile(tile)
        begun, self._begun = self._begun, True
        return latents[:, :, 2:] if begun else latents

    def _nothing(self, images: Tensor) -> Float[Tensor, "b c 0 h w"]:
        b, _, _, h, w = images.shape
        ratio = self.codec.spatial_ratio
        return torch.zeros(b, self.codec.channels, 0, h // ratio, w // ratio, device=self.codec.device)
