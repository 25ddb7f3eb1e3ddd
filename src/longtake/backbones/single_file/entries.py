"""The tensors of a file, each to be read as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from longtake.backbones.placement.storage import Matrix

__all__ = ["Entry", "TensorFile"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file."""

    shape: tuple[int, ...]
    stored: bool  # True where `read` gives a `Matrix`
    read: Callable[[], Tensor | Matrix]


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file, and the tensors in it by their names without a prefix."""

    path: Path
    entries: Mapping[str, Entry]
