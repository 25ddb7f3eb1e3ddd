"""Stage `codec`: a causal video autoencoder, trained on clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from longtake.backbones.pixels import to_images, to_pixels
from longtake.backbones.saving import save_codec
from longtake.training.clips import Clips
from longtake.training.config import CodecConfig
from longtake.training.loop import Stage

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

__all__ = ["CodecStage", "psnr", "reconstruct"]


def reconstruct(
    codec: AutoencoderKLWan, pixels: Float[Tensor, "b 3 T H W"], noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The video after a round trip, with the mean and log-variance of its posterior, with gradients.

    The causal caches are used as when streaming, in two chunks: the first image alone, then all others at once.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify

    squeezed = patchify(pixels, codec.config["patch_size"])
    cache: list = [None] * codec._cached_conv_counts["encoder"]
    first = codec.encoder(squeezed[:, :, :1], feat_cache=cache, feat_idx=[0])
    rest = codec.encoder(squeezed[:, :, 1:], feat_cache=cache, feat_idx=[0])
    mean, variance = codec.quant_conv(torch.cat([first, rest], 2)).chunk(2, dim=1)
    variance = variance.clamp(-30.0, 20.0)
    latents = codec.post_quant_conv(mean + noise * torch.exp(0.5 * variance))
    cache = [None] * codec._cached_conv_counts["decoder"]
    first = codec.decoder(latents[:, :, :1], feat_cache=cache, feat_idx=[0], first_chunk=True)
    rest = codec.decoder(latents[:, :, 1:], feat_cache=cache, feat_idx=[0])
    return unpatchify(torch.cat([first, rest], 2), codec.config["patch_size"]), mean, variance


def psnr(images: Tensor, truth: Tensor) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each video of a batch, in dB; both in -1..1."""
    error = (images.clamp(-1, 1).float() - truth.float()).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error / 4.0)


def _edges(video: Tensor) -> tuple[Tensor, Tensor]:
    return video.diff(dim=-1), video.diff(dim=-2)


class CodecStage(Stage):
    """L1, L1 of image gradients, and a Kullback-Leibler term that keeps the latents near the unit normal."""

    def __init__(
        self,
        config: CodecConfig,
        network: AutoencoderKLWan,
        clips: Clips,
        held_out: Clips,
        device: str,
        rank: int = 0,
    ) -> None:
        self.config, self.clips, self.held_out, self.rank = config, clips, held_out, rank
        self.device, self.dtype = torch.device(device), getattr(torch, config.dtype)
        self.network = network
        nn.Module.to(self.network, device=self.device, dtype=self.dtype)
        self.forward = torch.compile(reconstruct, dynamic=False) if config.compile else reconstruct

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All of the autoencoder."""
        return self.network.named_parameters()

    def loss(self, step: int) -> Mapping[str, Tensor]:
        """The losses of a batch of random pieces of random clips."""
        c = self.config
        draw = np.random.default_rng((c.loop.seed, step, self.rank))
        clips = draw.integers(len(self.clips), size=c.batch)
        firsts = draw.integers(self.clips.images - c.images + 1, size=c.batch)
        pixels = to_pixels(self.clips.batch(clips.tolist(), firsts.tolist(), c.images), self.device, self.dtype)
        generator = torch.Generator(self.device).manual_seed(int(draw.integers(1 << 62)))
        shape = (c.batch, c.shape.channels, (c.images + 3) // 4, pixels.shape[-2] // 8, pixels.shape[-1] // 8)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        images, mean, variance = self.forward(self.network, pixels, noise)
        images, pixels, mean, variance = images.float(), pixels.float(), mean.float(), variance.float()
        error = (images - pixels).abs()
        absolute = error.mean() + c.first_weight * error[:, :, :1].mean()  # stills start every video, and are rare here
        pairs = zip(_edges(images), _edges(pixels), strict=True)
        edges = torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()
        divergence = 0.5 * (mean.square() + variance.exp() - 1.0 - variance).mean()
        return {
            "loss": absolute + c.edge_weight * edges + c.divergence_weight * divergence,
            "l1": absolute,
            "edges": edges,
            "divergence": divergence,
            "psnr": psnr(images, pixels).mean(),
        }

    def _round_trip(self, clips: Clips, clip: int) -> tuple[Tensor, Tensor, Tensor]:
        """A whole clip, its reconstruction from the posterior's mean, and that mean."""
        pixels = to_pixels(clips.batch([clip], [0], clips.images), self.device, self.dtype)
        images, mean, _ = reconstruct(self.network, pixels, torch.zeros((), device=self.device, dtype=self.dtype))
        return pixels, images, mean

    @torch.no_grad()
    def evaluate(self, folder: Path, step: int) -> Mapping[str, float]:
        """PSNR of whole held-out clips: of all images, of the worst clip, and of the first images, which are stills."""
        whole, firsts = [], []
        for clip in range(min(len(self.held_out), self.config.held_out_clips)):
            pixels, images, _ = self._round_trip(self.held_out, clip)
            whole.append(psnr(images, pixels).item())
            firsts.append(psnr(images[:, :, :1], pixels[:, :, :1]).item())
            if clip == 0:
                _write_comparison(folder / f"codec-{step:06d}.png", pixels, images)
        return {"held_out_psnr": float(np.mean(whole)), "worst_psnr": min(whole), "first_psnr": float(np.mean(firsts))}

    @torch.no_grad()
    def export(self, folder: Path) -> Path:
        """Measures mean and deviation of the latents on training clips, and writes `folder/vae`."""
        means = [self._round_trip(self.clips, clip)[2].float() for clip in range(min(len(self.clips), 64))]
        values = torch.cat([m.transpose(0, 1).flatten(1) for m in means], 1)
        self.network.register_to_config(latents_mean=values.mean(1).tolist(), latents_std=values.std(1).tolist())
        save_codec(folder / "vae", self.network)
        return folder


def _write_comparison(path: Path, pixels: Tensor, images: Tensor) -> None:
    """Eight moments of a clip above, the same of its reconstruction below."""
    moments = torch.linspace(0, pixels.shape[2] - 1, 8).long()
    rows = [rearrange(to_images(v[:, :, moments])[0], "t h w c -> h (t w) c") for v in (pixels, images)]
    Image.fromarray(np.concatenate(rows)).save(path)
