"""Clips as a training of sections wants them: latents, and the words of every section, on the device.

Each clip is encoded from several of its images on, so that it gives several videos that begin with a still start
image, and each of these again as a mirror shows it. Such a video is a *track*. Nothing here depends on a schedule or
an order: one cache serves them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from longtake.backbones.backbone import AnyCodec
from longtake.backbones.pixels import to_pixels
from longtake.errors import ConfigError
from longtake.toybox import caption, mirrored
from longtake.training.clips import Clips
from longtake.training.parallel import ALONE, World

__all__ = ["WORDINGS", "Tracks", "encode_tracks", "fingerprint", "load_tracks", "save_tracks", "section_captions"]

WORDINGS = 4  # captions kept for each section of each track


@dataclass(frozen=True, slots=True)
class Tracks:
    """Latent videos of unequal length, padded to the longest; the longest come first."""

    latents: Float[Tensor, "k t c h w"]
    keys: Float[Tensor, "k s c h w"]  # the last image of each section, encoded by itself as a key image is
    lengths: tuple[int, ...]  # frames of each track, falling
    captions: tuple[tuple[tuple[str, ...], ...], ...]  # captions[track][section][wording]

    def with_frames(self, frames: int) -> int:
        """How many tracks have at least that many frames (they are the first ones)."""
        return sum(length >= frames for length in self.lengths)


def section_captions(
    clips: Clips, clip: int, start: int, frames: int, generated: int, flipped: bool = False
) -> tuple[tuple[str, ...], ...]:
    """The captions of each section of the track that begins at image `start` of a clip, or of its mirror image."""
    truth, images, say = clips.truths[clip], 4 * generated, mirrored if flipped else str
    firsts = [start + 1 + images * k for k in range((frames - 1) // generated)]
    return tuple(tuple(say(caption(truth, f, f + images - 1, wording)) for wording in range(WORDINGS)) for f in firsts)


@torch.no_grad()
def encode_tracks(
    codec: AnyCodec,
    clips: Clips,
    starts: Sequence[int],
    generated: int,
    device: torch.device,
    dtype: torch.dtype,
    mirror: bool = False,
    batch: int = 16,
    world: World = ALONE,
) -> Tracks:
    """Encodes every clip from every start on, to the end of its last whole section; if asked, also mirrored.

    Several processes share the work, and all of them have all tracks afterwards.
    """
    sides = (False, True) if mirror else (False,)
    frames_from = {start: (clips.images - 1 - start) // (4 * generated) * generated + 1 for start in sorted(starts)}
    tracks = [(start, flipped) for start in frames_from for flipped in sides]  # each of all clips, the longest first
    shape = codec.channels, clips.height // codec.spatial_ratio, clips.width // codec.spatial_ratio
    longest = max(frames_from.values())
    latents = torch.zeros(len(tracks), len(clips), longest, *shape, device=device, dtype=dtype)
    sections = (longest - 1) // generated
    keys = torch.zeros(len(tracks), len(clips), sections, *shape, device=device, dtype=dtype)
    for start, frames in frames_from.items():
        for first in range(batch * world.rank, len(clips), batch * world.size):
            chosen = range(first, min(first + batch, len(clips)))
            pixels = to_pixels(clips.batch(chosen, [start] * len(chosen), 4 * frames - 3), device, dtype)
            ends = pixels[:, :, 4 * generated :: 4 * generated]
            for flipped in sides:
                track = tracks.index((start, flipped)), slice(first, chosen.stop)
                encoded = codec.encode(pixels.flip(-1) if flipped else pixels)
                latents[*track, :frames] = encoded.transpose(1, 2)
                alone = codec.encode(rearrange(ends.flip(-1) if flipped else ends, "b c s h w -> (b s) c 1 h w"))
                keys[*track, : ends.shape[2]] = rearrange(alone, "(b s) c 1 h w -> b s c h w", s=ends.shape[2])
    world.sum((latents, keys))  # every place was filled by one process, and is zero in the others
    return Tracks(
        latents=latents.flatten(0, 1),
        keys=keys.flatten(0, 1),
        lengths=tuple(frames_from[start] for start, _ in tracks for _ in range(len(clips))),
        captions=tuple(
            section_captions(clips, clip, start, frames_from[start], generated, flipped)
            for start, flipped in tracks
            for clip in range(len(clips))
        ),
    )


def fingerprint(codec: AnyCodec, clips: Clips, starts: Sequence[int], mirror: bool) -> str:
    """What tracks are made of, in sixteen hexadecimal digits: other clips, starts or weights of a codec give others."""
    names = [(t.difficulty, t.seed, t.attempt) for t in clips.truths]
    size = (clips.images, clips.height, clips.width)
    digest = sha256(json.dumps([names, size, sorted(starts), mirror]).encode())
    digest.update(codec.fingerprint.encode())
    return digest.hexdigest()[:16]


def save_tracks(tracks: Tracks, path: Path, sign: str) -> None:
    """Keeps tracks in one safetensors file; captions and fingerprint are in its metadata."""
    note = {"lengths": json.dumps(tracks.lengths), "captions": json.dumps(tracks.captions), "fingerprint": sign}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file({"latents": tracks.latents.contiguous(), "keys": tracks.keys.contiguous()}, unfinished, metadata=note)
    os.replace(unfinished, path)


def load_tracks(path: Path, device: torch.device, sign: str) -> Tracks:
    """The tracks that `save_tracks` kept.

    Raises:
        ConfigError: they have another fingerprint.
    """
    with safe_open(path, framework="pt", device=str(device)) as file:
        note = file.metadata() or {}
        if note.get("fingerprint") != sign:
            raise ConfigError(f"{path}: made of other clips or by another codec; delete it or choose another --cache")
        captions = tuple(tuple(tuple(section) for section in track) for track in json.loads(note["captions"]))
        tensors = file.get_tensor("latents"), file.get_tensor("keys")
        return Tracks(*tensors, tuple(json.loads(note["lengths"])), captions)
