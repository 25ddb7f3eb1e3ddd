"""Images to latents and back, for Wan's causal autoencoder.

Frame 0 stands for one image, each later frame for four. The network looks only back, and it keeps what it has seen in a
feature cache; so a video can be decoded section by section, each frame once, and equal the decoding of the whole.
diffusers fills that cache one frame at a time; here all frames of a chunk pass together, which is the same arithmetic
and 2-3 times faster, unless they are so large that they would fill a GPU.
"""

from __future__ import annotations

from functools import cached_property

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    WanResample,
    patchify,
    unpatchify,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.weights import digest_of

__all__ = ["Codec", "Intake", "Stream", "decoded_together", "encoded_together", "encoder_bytes", "live_bytes"]

_ENCODE_IMAGES = 64  # that pass the encoder together, after the first, at most
_ENCODE_BYTES = 4 << 30  # that are alive while they do, if it is more than one frame
_DECODE_FRAMES = 16  # that pass the decoder together, where no section says otherwise
_DECODE_BYTES = 4 << 30  # that are alive while they do, if it is more than one frame

# Vectors of the decoder's last width that are alive at its fullest moment, counted on live tensors: for each image that
# passes, and once for what its causal convolutions keep.
_PLAIN, _RESIDUAL = (7.1, 21.0), (13.1, 12.0)
# The same of the encoder, in vectors of its first width.
_PLAIN_IN, _RESIDUAL_IN = (6.05, 6.1), (8.1, 6.1)


def live_bytes(network: AutoencoderKLWan, frames: int, height: int, width: int) -> int:
    """Bytes of the tensors that are alive while so many frames pass the decoder together, at a size in pixels."""
    config = network.config
    each, once = _RESIDUAL if config["is_residual"] else _PLAIN
    vectors = (
        (each * frames * config["scale_factor_temporal"] + once) * height * width / (config["patch_size"] or 1) ** 2
    )
    return int(vectors * (config["decoder_base_dim"] or config["base_dim"])) * network.post_quant_conv.weight.itemsize


def decoded_together(network: AutoencoderKLWan, frames: int, height: int, width: int) -> int:
    """How many of these frames pass the decoder together: all, or fewer where these would take more than 4 GiB.

    It depends on nothing but the network and the size, so that a run that goes on has the same bits.
    """
    fitting = (n for n in range(frames, 1, -1) if live_bytes(network, n, height, width) <= _DECODE_BYTES)
    return next(fitting, 1)


def encoder_bytes(network: AutoencoderKLWan, images: int, height: int, width: int) -> int:
    """Bytes of the tensors that are alive while so many images pass the encoder together, at a size in pixels."""
    config = network.config
    each, once = _RESIDUAL_IN if config["is_residual"] else _PLAIN_IN
    vectors = (each * images + once) * height * width / (config["patch_size"] or 1) ** 2
    return int(vectors * config["base_dim"]) * network.quant_conv.weight.itemsize


def encoded_together(network: AutoencoderKLWan, height: int, width: int) -> int:
    """How many images pass the encoder together: 64, or fewer whole frames where these would take more than 4 GiB.

    It depends on nothing but the network and the size, as for the decoder.
    """
    ratio = network.config["scale_factor_temporal"]
    some = range(_ENCODE_IMAGES, ratio, -ratio)
    return next((n for n in some if encoder_bytes(network, n, height, width) <= _ENCODE_BYTES), ratio)


