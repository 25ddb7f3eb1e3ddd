"""Segments of a run as a browser wants them: what their codec is called, and pieces that play from 0."""

from __future__ import annotations

__all__ = ["codec_of"]


def codec_of(mp4: bytes) -> str | None:
    """The type of an MP4 with H.264 (ISO 14496-15, section 5.2.4.1: avcC holds profile, constraints and level).

    >>> codec_of(b"....avcC" + bytes([1, 0x64, 0x00, 0x0C]))
    'video/mp4; codecs="avc1.64000c"'
    """
    at = mp4.find(b"avcC")
    return f'video/mp4; codecs="avc1.{mp4[at + 5 : at + 8].hex()}"' if at >= 0 else None
