"""What a HunyuanVideo network is told beside noise, time and history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["HunyuanConditioning", "concatenate"]


@dataclass(frozen=True, slots=True)
class HunyuanConditioning:
    """A prompt as both text encoders read it, the start image as SigLIP sees it, and the distilled guidance."""

    text: Float[Tensor, "b s d"]  # of the language model; real tokens first
    mask: Bool[Tensor, "b s"]  # True for real tokens
    pooled: Float[Tensor, "b p"]  # of CLIP
    image: Float[Tensor, "b m k"] | None = None  # tokens of the image; None for a network that looks at none
    guidance: float = 10.0  # what the network was distilled to obey, not classifier-free (the official program's 10)

    def to(self, device: torch.device, dtype: torch.dtype) -> HunyuanConditioning:
        """The same on a device, the mask still of bools."""
        image = None if self.image is None else self.image.to(device, dtype)
        text, pooled = self.text.to(device, dtype), self.pooled.to(device, dtype)
        return replace(self, text=text, mask=self.mask.to(device), pooled=pooled, image=image)

    def expand(self, batch: int) -> HunyuanConditioning:
        """One prompt told to every sample of a batch; a batch of that size stays as it is."""
        image = None if self.image is None else self.image.expand(batch, -1, -1)
        text, mask = self.text.expand(batch, -1, -1), self.mask.expand(batch, -1)
        return replace(self, text=text, mask=mask, pooled=self.pooled.expand(batch, -1), image=image)


def concatenate(parts: Sequence[HunyuanConditioning]) -> HunyuanConditioning:
    """Several prompts as one batch; shorter texts are padded behind their real tokens.

    >>> def told(length):
    ...     return HunyuanConditioning(torch.ones(1, length, 4), torch.ones(1, length).bool(), torch.ones(1, 3))
    >>> concatenate([told(2), told(3)]).mask.tolist()
    [[True, True, False], [True, True, True]]

    Raises:
        ValueError: some have an image and others none, or they are guided differently.
    """
    first = parts[0]
    if any(part.guidance != first.guidance for part in parts):
        guided = ", ".join(f"{part.guidance:g}" for part in parts)
        raise ValueError(f"one batch, guided by {guided}: expected one number")
    images = [part.image for part in parts if part.image is not None]
    if images and len(images) != len(parts):
        raise ValueError(f"{len(images)} of {len(parts)} prompts have an image: expected all or none")
    longest = max(part.mask.shape[1] for part in parts)
    lacks = [longest - part.mask.shape[1] for part in parts]
    return HunyuanConditioning(
        text=torch.cat([nn.functional.pad(p.text, (0, 0, 0, n)) for p, n in zip(parts, lacks, strict=True)]),
        mask=torch.cat([nn.functional.pad(p.mask, (0, n)) for p, n in zip(parts, lacks, strict=True)]),
        pooled=torch.cat([part.pooled for part in parts]),
        image=torch.cat(images) if images else None,
        guidance=first.guidance,
    )
