"""What a section sees, as tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.packing.history import History
from longtake.packing.patchify import Patchify
from longtake.packing.rope import Phases, RopeAxes, phases
from longtake.plan import Section

__all__ = ["Packed", "pack"]


@dataclass(frozen=True, slots=True)
class Packed:
    """The history of a section as tokens, their rotary phases, and the phases of the section's own tokens."""

    tokens: Float[Tensor, "b n d"]
    cos: Float[Tensor, "n e"]
    sin: Float[Tensor, "n e"]
    target_cos: Float[Tensor, "m e"]
    target_sin: Float[Tensor, "m e"]


def pack(section: Section, history: History, patchify: Patchify, axes: RopeAxes) -> Packed:
    """The tokens of everything that `section` sees, in the order of its looks.

    A section that sees nothing has no tokens, but its own frames have their phases. Gradients reach the weights of
    `patchify`. Depends on nothing that changes between the steps of a section: pack once, step often.
    """
    weight = next(patchify.parameters())
    batch, _, height, width = history.shape

    def phases_of(positions: tuple[float, ...], kernel: object) -> Phases:
        return phases(positions, height, width, kernel, axes, weight.device)

    seen = [phases_of(look.positions, look.kernel) for look in section.sees]
    own = phases_of(section.positions, axes.patch)
    tokens = [
        patchify(history.read(look.frames).to(device=weight.device, dtype=weight.dtype), look.kernel)
        for look in section.sees
    ]
    return Packed(
        tokens=torch.cat(tokens, 1) if tokens else weight.new_zeros(batch, 0, patchify.width),
        cos=torch.cat([p.cos for p in seen]) if seen else own.cos[:0],
        sin=torch.cat([p.sin for p in seen]) if seen else own.sin[:0],
        target_cos=own.cos,
        target_sin=own.sin,
    )
