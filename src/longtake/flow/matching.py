"""What a network learns: the velocity from clean to noise along a straight line."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["denoise", "draw_sigmas", "interpolate", "target_velocity"]


def interpolate(
    clean: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """The point `(1 - sigma) clean + sigma noise` of each sample.

    >>> interpolate(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0.25, 1.0]))
    tensor([[0.2500],
            [1.0000]])
    """
    return torch.lerp(clean, noise, sigma.view(-1, *[1] * (clean.ndim - 1)).to(clean.dtype))


def target_velocity(clean: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """`noise - clean`: the same everywhere on the line."""
    return noise - clean


def denoise(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "b ..."],
    sigma: Float[Tensor, " b"],
    steps: int = 1,
) -> Float[Tensor, "b ..."]:
    """The clean end of the flow from `x`, each sample at a level of its own, in equal straight steps.

    >>> clean, sigma = torch.full((2, 1), 3.0), torch.tensor([0.5, 1.0])
    >>> denoise(lambda x, s: (x - clean) / s[:, None], interpolate(clean, torch.zeros(2, 1), sigma), sigma, steps=2)
    tensor([[3.],
            [3.]])
    """
    for step in range(steps):
        v = velocity(x, sigma * (1 - step / steps))
        x = x - (sigma / steps).view(-1, *[1] * (x.ndim - 1)) * v
    return x


def draw_sigmas(
    count: int, generator: torch.Generator, shift: float = 1.0, uniform_share: float = 0.0
) -> Float[Tensor, " b"]:
    """Noise levels to train at, in float32 on the generator's device.

    Logit-normal (arXiv 2403.03206, section 3.1) but for a share that is uniform, all shifted as sampling is.
    """
    device = generator.device
    t = torch.sigmoid(torch.randn(count, generator=generator, device=device))
    even = torch.rand(count, generator=generator, device=device)
    t = torch.where(torch.rand(count, generator=generator, device=device) < uniform_share, even, t)
    return shift * t / (1.0 + (shift - 1.0) * t)
