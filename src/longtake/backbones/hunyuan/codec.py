"""Images to latents and back, for HunyuanVideo's autoencoder.

Frame 0 stands for one image, each later frame for four, like Wan's. But this network cannot be decoded as a stream: its
norms take the mean over time, and its mid block attends over frames. So diffusers cuts time into tiles that overlap:

    18 frames    0 1 2 3 4 5 6 7 8 9 . . . . . . . 17
    tiles        0-------4                              5 frames, 17 images
                       3-------7                        three frames on; its first image is thrown away,
                             6-------10                 its next four cross-fade with the last four before them
                                   9-------13
                                         12------16
                                               15--17   what is left

and FramePack decodes each section together with its neighbor (`stream.py`). Where windows move by a multiple of three
frames they have tiles in common, which are decoded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    AutoencoderKLHunyuanVideo,
    HunyuanVideoDecoder3D,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.hunyuan.causal import attend_by_frame
from longtake.backbones.hunyuan.folded import upsample_folded
from longtake.backbones.hunyuan.pieces import decode_in_pieces, upsample_in_pieces
from longtake.backbones.weights import digest_of

__all__ = ["HunyuanCodec", "Layers", "Tiled"]

TILE, OVERLAP = 384, 64  # pixels: the largest side of a tile in "halves", and how much of it the one before has, too

Tiled = bool | Literal["halves"]
Layers = Literal["whole", "pieces", "folded"]
_LAYERS: Mapping[Layers, Callable[[HunyuanVideoDecoder3D], None]] = {
    "whole": lambda decoder: None,
    "pieces": partial(decode_in_pieces, upsample=upsample_in_pieces),
    "folded": partial(decode_in_pieces, upsample=upsample_folded),
}


class HunyuanCodec:
    """An autoencoder whose latents are scaled to about unit deviation.

    The network is changed where it is: its attention goes frame by frame (`causal.py`). Three options:

    `layers`: how the decoder's layers pass a tile of 17 images, as "whole" or in "pieces" of rows (`pieces.py`), or
    that and with upsampling "folded" into convolutions (`folded.py`). Equal to round-off; the first is diffusers' code.

    `tiled`: images larger than 256 x 256 are encoded and decoded in tiles of that size, 192 apart, and cross-faded, as
    the official program does with little memory. What lives at once is that of 256 x 256 pixels instead of 640 x 608:
    2.4 GiB instead of 14.3 (1.5 instead of 5.5 in pieces), for 1.6 times the arithmetic. Not lossless: the norms see
    one tile only. In "halves" they are decoded in as few tiles as sides of 384 allow, at 640 x 608 four, 2.4 GiB: 1.2
    times the arithmetic, and fewer seams.

    `channels_last`: weights and activations lie as "t h w c", as the fastest convolutions of some GPUs want them. Whole
    layers turn each activation back and lose by it; those in pieces keep it throughout.
    """

    def __init__(
        self,
        network: AutoencoderKLHunyuanVideo,
        *,
        layers: Layers = "whole",
        tiled: Tiled = False,
        channels_last: bool = False,
    ) -> None:
        config = network.config
        self.network = network
        self.temporal_ratio: int = config["temporal_compression_ratio"]
        self.spatial_ratio: int = config["spatial_compression_ratio"]
        self.channels: int = config["latent_channels"]
        self._scale: float = config["scaling_factor"]
        self._layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        for half in ("encoder", "decoder"):
            attend_by_frame(network.get_submodule(f"{half}.mid_block"))
        _LAYERS[layers](network.decoder)
        self.tile(tiled)
        nn.Module.to(network, memory_format=self._layout)  # pyright: ignore[reportCallIssue]  (not in torch's stubs)

    def tile(self, tiled: Tiled) -> None:
        """Encodes and decodes large images in tiles from now on, or whole."""
        self._halves = tiled == "halves"
        if tiled:
            self.network.enable_tiling()
        else:
            self.network.disable_tiling()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.post_quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.network.post_quant_conv.weight.dtype

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the weights: latents of codecs that differ in them mean different things."""
        return digest_of(self.network)

    def encode(self, images: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The scaled latents of a video of 4t - 3 images in -1..1 (a picture is one of one image), in float32.

        The mean of the posterior, so nothing is drawn. Of a video longer than 16 images each 17 are encoded alone, 12
        after the last; a tile's first latent is thrown away, and the next one is that of the tile before.
        """
        return self._scale * self._posterior(images).mean.float()

    def sample(self, images: Float[Tensor, "b 3 T H W"], seed: int) -> Float[Tensor, "b c t h w"]:
        """The same with a draw from the posterior, which depends on the seed but not on device or dtype.

        The official program draws from torch's global generator, which it does not seed.
        """
        posterior = self._posterior(images)
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
        return self._scale * (posterior.mean.float() + posterior.std.float() * noise.to(self.device))

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 T H W"]:
        """The images of all these frames, in -1..1, as diffusers decodes them: one of the first, four of each other.

        Any run of frames may be decoded; the first one is taken for the first of a video.
        """
        spans = self.tiles(range(latents.shape[2]))
        return self.join([self.decode_tile(latents[:, :, span.start : span.stop]) for span in spans]).clamp(-1.0, 1.0)

    def tiles(self, frames: range) -> list[range]:
        """The frames that pass the decoder together where all of `frames` are decoded.

        Five, three further each time. diffusers has a last tile of a single frame at times, and shows nothing of it.
        """
        size, stride = (images // self.temporal_ratio for images in self.tile_images)
        if len(frames) <= size:
            return [frames]
        spans = [frames[start : start + size + 1] for start in range(0, len(frames), stride)]
        return [span for span in spans if len(span) > 1]

    @torch.no_grad()
    def decode_tile(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 T H W"]:
        """The images of one tile in time, not clamped."""
        network = self.network
        z = (latents.to(self.device, torch.float32) / self._scale).to(self.dtype).contiguous(memory_format=self._layout)
        limits = network.tile_sample_min_height, network.tile_sample_min_width
        size = (self.spatial_ratio * side for side in z.shape[3:])
        if network.use_tiling and any(side > limit for side, limit in zip(size, limits, strict=True)):
            with self._tiles_for(z):
                return network.tiled_decode(z, return_dict=False)[0]
        return network.decoder(network.post_quant_conv(z))

    def join(self, tiles: Sequence[Float[Tensor, "b 3 _ H W"]]) -> Float[Tensor, "b 3 T H W"]:
        """The images of tiles that follow each other, which stay as they are: cross-faded as diffusers does."""
        size, stride = self.tile_images
        last = tiles[0]
        shown = [last[:, :, : stride + 1]]
        for tile in tiles[1:]:
            last = _fade(last, tile[:, :, 1:], size - stride)
            shown.append(last[:, :, :stride])
        return torch.cat(shown, dim=2)

    @torch.no_grad()
    def encode_tile(self, images: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The latents of images that pass the encoder together, 17 at most."""
        network = self.network
        pixels = images.to(self.device, self.dtype).contiguous(memory_format=self._layout)
        limits = network.tile_sample_min_height, network.tile_sample_min_width
        if network.use_tiling and any(side > limit for side, limit in zip(pixels.shape[3:], limits, strict=True)):
            moments = cast(Tensor, network.tiled_encode(pixels))  # its annotation says otherwise
        else:
            moments = network.quant_conv(network.encoder(pixels))
        return self._scale * DiagonalGaussianDistribution(moments).mean.float()

    @contextmanager
    def _tiles_for(self, z: Float[Tensor, "b c t h w"]) -> Iterator[None]:
        """The network's tiles are as this codec decodes them inside, and as it encodes them outside."""
        if not self._halves:
            yield
            return
        network = self.network
        names = [f"tile_sample_{which}_{side}" for which in ("min", "stride") for side in ("height", "width")]
        before = [getattr(network, name) for name in names]
        strides = [_even(side * self.spatial_ratio, self.spatial_ratio) for side in z.shape[3:]]
        for name, value in zip(names, (*(stride + OVERLAP for stride in strides), *strides), strict=True):
            setattr(network, name, value)
        try:
            yield
        finally:
            for name, value in zip(names, before, strict=True):
                setattr(network, name, value)

    @property
    def tile_images(self) -> tuple[int, int]:
        """The images that a tile in time makes besides its first, and by how many tiles are apart: 16 and 12."""
        network = self.network
        return network.tile_sample_min_num_frames, int(network.tile_sample_stride_num_frames)

    @torch.no_grad()
    def _posterior(self, images: Float[Tensor, "b 3 T H W"]) -> DiagonalGaussianDistribution:
        if (images.shape[2] - 1) % self.temporal_ratio:
            raise ValueError(f"{images.shape[2]} images: a video has 1 + {self.temporal_ratio} n of them")
        pixels = images.to(self.device, self.dtype).contiguous(memory_format=self._layout)
        (posterior,) = self.network.encode(pixels, return_dict=False)
        return posterior


def _even(side: int, ratio: int) -> int:
    """By how many pixels tiles are apart where as few as can be, of at most TILE pixels, cover a side evenly."""
    count = math.ceil(side / (TILE - OVERLAP))
    return math.ceil(side / count / ratio) * ratio


def _fade(before: Float[Tensor, "b 3 S H W"], tile: Float[Tensor, "b 3 T H W"], overlap: int) -> Tensor:
    """`tile`, its first images faded in over the last ones before it: 0, 1/4, 1/2, 3/4 of it where four overlap."""
    overlap = min(before.shape[2], tile.shape[2], overlap)
    weight = (torch.arange(overlap, device=tile.device) / overlap).to(tile.dtype).view(-1, 1, 1)
    faded = before[:, :, -overlap:] * (1 - weight) + tile[:, :, :overlap] * weight
    return torch.cat([faded, tile[:, :, overlap:]], dim=2)
