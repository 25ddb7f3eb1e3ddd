"""From noise to a sample: noise levels, solvers, guidance, and what training matches."""

from longtake.flow.guidance import GUIDES, guide, guide_history, guide_zero_star
from longtake.flow.matching import denoise, draw_sigmas, interpolate, target_velocity
from longtake.flow.noise import NOISES, noise, running_noise
from longtake.flow.pyramid import Pyramid, Renoise, Stage, block_noise, climb, coarse
from longtake.flow.sampling import Sampling, renoising
from longtake.flow.sigmas import (
    FRAMEPACK_SHIFT,
    HELIOS_DISTILLED_SHIFT,
    HELIOS_SHIFT,
    WAN_SHIFT,
    DirectShift,
    LinearShift,
    Shift,
    SizeShift,
    shift_for,
    shifted,
    sigmas,
)
from longtake.flow.solvers import SOLVERS, Solver, Velocity, dmd, euler, unipc, unipc_flow, unipc_official

__all__ = [
    "FRAMEPACK_SHIFT",
    "GUIDES",
    "HELIOS_DISTILLED_SHIFT",
    "HELIOS_SHIFT",
    "NOISES",
    "SOLVERS",
    "WAN_SHIFT",
    "DirectShift",
    "LinearShift",
    "Pyramid",
    "Renoise",
    "Sampling",
    "Shift",
    "SizeShift",
    "Solver",
    "Stage",
    "Velocity",
    "block_noise",
    "climb",
    "coarse",
    "denoise",
    "dmd",
    "draw_sigmas",
    "euler",
    "guide",
    "guide_history",
    "guide_zero_star",
    "interpolate",
    "noise",
    "renoising",
    "running_noise",
    "shift_for",
    "shifted",
    "sigmas",
    "target_velocity",
    "unipc",
    "unipc_flow",
    "unipc_official",
]
