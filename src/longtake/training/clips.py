"""Clips on disk, as the toybox writes them, read as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.errors import ConfigError
from longtake.toybox import Truth, read_truths

__all__ = ["Clips", "open_clips"]


@dataclass(frozen=True)
class Clips:
    """Clips of one size: their images, and what is true of each."""

    shards: tuple[np.ndarray, ...]  # each "clips images H W 3", memory-mapped, uint8
    truths: tuple[Truth, ...]

    def __len__(self) -> int:
        return len(self.truths)

    @property
    def images(self) -> int:
        """The number of images of each clip."""
        return self.shards[0].shape[1]

    @property
    def height(self) -> int:
        """Pixels."""
        return self.shards[0].shape[2]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.shards[0].shape[3]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(shard) for shard in self.shards])

    def read(self, clip: int, first: int, count: int) -> np.ndarray:
        """`count` images of one clip from image `first` on: uint8 "T H W 3", a view of the file."""
        shard = int(np.searchsorted(self._ends, clip, side="right"))
        inside = clip - (int(self._ends[shard - 1]) if shard else 0)
        return self.shards[shard][inside, first : first + count]

    def batch(self, clips: Sequence[int], firsts: Sequence[int], count: int) -> Tensor:
        """Equally long pieces of several clips: uint8 "b T H W 3" on the CPU."""
        return torch.from_numpy(np.stack([self.read(c, f, count) for c, f in zip(clips, firsts, strict=True)]))


def open_clips(folder: Path, limit: int | None = None) -> Clips:
    """Opens what `longtake.toybox` wrote into `folder`; at most `limit` clips.

    Raises:
        ConfigError: there is nothing there.
    """
    paths = sorted(p for p in folder.glob("*.npy") if p.with_suffix(".jsonl").exists())
    if not paths:
        raise ConfigError(f"{folder}: no clips (*.npy); make some with: python -m longtake.toybox --output {folder}")
    shards, truths, room = [], [], limit if limit is not None else 1 << 62
    for path in paths:
        shard = np.load(path, mmap_mode="r")[:room]
        found = read_truths(path.with_suffix(".jsonl"))[: len(shard)]
        shards.append(shard)
        truths.extend(found)
        room -= len(shard)
        if room <= 0:
            break
    return Clips(tuple(shards), tuple(truths))
