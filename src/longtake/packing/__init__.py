"""History as tokens: what a section sees, each span through its own kernel, with rotary phases to match."""

from longtake.packing.codebook import Codebook, Discretization, Fit, fit_codebook, fit_of
from longtake.packing.history import History
from longtake.packing.importance import Compared, Importance, rank, score
from longtake.packing.pack import Packed, pack, resized
from longtake.packing.patchify import Patchify, trained_kernels
from longtake.packing.rope import Phases, RopeAxes, phases
from longtake.packing.tail import appended, compressed

__all__ = [
    "Codebook",
    "Compared",
    "Discretization",
    "Fit",
    "History",
    "Importance",
    "Packed",
    "Patchify",
    "Phases",
    "RopeAxes",
    "appended",
    "compressed",
    "fit_codebook",
    "fit_of",
    "pack",
    "phases",
    "rank",
    "resized",
    "score",
    "trained_kernels",
]
