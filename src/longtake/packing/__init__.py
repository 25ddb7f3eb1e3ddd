"""History as tokens: what a section sees, each span through its own kernel, with rotary phases to match."""

from longtake.packing.history import History
from longtake.packing.pack import Packed, pack
from longtake.packing.patchify import Patchify, trained_kernels
from longtake.packing.rope import Phases, RopeAxes, phases
from longtake.packing.tail import appended, compressed

__all__ = [
    "History",
    "Packed",
    "Patchify",
    "Phases",
    "RopeAxes",
    "appended",
    "compressed",
    "pack",
    "phases",
    "trained_kernels",
]
