"""What a section sees, as tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from longtake.packing.history import History
from longtake.packing.patchify import Patchify
from longtake.packing.rope import RopeAxes, phases
from longtake.packing.tail import appended, compressed
from longtake.plan import Look, Section

__all__ = ["Packed", "pack", "resized"]


_SHOWN = {"": lambda frames, kernel: frames, "ta": appended, "tc": compressed}  # what a kernel is shown of a look


@dataclass(frozen=True, slots=True)
class Packed:
    """The history of a section as tokens, their rotary phases and noise levels, and the phases of its own tokens."""

    tokens: Float[Tensor, "b n d"]
    cos: Float[Tensor, "n e"]
    sin: Float[Tensor, "n e"]
    target_cos: Float[Tensor, "m e"]
    target_sin: Float[Tensor, "m e"]
    sigma: Float[Tensor, "b n"]


def pack(section: Section, history: History, patchify: Patchify, axes: RopeAxes) -> Packed:
    """The tokens of everything that `section` sees, in the order of its looks.

    A section that sees nothing has no tokens, but its own frames have their phases. Gradients reach the weights of
    `patchify`. Nothing here changes between the steps of a section: pack once, step often.
    """
    weight = next(patchify.parameters())
    batch, _, height, width = history.shape

    def tokens_of(look: Look) -> Tensor:
        frames = history.show(look.frames, look.kernel).to(device=weight.device, dtype=weight.dtype)
        return patchify(_SHOWN[look.tail](frames, look.kernel), look.kernel)

    def levels_of(look: Look) -> Tensor:
        pooling = look.pooling(height, width)
        levels = history.levels(look.frames).to(weight.device)
        levels = nn.functional.pad(levels, (0, -len(look.frames) % pooling.t), mode="replicate")
        means = reduce(levels, "b (t size) -> b t", "mean", size=pooling.t)
        return means.repeat_interleave(pooling.tokens(1, height, width), dim=1)

    seen = [
        phases(look.positions, height, width, look.pooling(height, width), axes, weight.device) for look in section.sees
    ]
    own = phases(section.positions, height, width, axes.patch, axes, weight.device)
    return Packed(
        tokens=torch.cat([weight.new_zeros(batch, 0, patchify.width), *map(tokens_of, section.sees)], dim=1),
        cos=torch.cat([own.cos[:0], *(p.cos for p in seen)]),
        sin=torch.cat([own.sin[:0], *(p.sin for p in seen)]),
        target_cos=own.cos,
        target_sin=own.sin,
        sigma=torch.cat([own.cos.new_zeros(batch, 0), *map(levels_of, section.sees)], dim=1),
    )


def resized(packed: Packed, section: Section, height: int, width: int, axes: RopeAxes) -> Packed:
    """The same history for a section that is made on another latent grid, as the coarse stages of a pyramid are.

    Rows and columns of that grid are counted from 0, too, in patches of its own: the history stays as it is.
    """
    own = phases(section.positions, height, width, axes.patch, axes, packed.target_cos.device)
    return replace(packed, target_cos=own.cos, target_sin=own.sin)
