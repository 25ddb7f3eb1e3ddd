"""What a decoder gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Decoded"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images of a section, by its place in time; those of place 0 begin with the start image, if there is one."""

    place: int
    images: np.ndarray
