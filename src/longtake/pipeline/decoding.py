"""Latents to images, each frame decoded once, in whichever order sections arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones import Codec, Stream
from longtake.backbones.backbone import AnyCodec
from longtake.backbones.pixels import to_images
from longtake.pipeline.decoded import Decoded
from longtake.pipeline.overlap import NeighborDecoder, OverlapDecoder
from longtake.pipeline.run import Run, frames_of
from longtake.pipeline.seam import close_seam
from longtake.plan import Manner, Plan, Section

__all__ = ["ContextDecoder", "Decoded", "Decoder", "SingleDecoder", "StreamDecoder", "decoder_for"]

# Frames decoded and thrown away before a section that does not follow its neighbor, if that one has so many. With the
# embedded codec 9 give 65 dB to the exact images (2 gray levels at most), 4 give 50 dB (20 levels in the first image).
CONTEXT = 9

# Where frame 0 is made, it stands for four images like every frame, and nothing is before it. So the stream begins with
# it standing still for a while. On held-out clips that are cut in the middle the first images are then 3.6, 2.6, 1.9
# and 1.7 steps of 255 from the true ones (1.3 with the whole past); begun cold they are 12, and 5 after four images.
STILL = 4


class StreamDecoder:
    """For plans in time order: one causal stream through all sections, exact."""

    def __init__(self, run: Run, plan: Plan, codec: Codec) -> None:
        self.run, self.plan, self.codec = run, plan, codec
        self.by_place = plan.by_place()
        self.stream: Stream | None = None
        self.shown: Tensor  # the images that the stream gave last

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of `section`, unless they are on disk already."""
        place, begin = self.plan.place_of(section), section.frames[0]
        if self.run.has_segment(place):
            self.stream = None
            return
        if self.stream is None:  # at the start, or after a stop: the stream is brought to where it was
            self.stream = self.codec.stream()
            known = range(max(0, begin - self.codec.lead(self.run.generated)), begin)
            self.shown = self.stream.warm_up(_before(self.run, self.by_place, known), self.run.generated)
        before, self.shown = self.shown, self.stream.decode(latents)
        yield _decoded(self.run, place, before, self.shown)


class ContextDecoder:
    """For plans in any other order: a section is decoded once its earlier neighbor is there, behind some of it."""

    def __init__(self, run: Run, plan: Plan, codec: Codec) -> None:
        self.run, self.plan, self.codec = run, plan, codec
        self.by_place = plan.by_place()

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of those sections that can be decoded now and are not on disk."""
        place = self.plan.place_of(section)
        for candidate in (place, place + 1):
            ready = candidate in self.by_place and self.run.has_section(self.by_place[candidate].index)
            behind = candidate == 0 or (
                candidate - 1 in self.by_place and self.run.has_section(self.by_place[candidate - 1].index)
            )
            if ready and behind and not self.run.has_segment(candidate):
                yield self._decode(candidate)

    def _decode(self, place: int) -> Decoded:
        section, stream = self.by_place[place], self.codec.stream()
        begin = section.frames[0]
        left = begin - min(CONTEXT, self.run.generated)
        known = range(left if left > 1 else 0, begin)
        shown = stream.warm_up(_before(self.run, self.by_place, known), self.run.generated)
        return _decoded(self.run, place, shown, stream.decode(self.run.read_section(section)))


class SingleDecoder:
    """For models whose codec starts anew with each section: each is a video of its own to it."""

    def __init__(self, run: Run, plan: Plan, codec: AnyCodec) -> None:
        self.run, self.plan, self.codec = run, plan, codec

    def add(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> Iterator[Decoded]:
        """The images of `section`, unless they are on disk already."""
        place = self.plan.place_of(section)
        if not self.run.has_segment(place):
            yield Decoded(place, to_images(self.codec.decode(latents))[0])


Decoder = StreamDecoder | ContextDecoder | OverlapDecoder | NeighborDecoder | SingleDecoder


def decoder_for(run: Run, plan: Plan, codec: AnyCodec) -> Decoder:
    """What decodes the sections of a run as the model has them joined."""
    return _DECODERS[run.config.manner](run, plan, codec)


def _streaming(run: Run, plan: Plan, codec: AnyCodec) -> Decoder:
    """One stream where sections come in the order of time, and where they come against it if the codec can do that."""
    firsts = [section.frames[0] for section in plan.sections]
    forward = firsts == sorted(firsts)
    if isinstance(codec, Codec):
        return (StreamDecoder if forward else ContextDecoder)(run, plan, codec)
    in_a_row = forward or firsts == sorted(firsts, reverse=True)
    return (OverlapDecoder if in_a_row else NeighborDecoder)(run, plan, codec)


def _before(run: Run, by_place: Mapping[int, Section], known: range) -> Float[Tensor, "1 c t h w"]:
    """What passes a stream before a section: frames that follow each other, behind the first one standing still."""
    parts = [frames_of(run, by_place, range(1))] * STILL if run.config.first == 0 == known.start else []
    return torch.cat([*parts, *([frames_of(run, by_place, known)] if known else [])], dim=2)


def _decoded(run: Run, place: int, before: Float[Tensor, "1 3 S H W"], pixels: Float[Tensor, "1 3 T H W"]) -> Decoded:
    """A section's images, of which `before` came before."""
    if run.config.source is None and place == 0:
        return Decoded(place, to_images(torch.cat([before, pixels], dim=2))[0])
    return Decoded(place, close_seam(run, place, to_images(before[:, :, -1:])[0, 0], to_images(pixels)[0]))


_DECODERS: Mapping[Manner, Callable[[Run, Plan, AnyCodec], Decoder]] = {"stream": _streaming, "anchored": SingleDecoder}
