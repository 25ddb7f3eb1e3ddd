"""The decoder of HunyuanVideo, section by section, as FramePack uses it.

A section is decoded together with the one that was made before it, its neighbor in time; so each section is decoded
twice, and the two are cross-faded, the earlier in front. With nine frames a section:

    forward      0---------36                      10 frames, then 18 at a time
                   4------36-----------72          33 images are there already, 36 come
                            40------72--------108

    backward                       76-------108    9 frames, then 18 at a time, 19 in the end
                       40----------76---108        33 are there, 36 come, 40 in the end
             0---------36-----40---72

Images of a section are given out when its second decoding has been mixed in, or at the end of the video. Until then
they are held, with the frames and with the tiles that the next window has in common with this one: the memory that
this takes does not depend on the number of sections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.hunyuan.codec import HunyuanCodec

__all__ = ["Finished", "SectionStream", "blend_weights"]


@dataclass(frozen=True, slots=True)
class Finished:
    """Images in -1..1 that will not change any more, those of a section."""

    frames: range  # of the section
    first: int  # the number of the first image in the video
    images: Float[Tensor, "b 3 T H W"]


@dataclass(frozen=True, slots=True)
class _Section:
    """The section that was added last."""

    frames: range
    latents: Float[Tensor, "b c t h w"]  # of the next window: all but those of frame 0
    open: Float[Tensor, "b 3 T H W"] | None  # images decoded once; none where the section came as context


class SectionStream:
    """A video being decoded, section by section, from the start to the end or from the end to the start."""

    def __init__(self, codec: HunyuanCodec, frames: int) -> None:
        self.codec, self.frames = codec, frames
        self._last: _Section | None = None
        self._tiles: dict[range, Tensor] = {}  # that the next window may have, too

    def warm_up(self, frames: range, latents: Float[Tensor, "b c t h w"]) -> None:
        """Puts a section before the first that is added; its own images were given out, or are not wanted.

        To go on after a stop behind section k, warm up on section k - 1 (if there is one) and add section k again.
        """
        self._last, self._tiles = _Section(frames, _window_part(frames, latents), None), {}

    def add(self, frames: range, latents: Float[Tensor, "b c t h w"]) -> list[Finished]:
        """What is finished with these frames, which come after or before those of the last section. In time order.

        The section with the first frame of the video has the start image's frame 0 in it.
        """
        last = self._last
        self._check(frames, latents)
        if last is None:
            done, own = [], self._decode(frames, latents)
            ends = frames == range(self.frames)
        elif frames.start == last.frames.stop:
            done, own = self._after(last, frames, latents)
            ends = frames.stop == self.frames
        else:
            done, own = self._before(last, frames, latents)
            ends = frames.start == 0
        waiting = None if ends else own.clone()  # a view would keep the whole window
        self._last = _Section(frames, _window_part(frames, latents), waiting)
        inner = _inner(frames)
        self._tiles = {span: tile for span, tile in self._tiles.items() if span[0] in inner and span[-1] in inner}
        return sorted([*done, *([self._finished(frames, own)] if ends else [])], key=lambda finished: finished.first)

    def _after(self, last: _Section, frames: range, latents: Tensor) -> tuple[list[Finished], Tensor]:
        """The section before, and this one's images."""
        inner = _inner(last.frames)
        images = self._decode(range(inner.start, frames.stop), torch.cat([last.latents, latents], dim=2))
        overlap = self._images(len(inner))
        again, own = images[:, :, :overlap], images[:, :, overlap:]
        if last.open is None:
            return [], own
        alone, first = last.open[:, :, :-overlap], last.open[:, :, -overlap:]
        return [self._finished(last.frames, torch.cat([alone, _blend(first, again)], dim=2))], own

    def _before(self, last: _Section, frames: range, latents: Tensor) -> tuple[list[Finished], Tensor]:
        """The section after, and this one's images."""
        images = self._decode(range(frames.start, last.frames.stop), torch.cat([latents, last.latents], dim=2))
        overlap = self._images(len(last.frames))
        count = self._images(len(frames))
        own, alone, again = images[:, :, :count], images[:, :, count:-overlap], images[:, :, -overlap:]
        if last.open is None:
            return [], own
        return [self._finished(last.frames, torch.cat([alone, _blend(again, last.open)], dim=2))], own

    def _decode(self, frames: range, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 T H W"]:
        """The images of a window, not clamped; its tiles are remembered, and those remembered are not decoded."""
        tiles = {}
        for span in self.codec.tiles(frames):
            begin = span.start - frames.start
            known = self._tiles.get(span)
            tiles[span] = self.codec.decode_tile(latents[:, :, begin : begin + len(span)]) if known is None else known
        self._tiles = tiles
        return self.codec.join(list(tiles.values()))

    def _finished(self, frames: range, images: Tensor) -> Finished:
        return Finished(frames, self._images(frames.start) if frames.start else 0, images.clamp(-1.0, 1.0))

    def _images(self, frames: int) -> int:
        """How many images that many frames from the start of a window are."""
        return self.codec.temporal_ratio * (frames - 1) + 1

    def _check(self, frames: range, latents: Tensor) -> None:
        if len(frames) != latents.shape[2]:
            raise ValueError(f"{latents.shape[2]} latents for frames {frames.start} to {frames.stop - 1}")
        last, fits = self._last, frames.stop <= self.frames
        if not fits:
            place = f"within the {self.frames}"
        elif last is None:
            place = f"at an end of the {self.frames}"
            fits = frames.start == 0 or frames.stop == self.frames
        else:
            place = f"next to {last.frames.start} to {last.frames.stop - 1}"
            fits = frames.start == last.frames.stop or frames.stop == last.frames.start
        if not fits:
            raise ValueError(f"frames {frames.start} to {frames.stop - 1}: expected a section {place}")


def blend_weights(images: int) -> Float[Tensor, " n"]:
    """The share of the earlier video in an overlap: from exactly 1 to exactly 0, in even steps.

    >>> blend_weights(5)
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000])
    """
    return torch.linspace(1.0, 0.0, images)


def _blend(early: Float[Tensor, "b 3 T H W"], late: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """From one video to the other, computed in float32."""
    weight = blend_weights(early.shape[2]).to(early.device).view(-1, 1, 1)
    return (weight * early.float() + (1 - weight) * late.float()).to(late.dtype)


def _inner(frames: range) -> range:
    """A section without frame 0, which is never decoded twice."""
    return range(max(frames.start, 1), frames.stop)


def _window_part(frames: range, latents: Tensor) -> Tensor:
    return latents[:, :, len(frames) - len(_inner(frames)) :]
