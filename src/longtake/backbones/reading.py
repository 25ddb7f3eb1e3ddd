"""How a section reads what is known, beside what its schedule says."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.backbone import Backbone
from longtake.flow import denoise
from longtake.packing import Compared, History, Importance, Packed, pack, rank, score
from longtake.plan import Plan, Section

__all__ = ["Reading", "read"]

CHUNK = 256  # frames of history that are compared at a time


@dataclass(frozen=True, slots=True)
class Reading:
    """By what a section chooses and changes its history. The default takes it as it is planned."""

    importance: Importance = field(default_factory=Importance)

    @property
    def forgets(self) -> bool:
        """True if only those frames are read that the plan names."""
        return self.importance.by == "time"


@torch.no_grad()
def read(
    backbone: Backbone,
    plan: Plan,
    section: Section,
    history: History,
    reading: Reading,
    x: Float[Tensor, "b c t h w"],
    text: Float[Tensor, "b s d"],
) -> Packed:
    """What a section sees, packed; `x` is the noise that it is made of.

    History is ranked for one video at a time (`b` is 1), since each has an order of its own.
    """
    if reading.importance.by != "time":
        section = rank(section, plan, _scores(backbone, section, history, reading.importance, x, text))
    return pack(section, history, backbone.patchify, backbone.axes)


def _scores(
    backbone: Backbone, section: Section, history: History, importance: Importance, x: Tensor, text: Tensor
) -> dict[int, float]:
    """The scores of all known frames."""
    known = sorted(history.known)
    if importance.estimate == "first_step":
        estimate = _first_step(backbone, section, history, x, text)
    else:
        first, last = section.frames[0], section.frames[-1]
        estimate = history.read([min(known, key=lambda f: max(first - f, f - last))])
    scores: dict[int, float] = {}
    for chunk in (known[at : at + CHUNK] for at in range(0, len(known), CHUNK)):
        frames = history.read(chunk)
        seconds = torch.tensor([_begins(backbone, f) for f in chunk], device=frames.device)
        begins = _begins(backbone, section.frames[0])
        compared = Compared(frames[0].transpose(0, 1), seconds, estimate[0].transpose(0, 1), begins)
        scores |= zip(chunk, score(compared, importance).tolist(), strict=True)
    return scores


def _first_step(backbone: Backbone, section: Section, history: History, x: Tensor, text: Tensor) -> Tensor:
    """The clean section that the model sees in its noise, with history in order of time."""
    packed = pack(section, history, backbone.patchify, backbone.axes)
    return denoise(lambda x, sigma: backbone.velocity(x, sigma, text, packed), x, torch.ones(len(x), device=x.device))


def _begins(backbone: Backbone, frame: int) -> float:
    """When the first image of a frame is shown, in seconds: frame 0 is one image, the others are several."""
    ratio = backbone.codec.temporal_ratio
    return max(0, ratio * frame - ratio + 1) / backbone.settings.fps
