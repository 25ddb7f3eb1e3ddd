"""What is done to the history in training, so that a model is not surprised by its own errors.

The changes come in one order, whatever the config says them in, each to its own share of what is seen:

    own history   frames as the model itself would have made them, instead of the true ones (made by the stage)
    errors        + gamma (x_hat - x), errors that the model made before, from a bank
    downsampled   averaged over squares of latent pixels, and enlarged again
    channels      each latent channel times a gain, plus a shift
    noise         one level a video or a level a frame, the higher of them
    dropped       zeros

In the samples of the clean-prefix curriculum the far frames are the true ones, whatever befell the others, and the near
ones are noise or nearly so. Frame 0, the user's own image, stays as it is. Every draw is from one generator on the
device; none makes the host wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from longtake.training.config import CorruptionConfig

__all__ = ["ErrorBank", "Seen", "corrupt"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Frames as a section is to see them, and how much noise is in each: 1 where nothing is left of it."""

    frames: Float[Tensor, "b c t h w"]
    sigma: Float[Tensor, "b t"]

    @classmethod
    def clean(cls, frames: Float[Tensor, "b c t h w"]) -> Seen:
        """Frames without noise."""
        return cls(frames, frames.new_zeros(frames.shape[0], frames.shape[2], dtype=torch.float32))


