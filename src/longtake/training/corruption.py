"""What is done to the history in training, so that a model is not surprised by its own small errors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.training.config import CorruptionConfig

__all__ = ["corrupt"]


def corrupt(
    frames: Float[Tensor, "b c t h w"], config: CorruptionConfig, generator: torch.Generator
) -> Float[Tensor, "b c t h w"]:
    """The frames with noise mixed in, at one level a video; frame 0, the user's own image, stays clean."""
    b, device = frames.shape[0], frames.device
    level = torch.rand(b, 1, 1, 1, 1, generator=generator, device=device) * config.noise
    level = torch.where(torch.rand(level.shape, generator=generator, device=device) < config.noisy_share, level, 0.0)
    noise = torch.randn(frames.shape, generator=generator, device=device, dtype=frames.dtype)
    mixed = torch.lerp(frames, noise, level.to(frames.dtype))
    return torch.cat([frames[:, :, :1], mixed[:, :, 1:]], dim=2)
