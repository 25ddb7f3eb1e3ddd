"""How a section reads what is known, beside what its schedule says."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.backbone import Backbone
from longtake.backbones.families import Conditioning
from longtake.backbones.settings import BackboneSettings
from longtake.flow import GUIDES, Velocity, denoise, guide_history, noise
from longtake.packing import Compared, History, Importance, Packed, RopeAxes, pack, rank, resized, score
from longtake.plan import Plan, Section

__all__ = ["Context", "Draft", "Reading", "Told", "read", "velocity_of"]

CHUNK = 256  # frames of history that are compared at a time


@dataclass(frozen=True, slots=True)
class Reading:
    """By what a section chooses and changes its history. The default takes it as it is planned."""

    importance: Importance = field(default_factory=Importance)
    sigma: float = 0.0  # of the noise that is mixed into made frames before they are seen
    guidance: float = 1.0  # history guidance; 1: none
    without: float | Literal["drop"] = "drop"  # what that leads away from: made frames at this sigma, or zeros

    @classmethod
    def usual(cls, settings: BackboneSettings) -> Reading:
        """The model's own choice."""
        s = settings
        return cls(sigma=s.history_sigma, guidance=s.history_guidance, without=s.history_without)

    @property
    def forgets(self) -> bool:
        """True if only those frames are read that the plan names."""
        return self.importance.by == "time"


@dataclass(frozen=True, slots=True)
class Draft:
    """What sections are made of, side by side: their noise, their prompts, and the seeds that noise belongs to."""

    x: Float[Tensor, "b c t h w"]
    told: Conditioning
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Context:
    """What a section sees, and what it would see without its history if guidance leads away from that."""

    section: Section
    packed: Packed
    without: Packed | None = None

    def sized(self, height: int, width: int, axes: RopeAxes) -> Context:
        """The same for a section that is made on another latent grid, such as a coarse one."""

        def at(packed: Packed) -> Packed:
            return resized(packed, self.section, height, width, axes)

        return Context(self.section, at(self.packed), self.without and at(self.without))


@dataclass(frozen=True, slots=True)
class Told:
    """The prompt of a section, and the one that guidance leads away from, if any does."""

    positive: Conditioning
    negative: Conditioning | None = None
    guidance: float = 1.0
    rescale: float = 0.0
    guide: Literal["plain", "zero_star"] = "plain"  # how it leads, one of `GUIDES`


def velocity_of(backbone: Backbone, context: Context, told: Told, history_guidance: float) -> Velocity:
    """What a solver follows: the velocity of a section that sees `context`, guided by prompt and history.

    It can be asked on any latent grid; history stays on its own.
    """
    on_grid = functools.cache(lambda height, width: context.sized(height, width, backbone.axes))

    def velocity(x: Float[Tensor, "b c t h w"], sigma: float) -> Float[Tensor, "b c t h w"]:
        at = on_grid(*x.shape[3:])
        seen = guided = backbone.velocity(x, sigma, told.positive, at.packed)
        if told.negative is not None:
            other = backbone.velocity(x, sigma, told.negative, at.packed, "negative")
            guided = GUIDES[told.guide](seen, other, told.guidance, told.rescale)
        if at.without is None:
            return guided
        unseen = backbone.velocity(x, sigma, told.positive, at.without, "without history")
        return guide_history(guided, seen, unseen, history_guidance)

    return velocity


@torch.no_grad()
def read(backbone: Backbone, plan: Plan, section: Section, history: History, reading: Reading, draft: Draft) -> Context:
    """What a section sees, packed.

    Real images, the user's own, are neither noised nor dropped, and where a section sees nothing else, there is nothing
    for history guidance to lead away from. Noise in history belongs to (seed, section). History is ranked for one video
    at a time, since each has an order of its own.
    """
    if reading.importance.by != "time":
        section = rank(section, plan, _scores(backbone, section, history, reading.importance, draft))

    def packed(history: History) -> Packed:
        return pack(section, history, backbone.patchify, backbone.axes)

    made = sorted((section.seen & history.known) - history.exact)
    shown = _noised(history, made, reading.sigma, section, draft.seeds) if reading.sigma and made else history
    if reading.guidance == 1.0 or not made:
        return Context(section, packed(shown))
    return Context(section, packed(shown), packed(_noised(history, made, reading.without, section, draft.seeds)))


def _noised(
    history: History, frames: Sequence[int], sigma: float | Literal["drop"], section: Section, seeds: Sequence[int]
) -> History:
    """The history with noise mixed into these frames, or with zeros for them, and known to be so."""
    clean, changed = history.read(frames), history.copy()
    told = clean.new_full((len(clean), len(frames)), 1.0 if sigma == "drop" else sigma, dtype=torch.float32)
    if sigma == "drop":
        changed.remember(frames, torch.zeros_like(clean), sigma=told)
    else:
        number = -1 - section.index  # another stream than that of the noise the section is made of
        each = [noise(clean.shape[1:], seed, number, clean.device, clean.dtype) for seed in seeds]
        changed.remember(frames, torch.lerp(clean, torch.stack(each), sigma), sigma=told)
    return changed


def _scores(
    backbone: Backbone, section: Section, history: History, importance: Importance, draft: Draft
) -> dict[int, float]:
    """The scores of all known frames."""
    known = sorted(history.known)
    if importance.estimate == "first_step":
        estimate = _first_step(backbone, section, history, draft)
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


def _first_step(backbone: Backbone, section: Section, history: History, draft: Draft) -> Tensor:
    """The clean section that the model sees in its noise, with history in order of time."""
    packed = pack(section, history, backbone.patchify, backbone.axes)
    pure = torch.ones(len(draft.x), device=draft.x.device)
    return denoise(lambda x, sigma: backbone.velocity(x, sigma, draft.told, packed, "estimate"), draft.x, pure)


def _begins(backbone: Backbone, frame: int) -> float:
    """When the first image of a frame is shown, in seconds: frame 0 is one image, the others are several."""
    ratio = backbone.codec.temporal_ratio
    return max(0, ratio * frame - ratio + 1) / backbone.settings.fps
