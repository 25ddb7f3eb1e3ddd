"""From noise to a sample: noise levels, solvers, guidance, and what training matches."""

from longtake.flow.guidance import guide, guide_history
from longtake.flow.matching import denoise, draw_sigmas, interpolate, target_velocity
from longtake.flow.noise import NOISES, noise, running_noise
from longtake.flow.sigmas import FRAMEPACK_SHIFT, LinearShift, shift_for, sigmas
from longtake.flow.solvers import SOLVERS, Solver, Velocity, euler, unipc, unipc_official

__all__ = [
    "FRAMEPACK_SHIFT",
    "NOISES",
    "SOLVERS",
    "LinearShift",
    "Solver",
    "Velocity",
    "denoise",
    "draw_sigmas",
    "euler",
    "guide",
    "guide_history",
    "interpolate",
    "noise",
    "running_noise",
    "shift_for",
    "sigmas",
    "target_velocity",
    "unipc",
    "unipc_official",
]