class Codec:
    """An autoencoder whose latents are normalized, channel by channel, to mean 0 and deviation 1."""

    def __init__(self, network: AutoencoderKLWan) -> None:
        config = network.config
        self.network = network
        self.temporal_ratio: int = config["scale_factor_temporal"]
        self.spatial_ratio: int = config["scale_factor_spatial"]
        self.channels: int = config["z_dim"]
        self._patch: int = config["patch_size"] or 1
        self._mean = torch.tensor(config["latents_mean"]).view(1, -1, 1, 1, 1)
        self._deviation = torch.tensor(config["latents_std"]).view(1, -1, 1, 1, 1)

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

    @cached_property
    def reach(self) -> int:
        """How many frames before its own an image depends on.

        Counted from the last layer to the first: each causal convolution of kernel k looks k - 1 back, and doubling
        time makes images 2i - 1 and 2i of image i.
        """
        frame = 1 << 20  # far from the start, where nothing is cut off
        image = frame * self.temporal_ratio - (self.temporal_ratio - 1)  # the first one of it
        for name, module in reversed(list(self.network.decoder.named_modules())):
            if isinstance(module, WanResample) and module.mode == "upsample3d":
                image = -(-image // 2) - (module.time_conv.kernel_size[0] - 1)
            elif isinstance(module, WanCausalConv3d) and not name.endswith("time_conv"):
                image -= module.kernel_size[0] - 1
        return frame - image

    def lead(self, generated: int) -> int:
        """How many frames before a section a stream has to warm up on, to go on exactly: a frame and whole sections.

        >>> from longtake.backbones.architecture import CodecShape, new_codec
        >>> codec = Codec(new_codec(CodecShape(encoder_width=4, decoder_width=4)))
        >>> codec.reach, codec.lead(9)
        (28, 37)
        """
        return 1 + generated * -(-self.reach // generated)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The normalized latents of a video of 4t - 3 images in -1..1 (a picture is one of one image), in float32.

        The mean of the posterior, so nothing is drawn. Images are encoded many at a time through the feature cache.
        """
        ratio = self.temporal_ratio
        if (images.shape[2] - 1) % ratio:
            raise ValueError(f"{images.shape[2]} images: a video has 1 + {ratio} n of them")
        intake, rest = self.intake(), images[:, :, 1:]
        chunks = [images[:, :, :1], *(rest.split(_ENCODE_IMAGES, dim=2) if rest.shape[2] else [])]
        return torch.cat([intake.encode(chunk) for chunk in chunks], dim=2)

    @torch.no_grad()
    def sample(self, images: Float[Tensor, "b 3 1 H W"], seed: int) -> Float[Tensor, "b c 1 h w"]:
        """The same for a picture, with a draw from the posterior, which depends on the seed but not on the device."""
        network = self.network
        pixels = patchify(images.to(self.device, self.dtype), self._patch)
        cache: list[Tensor | str | None] = [None] * network._cached_conv_counts["encoder"]
        moments = network.quant_conv(network.encoder(pixels, feat_cache=cache, feat_idx=[0])).float()
        posterior = DiagonalGaussianDistribution(moments)
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        drawn = posterior.mean + posterior.std * noise
        return (drawn - self._mean.to(self.device)) / self._deviation.to(self.device)

    def intake(self) -> Intake:
        """An encoder at the start of a video."""
        return Intake(self)

    def stream(self) -> Stream:
        """A decoder at the start of a video."""
        return Stream(self)

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 T H W"]:
        """The images of a whole video."""
        stream = self.stream()
        return torch.cat([stream.decode(chunk) for chunk in latents.split(_DECODE_FRAMES, dim=2)], dim=2)

    def decode_with_context(
        self, left: Float[Tensor, "b c k h w"], latents: Float[Tensor, "b c t h w"]
    ) -> Float[Tensor, "b 3 T H W"]:
        """The images of `latents` alone, decoded behind the frames `left` before them.

        For sections that are made from the end to the start. Exact with `lead` frames on the left (or all there are
        since frame 0), close with a few: with the embedded codec 4 frames give 50 dB, 9 give 65 dB and 18 give 94 dB
        against exact decoding. With none, `latents` begin with frame 0.
        """
        if left.shape[2] == 0:
            return self.decode(latents)
        stream = self.stream()
        stream.warm_up(left, latents.shape[2])
        return stream.decode(latents)


class Intake:
    """A video being encoded, some images after others: equal to encoding the whole at once.

    What it keeps is the feature cache and up to three images, so a video of any length needs the memory of a piece.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._cache: list[Tensor | str | None] = [None] * codec.network._cached_conv_counts["encoder"]
        self._waiting: list[Tensor] = []
        self._begun = False

    def encode(self, images: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b c t h w"]:
        """The latents of the frames that are complete with these images in -1..1; what is over waits for the next."""
        codec = self.codec
        pixels = torch.cat([*self._waiting, patchify(images.to(codec.device, codec.dtype), codec._patch)], dim=2)
        parts = []
        if not self._begun and pixels.shape[2]:
            self._begun = True
            parts.append(self._pass(pixels[:, :, :1]))
            pixels = pixels[:, :, 1:]
        whole = pixels.shape[2] // codec.temporal_ratio * codec.temporal_ratio
        b, _, _, h, w = images.shape
        if whole:
            together = encoded_together(codec.network, h, w)
            parts += map(self._pass, pixels[:, :, :whole].split(together, dim=2))
        self._waiting = [pixels[:, :, whole:]]
        size = h // codec.spatial_ratio, w // codec.spatial_ratio
        return torch.cat(parts, dim=2) if parts else images.new_zeros(b, codec.channels, 0, *size)

    def finish(self) -> Float[Tensor, "b c 0 h w"]:
        """The latents of what still waits at the end of a video: none, since each frame came with its last image."""
        codec, (b, _, _, h, w) = self.codec, self._waiting[0].shape
        ratio = codec.spatial_ratio // codec._patch
        return torch.zeros(b, codec.channels, 0, h // ratio, w // ratio, device=codec.device)

    @torch.no_grad()
    def _pass(self, pixels: Tensor) -> Float[Tensor, "b c t h w"]:
        codec, network = self.codec, self.codec.network
        features = network.encoder(pixels, feat_cache=self._cache, feat_idx=[0])
        mean = network.quant_conv(features).chunk(2, dim=1)[0].float()
        return (mean - codec._mean.to(mean.device)) / codec._deviation.to(mean.device)


class Stream:
    """A video being decoded, section by section, each frame once.

    Equal to decoding the whole at once; and two streams that get the same frames in the same chunks give the same bits.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._cache: list[Tensor | str | None] = [None] * codec.network._cached_conv_counts["decoder"]
        self._begun = False

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 T H W"]:
        """The images, in -1..1, of the next frames: four each, but one of frame 0."""
        if self._begun:
            return self._pass(latents)
        self._begun = True
        first = self._pass(latents[:, :, :1], first=True)
        if latents.shape[2] == 1:
            return first
        return torch.cat([first, self._pass(latents[:, :, 1:])], dim=2)

    def warm_up(self, latents: Float[Tensor, "b c t h w"], generated: int) -> Float[Tensor, "b 3 T H W"]:
        """Brings a new stream to the state behind `latents`: `Codec.lead` frames, or all since frame 0.

        After the first one they pass in chunks that end where the sections of `generated` frames before what follows
        do, so that this is bit for bit what it was in a run that was not stopped. Returns the last chunk's images.
        """
        images, rest = self.decode(latents[:, :, :1]), latents[:, :, 1:]
        over = rest.shape[2] % generated
        for chunk in (rest[:, :, :over], *rest[:, :, over:].split(generated, dim=2)):
            if chunk.shape[2]:
                images = self.decode(chunk)
        return images

    def _pass(self, latents: Float[Tensor, "b c t h w"], first: bool = False) -> Float[Tensor, "b 3 T H W"]:
        height, width = (self.codec.spatial_ratio * side for side in latents.shape[3:])
        together = decoded_together(self.codec.network, latents.shape[2], height, width)
        parts = [self._pass_together(part, first) for part in latents.split(together, dim=2)]
        return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]

    @torch.no_grad()
    def _pass_together(self, latents: Float[Tensor, "b c t h w"], first: bool) -> Float[Tensor, "b 3 T H W"]:
        codec, network = self.codec, self.codec.network
        z = latents.to(codec.device, torch.float32) * codec._deviation.to(codec.device) + codec._mean.to(codec.device)
        features = network.post_quant_conv(z.to(codec.dtype))
        images = network.decoder(features, feat_cache=self._cache, feat_idx=[0], first_chunk=first)
        return unpatchify(images, codec._patch).clamp(-1.0, 1.0)
