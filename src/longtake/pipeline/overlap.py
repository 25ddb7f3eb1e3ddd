"""Latents to images where a section is decoded with its neighbors, as HunyuanVideo's codec wants it.

A section's images are final when both neighbors in time are there (`backbones/hunyuan/stream.py`). In time order, in
either direction, one stream goes through all sections; in any other order each is decoded by a stream of its own, once
between its neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.stream import Finished, SectionStream
from longtake.backbones.pixels import to_images
from longtake.pipeline.decoded import Decoded
from longtake.pipeline.run import Run, frames_of
from longtake.pipeline.seam import close_seam
from longtake.plan import Plan, Section

__all__ = ["NeighborDecoder", "OverlapDecoder"]

AROUND = 9  # frames of a source that stand for the section next to what is made


class _Sections:
    """The sections of a run by their places in time, as a stream takes them.

    A stream's frame 0 stands for one image. So the start image comes with the first section; where frame 0 is made, it
    stands for four, and a copy of it comes before it, whose image is thrown away. Frames of a source stand for the
    sections around what is made.
    """

    def __init__(self, run: Run, plan: Plan, codec: HunyuanCodec) -> None:
        self.run, self.plan, self.codec = run, plan, codec
        self.by_place = plan.by_place()
        self._shift = int(run.config.first == 0)
        self._frames = run.config.frames + plan.beyond + self._shift

    def stream(self) -> SectionStream:
        """A new one."""
        return SectionStream(self.codec, self._frames)

    def has(self, place: int) -> bool:
        """True if the latents of a place are there, made or of a source."""
        if place in self.by_place:
            return self.run.has_section(self.by_place[place].index)
        return self.is_source(place)

    def is_source(self, place: int) -> bool:
        """True if frames of a source are at that place, next to what is made."""
        source = self.run.config.source
        if source is None:
            return False
        return place == {"after": -1, "before": len(self.by_place)}[source.side]

    def frames(self, place: int) -> range:
        """The stream's numbers of the frames at a place."""
        if place == -1:
            stop = self.run.config.first
            return range(max(0, stop - AROUND), stop)
        if place == len(self.by_place):
            start = self.run.config.frames + self._shift
            return range(start, min(start + AROUND, self._frames))
        made = self.by_place[place].frames
        begins_video = place == 0 and self.run.config.source is None
        first = 0 if begins_video or made[0] == 0 else made[0] + self._shift
        return range(first, made[-1] + 1 + self._shift)

    def latents(self, place: int) -> Float[Tensor, "1 c t h w"]:
        """Their latents."""
        frames = self.frames(place)
        if place == len(self.by_place):  # a source's first frame is of one image, and what leads to it ends with that
            return self.run.read_source(range(1, 1 + len(frames)))
        if place in self.by_place and self._shift and frames.start == 0:
            made = frames_of(self.run, self.by_place, range(len(frames) - 1))
            return torch.cat([made[:, :, :1], made], dim=2)
        return frames_of(self.run, self.by_place, range(frames.start - self._shift, frames.stop - self._shift))

    def place_of(self, done: Finished) -> int:
        """The place of what a stream finished."""
        return next(place for place in self.by_place if self.frames(place) == done.frames)

    def own(self, finished: Sequence[Finished], place: int) -> Finished:
        """Of what a stream finished, that of a place."""
        return next(done for done in finished if done.frames == self.frames(place))

    def decoded(self, done: Finished) -> Decoded:
        """The images of a section as they are shown."""
        place, images = self.place_of(done), to_images(done.images)[0]
        if self._shift and place == 0:
            images = images[1:]
        if self.run.config.source is None:
            return Decoded(place, images)
        return Decoded(place, close_seam(self.run, place, self._before(place, images), images))

    def _before(self, place: int, images: np.ndarray) -> np.ndarray:
        """The image before those of a place, as the codec shows it; only that of a source is asked for."""
        if place == 0 and self.is_source(-1):
            return to_images(self.codec.decode(self.latents(-1)))[0, -1]
        return images[0]


class OverlapDecoder:
    """For plans in the order of time, or against it: one stream through all sections."""

    def __init__(self, run: Run, plan: Plan, codec: HunyuanCodec) -> None:
        self.run, self.plan = run, plan
        self.sections = _Sections(run, plan, codec)
        self.stream: SectionStream | None = None
        places = [plan.place_of(section) for section in plan.sections]
        self.step = 1 if places == sorted(places) else -1
        self.last = places[-1]

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images that are final with `section`, unless they are on disk already."""
        place = self.plan.place_of(section)
        before = place - self.step
        ends = [before] if before in self.sections.by_place else []
        ends += [place] if place == self.last else []
        if all(self.run.has_segment(end) for end in ends):
            self.stream = None
            return
        if self.stream is None:
            self.stream = self._begun(before)
        for done in self.stream.add(self.sections.frames(place), self.sections.latents(place)):
            decoded = self.sections.decoded(done)
            if not self.run.has_segment(decoded.place):
                yield decoded
        if place == self.last and not self.run.has_segment(place):  # a source follows, or precedes
            yield from self._closed(place)

    def _begun(self, before: int) -> SectionStream:
        """A stream that stands behind the section at the place before."""
        sections, stream = self.sections, self.sections.stream()
        if before in sections.by_place and sections.has(before):
            earlier = before - self.step
            if sections.has(earlier):
                stream.warm_up(sections.frames(earlier), sections.latents(earlier))
            stream.add(sections.frames(before), sections.latents(before))
        elif sections.is_source(before):
            stream.warm_up(sections.frames(before), sections.latents(before))
        return stream

    def _closed(self, place: int) -> Iterator[Decoded]:
        beyond = place + self.step
        assert self.stream is not None
        if self.sections.is_source(beyond):
            done = self.stream.add(self.sections.frames(beyond), self.sections.latents(beyond))
            yield self.sections.decoded(self.sections.own(done, place))


class NeighborDecoder:
    """For plans in any other order: each section once its neighbors in time are there."""

    def __init__(self, run: Run, plan: Plan, codec: HunyuanCodec) -> None:
        self.run, self.plan = run, plan
        self.sections = _Sections(run, plan, codec)

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of those sections that are final now and are not on disk."""
        place = self.plan.place_of(section)
        for candidate in (place - 1, place, place + 1):
            if candidate in self.sections.by_place and self._ready(candidate) and not self.run.has_segment(candidate):
                yield self._decode(candidate)

    def _ready(self, place: int) -> bool:
        inside = self.sections.by_place
        return all(self.sections.has(p) for p in (place - 1, place, place + 1) if p in inside)

    def _decode(self, place: int) -> Decoded:
        sections, stream = self.sections, self.sections.stream()
        if sections.has(place - 1):
            stream.warm_up(sections.frames(place - 1), sections.latents(place - 1))
        done = stream.add(sections.frames(place), sections.latents(place))
        if not done:
            done = stream.add(sections.frames(place + 1), sections.latents(place + 1))
        return sections.decoded(sections.own(done, place))
