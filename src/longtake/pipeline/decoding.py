"""Latents to images, each frame decoded once, in whichever order sections arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones import Codec, Stream
from longtake.backbones.pixels import to_images
from longtake.pipeline.run import Run, frames_of
from longtake.plan import Plan, Section

__all__ = ["ContextDecoder", "Decoded", "StreamDecoder", "decoder_for"]

# Frames decoded and thrown away before a section that does not follow its neighbor, if that one has so many. With the
# embedded codec 9 give 65 dB to the exact images (2 gray levels at most), 4 give 50 dB (20 levels in the first image).
CONTEXT = 9


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images of a section, by its place in time; those of place 0 begin with the start image."""

    place: int
    images: np.ndarray


class StreamDecoder:
    """For plans in time order: one causal stream through all sections, exact."""

    def __init__(self, run: Run, plan: Plan, codec: Codec) -> None:
        self.run, self.plan, self.codec = run, plan, codec
        self.generated = plan.schedule.generated
        self.stream: Stream | None = None

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of `section`, unless they are on disk already."""
        place, first = section.index, section.frames[0]
        if self.run.has_segment(place):
            self.stream = None
            return
        if place == 0:
            self.stream = self.codec.stream()
            latents = torch.cat([self.run.read_start().to(latents.device), latents], dim=2)
        elif self.stream is None:  # after a stop: the stream is brought to where it was
            self.stream = self.codec.stream()
            known = range(max(0, first - self.codec.lead(self.generated)), first)
            self.stream.warm_up(frames_of(self.run, self.plan.by_place(), known), self.generated)
        yield Decoded(place, to_images(self.stream.decode(latents))[0])


class ContextDecoder:
    """For plans in any other order: a section is decoded once its earlier neighbor is there, behind some of it."""

    def __init__(self, run: Run, plan: Plan, codec: Codec) -> None:
        self.run, self.plan, self.codec = run, plan, codec
        self.generated = plan.schedule.generated
        self.by_place = plan.by_place()

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of those sections that can be decoded now and are not on disk."""
        place = (section.frames[0] - 1) // self.generated
        for candidate in (place, place + 1):
            ready = candidate in self.by_place and self.run.has_section(self.by_place[candidate].index)
            behind = candidate == 0 or (
                candidate - 1 in self.by_place and self.run.has_section(self.by_place[candidate - 1].index)
            )
            if ready and behind and not self.run.has_segment(candidate):
                yield self._decode(candidate)

    def _decode(self, place: int) -> Decoded:
        first = self.by_place[place].frames[0]
        left = first - min(CONTEXT, self.generated) if place > 1 else 0
        known = frames_of(self.run, self.by_place, range(left, first + self.generated))
        if place == 0:
            return Decoded(0, to_images(self.codec.decode(known))[0])
        context, own = known.split((first - left, self.generated), dim=2)
        return Decoded(place, to_images(self.codec.decode_with_context(context, own))[0])


def decoder_for(run: Run, plan: Plan, codec: Codec) -> StreamDecoder | ContextDecoder:
    """The exact stream where sections come in the order of time, else context."""
    firsts = [section.frames[0] for section in plan.sections]
    return (StreamDecoder if firsts == sorted(firsts) else ContextDecoder)(run, plan, codec)
