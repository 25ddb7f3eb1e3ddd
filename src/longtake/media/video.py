"""H.264 in MP4: every image is encoded once, a video grows by appending, files are joined by copying packets.

A segment is a fragmented MP4 of its own. The growing video is the bytes of the first segment, and then the fragments of
the others, told when they begin.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from longtake.errors import InputError, OutputError
from longtake.media.whole import whole

__all__ = ["Segment", "append_segment", "join_segments", "read_comment", "read_video", "write_segment", "write_video"]

FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
HEADERS = (b"ftyp", b"moov")
TRAILERS = (b"mfra",)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the video on disk: its first image's number and how many there are."""

    path: Path
    first: int
    images: int


@cache
def _steady() -> dict[str, str]:
    """Options with which x264 writes the same bytes for the same images.

    With AVX-512 its macroblock tree reads memory that nobody wrote, and some segments in a thousand have other bytes
    (`benchmarks/same_bytes.py`). Without it none has, and they are those of a processor that knows no AVX-512.
    """
    try:
        wide = "avx512" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        wide = False
    return {"x264-params": "asm=MMX2,SSE2Fast,LZCNT,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2"} if wide else {}


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def write_segment(images: np.ndarray, path: Path, first: int, fps: float, crf: int = 16, scale: int = 1) -> Segment:
    """Encodes uint8 images "T H W 3" that begin at image `first` of the video; the file is there whole or not at all.

    H.264, yuv420p in BT.709 colors and tagged so, one key frame at the start, no B-frames. `scale` enlarges each side
    (Lanczos).

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    rate = _rate(fps)
    height, width = images.shape[1] * scale, images.shape[2] * scale
    encoded = io.BytesIO()  # a file of FFmpeg's own could end early without an error when the disk is full
    with av.open(encoded, "w", format="mp4", options={"movflags": FRAGMENTS}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        context = stream.codec_context
        # What is not tagged is guessed by each player from the size. ITU-T H.273: 1 is BT.709 (and limited range).
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        # "veryfast" takes a third of the time of "medium", for 0.1 dB and 2% of the bytes (demo video, crf 16).
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "g": str(len(images)), "threads": "1"}
        stream.options |= _steady()
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                width, height, "yuv420p",
                dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=Interpolation.LANCZOS,
                threads=1,  # for small pictures more of them cost more than they do
            )  # fmt: skip
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with whole(path) as unfinished:
        unfinished.write_bytes(encoded.getvalue())
    return Segment(path, first, len(images))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The top-level boxes of an MP4: kind and bytes (ISO 14496-12, section 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        yield kind, data[at : at + size]
        at += size


def _begun_at(fragment: bytes, ticks: int) -> bytes:
    """A movie fragment whose decode time is later by `ticks` (ISO 14496-12, section 8.8.12: tfdt)."""
    at = fragment.index(b"tfdt") + 4
    size = 8 if fragment[at] == 1 else 4  # the box's version
    begin = int.from_bytes(fragment[at + 4 : at + 4 + size], "big") + ticks
    return fragment[: at + 4] + begin.to_bytes(size, "big") + fragment[at + 4 + size :]


def _ticks(stream: VideoStream) -> Fraction:
    """How long an image lasts, in the stream's unit of time."""
    assert stream.average_rate is not None
    assert stream.time_base is not None
    return 1 / stream.average_rate / stream.time_base


def _fragments(segment: Segment, each: Fraction, since: int) -> bytes:
    """What a segment adds to a growing video that begins at image `since`; each image lasts that many ticks."""
    skipped = TRAILERS if segment.first == since else (*HEADERS, *TRAILERS)
    ticks = round((segment.first - since) * each)
    return b"".join(
        _begun_at(box, ticks) if kind == b"moof" else box
        for kind, box in _boxes(segment.path.read_bytes())
        if kind not in skipped
    )


def append_segment(video: Path, segment: Segment, since: int = 0) -> None:
    """Adds a segment to the end of a growing video that begins at image `since`, or begins it.

    Raises:
        OutputError: the disk is full or the file cannot be written; segment and video are as they were.
    """
    size = video.stat().st_size if video.exists() else 0
    with av.open(str(segment.path)) as source:
        fragments = _fragments(segment, _ticks(source.streams.video[0]), since)
    try:
        with open(video, "ab") as file:
            file.write(fragments)
    except OSError as error:
        if video.exists():
            os.truncate(video, size)
        raise OutputError(f"{video}: cannot be appended to ({error.strerror})") from error


def join_segments(segments: Sequence[Segment], path: Path) -> None:
    """Writes a growing video anew from segments that follow each other; it plays from its own beginning.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    with av.open(str(segments[0].path)) as source:
        each = _ticks(source.streams.video[0])
    with whole(path) as unfinished, open(unfinished, "wb") as file:
        for segment in segments:
            file.write(_fragments(segment, each, segments[0].first))


def write_video(segments: Sequence[Segment], path: Path, comment: str) -> None:
    """The finished file: packets of all segments, copied, with `comment` in its metadata; playable while it downloads.

    Raises:
        OutputError: the disk is full or the file cannot be written; the segments are untouched.
    """
    with (
        whole(path, "could not be written; its sections are safe") as unfinished,
        av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as output,
    ):
        output.metadata["comment"] = comment
        stream = None
        for segment in segments:
            with av.open(str(segment.path)) as source:
                found = source.streams.video[0]
                stream = stream or output.add_stream_from_template(found)
                for i, packet in enumerate(p for p in source.demux(found) if p.size):
                    packet.pts = packet.dts = round((segment.first + i) * _ticks(found))
                    packet.stream = stream
                    output.mux(packet)


def read_comment(path: Path) -> str:
    """The comment in a video's metadata; empty if it has none.

    Raises:
        InputError: the file is missing or is no video.
    """
    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment", "")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such video") from None
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{path}: not a video that can be read ({error})") from error


def read_video(path: Path) -> np.ndarray:
    """All images of a video: uint8 "T H W 3".

    Raises:
        InputError: the file is missing or is no video.
    """
    try:
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such video") from None
    except (OSError, av.error.FFmpegError, ValueError, IndexError) as error:  # the last two: it has no images
        raise InputError(f"{path}: not a video that can be read ({error})") from error