class ErrorBank:
    """Errors that a model made on sections, x_hat - x, each beside the noise level that it was made at.

    The newest replace the oldest. Its tensors are changed in place: they are its whole state.

    >>> bank = ErrorBank(4, (1, 1, 1, 1))
    >>> bank.keep(torch.tensor([0.5, 0.25]).view(2, 1, 1, 1, 1), torch.tensor([0.9, 0.2]))
    >>> bank.nearest(torch.tensor([0.0, 1.0])).flatten()
    tensor([0.2500, 0.5000])
    """

    def __init__(
        self, size: int, shape: Sequence[int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.errors = torch.zeros(size, *shape, device=device, dtype=dtype)
        self.sigmas = torch.full((size,), torch.inf, device=device)  # a place that is empty is no level's nearest
        self.kept = torch.zeros((), dtype=torch.int64)  # on the CPU: where the next error goes

    @torch.no_grad()
    def keep(self, errors: Float[Tensor, "b c g h w"], sigma: Float[Tensor, " b"]) -> None:
        """Adds the errors of a batch of sections."""
        size, first = len(self.sigmas), int(self.kept)
        new = min(len(errors), size)
        places = (torch.arange(first, first + new) % size).to(self.sigmas.device)
        self.errors[places] = errors[-new:].to(self.errors.dtype)
        self.sigmas[places] = sigma[-new:]
        self.kept += new

    def nearest(self, levels: Float[Tensor, " n"]) -> Float[Tensor, "n c g h w"]:
        """The errors made nearest to these noise levels; zeros from an empty bank."""
        return self.errors[(self.sigmas[None] - levels[:, None]).abs().argmin(1)]

    def state(self) -> Mapping[str, Tensor]:
        """The tensors themselves."""
        return {"errors": self.errors, "sigmas": self.sigmas, "kept": self.kept}


def corrupt(
    frames: Float[Tensor, "b c t h w"],
    config: CorruptionConfig,
    generator: torch.Generator,
    near: Sequence[int] = (),
    own: Float[Tensor, "b c t h w"] | None = None,
    bank: ErrorBank | None = None,
) -> Seen:
    """What a section sees of the true `frames`; a switch whose share is 0 draws nothing.

    `near` are the frames that the clean-prefix curriculum takes away, `own` is the same video with frames as the model
    itself makes them.
    """
    c, b, t = config, frames.shape[0], frames.shape[2]
    mixed = frames if own is None else own
    if c.recycle.share and bank is not None:
        mixed = _with_errors(mixed, c, generator, bank)
    if c.downsample.share:
        mixed = _downsampled(mixed, c, generator)
    if c.channels.share:
        mixed = _with_other_channels(mixed, c, generator)
    level = torch.rand(b, 1, generator=generator, device=frames.device) * c.noise
    level = torch.where(_share(c.noisy_share, generator, b, 1), level, 0.0)
    noise = torch.randn(frames.shape, generator=generator, device=frames.device, dtype=frames.dtype)
    if c.frame_noise.share:
        levels = torch.rand(b, t, generator=generator, device=frames.device) * c.frame_noise.noise
        level = torch.maximum(level, torch.where(_share(c.frame_noise.share, generator, b, t), levels, 0.0))
    gone = torch.zeros(b, t, dtype=torch.bool, device=frames.device)
    if c.drop.share:
        gone = _share(c.drop.share, generator, b, 1) & _share(c.drop.frames, generator, b, t)
    if c.prefix.share and near:
        chosen = _share(c.prefix.share, generator, b, 1)
        close = torch.tensor([f in near for f in range(t)], device=frames.device)
        lowest, highest = c.prefix.noise
        high = lowest + (highest - lowest) * torch.rand(b, 1, generator=generator, device=frames.device)
        mixed = torch.where(_over_frames(chosen), frames, mixed)
        level = torch.where(chosen, torch.where(close, high, 0.0), level)
        gone = torch.where(chosen, close & _share(c.prefix.dropped, generator, b, 1), gone)
    mixed = torch.lerp(mixed, noise, _over_frames(level).to(frames.dtype))
    mixed = torch.where(_over_frames(gone), 0.0, mixed)
    sigma = torch.where(gone, 1.0, level.expand(b, t))
    sigma[:, 0] = 0.0
    return Seen(torch.cat([frames[:, :, :1], mixed[:, :, 1:]], dim=2), sigma)


def _share(share: float, generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) < share


def _over_frames(values: Tensor) -> Tensor:
    """Values "b t", or "b 1" for all frames, so that they broadcast over "b c t h w"."""
    return values[:, None, :, None, None]


def _with_errors(frames: Tensor, c: CorruptionConfig, generator: torch.Generator, bank: ErrorBank) -> Tensor:
    """Each section of the history with an error that a section was made with, at the same places of the picture."""
    b, t, g = frames.shape[0], frames.shape[2], bank.errors.shape[2]
    sections = -(-(t - 1) // g)
    levels = torch.rand(b * sections, generator=generator, device=frames.device) * c.recycle.highest
    lowest, highest = c.recycle.gamma
    gamma = lowest + (highest - lowest) * torch.rand(b, sections, generator=generator, device=frames.device)
    gamma = torch.where(_share(c.recycle.share, generator, b, 1), gamma, 0.0)
    errors = rearrange(bank.nearest(levels), "(b s) c g h w -> b c (s g) h w", b=b)[:, :, : t - 1]
    weight = _over_frames(gamma.repeat_interleave(g, dim=1)[:, : t - 1]).to(frames.dtype)
    return torch.cat([frames[:, :, :1], frames[:, :, 1:] + weight * errors], dim=2)


def _downsampled(frames: Tensor, c: CorruptionConfig, generator: torch.Generator) -> Tensor:
    """Some samples averaged over squares whose side is one of the factors, as a coarser kernel would see them."""
    b, _, t, h, w = frames.shape
    chosen = _share(c.downsample.share, generator, b, 1)
    which = torch.randint(len(c.downsample.factors), (b, 1), generator=generator, device=frames.device)
    pictures, mixed = rearrange(frames, "b c t h w -> (b t) c h w"), frames
    for number, side in enumerate(c.downsample.factors):
        padded = nn.functional.pad(pictures, (0, -w % side, 0, -h % side), mode="replicate")
        large = repeat(nn.functional.avg_pool2d(padded, side), "n c h w -> n c (h i) (w j)", i=side, j=side)
        coarse = rearrange(large[..., :h, :w], "(b t) c h w -> b c t h w", t=t)
        mixed = torch.where(_over_frames(chosen & (which == number)), coarse, mixed)
    return mixed


def _with_other_channels(frames: Tensor, c: CorruptionConfig, generator: torch.Generator) -> Tensor:
    """Some samples with each channel times 1 + gain n, plus shift n, for two n of unit variance."""
    b, channels = frames.shape[:2]
    size = torch.where(_share(c.channels.share, generator, b, 1), 1.0, 0.0)
    gain, shift = size * torch.randn(2, b, channels, generator=generator, device=frames.device)
    factor, addend = 1.0 + c.channels.gain * gain, c.channels.shift * shift
    return frames * factor[..., None, None, None].to(frames.dtype) + addend[..., None, None, None].to(frames.dtype)
