"""What the camera is told, and where it is because of that.

command       the camera itself                              what the background does in the picture
left          goes to its left around the center             moves to the left
right         goes to its right around the center            moves to the right
in, out       comes nearer, goes back                        grows, shrinks
pan left      stands and turns to its left                   moves to the right
pan right     stands and turns to its right                  moves to the left
up, down      stands and looks up, down                      moves down, up
still         does nothing                                   nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np

from longtake.toybox.difficulty import CameraStyle
from longtake.toybox.scenes import choice, uniform

__all__ = ["COMMANDS", "Segment", "camera_path", "commands_of", "draw_program"]

COMMANDS = ("still", "left", "right", "in", "out", "pan left", "pan right", "up", "down")
OPPOSITES = {
    "left": "right", "right": "left", "in": "out", "out": "in",
    "pan left": "pan right", "pan right": "pan left", "up": "down", "down": "up",
}  # fmt: skip
EASE = 0.45  # seconds to full speed, and to rest again
NEAR, FAR = 0.84, 1.16  # of the starting distance
PAN_LIMIT = 75.0  # degrees away from the center
LOOK_LIMIT = 13.0
AWAY = 25.0  # degrees from the center: the toys leave the picture


@dataclass(frozen=True, slots=True)
class Segment:
    """One command, for so many images."""

    command: str
    images: int


@dataclass(slots=True)
class _State:
    zoom: float = 1.0
    pan: float = 0.0
    look: float = 0.0


def draw_program(draw: np.random.Generator, style: CameraStyle, images: int, fps: int) -> tuple[Segment, ...]:
    """A random program of `images` images. Nothing goes beyond its limits: a pan comes back, a zoom turns around."""
    segments: list[Segment] = []
    state, left = _State(), images
    turn_back = ""
    while left > 0:
        length = round(uniform(draw, style.segment) * fps)
        if turn_back:
            command, length = turn_back, segments[-1].images
            turn_back = ""
        else:
            last = segments[-1].command if segments else ""
            command = choice(draw, {c: w for c, w in style.weights.items() if c != last and _may(state, c)})
            away = command.startswith("pan") or command in ("up", "down")
            if command in OPPOSITES and draw.random() < (style.look_back if away else style.reverse):
                turn_back = OPPOSITES[command]
        length = _within_limits(state, style, command, length, fps)
        if length < fps:  # no room that way
            turn_back = ""
            continue
        length = min(length, left)
        if 0 < left - length < 1.5 * fps and command in ("still", "left", "right"):
            length = left
        segments.append(Segment(command, length))
        left -= length
        if 0 < left < 1.5 * fps:
            segments.append(Segment("still", left))
            left = 0
    return tuple(segments)


def _may(state: _State, command: str) -> bool:
    """Whether a command makes sense now: a camera that looks away from the center looks back before it does more."""
    if abs(state.pan) > AWAY:
        return command in ("still", "pan right" if state.pan > 0 else "pan left")
    return not (abs(state.look) > 0.5 * LOOK_LIMIT and command == ("up" if state.look > 0 else "down"))


def _within_limits(state: _State, style: CameraStyle, command: str, length: int, fps: int) -> int:
    """How long the command can last, up to `length` images; the state goes along."""
    seconds = length / fps
    room = {
        "in": (state.zoom - NEAR) / style.zoom, "out": (FAR - state.zoom) / style.zoom,
        "pan left": (PAN_LIMIT - state.pan) / style.pan.high, "pan right": (PAN_LIMIT + state.pan) / style.pan.high,
        "up": (LOOK_LIMIT - state.look) / style.look, "down": (LOOK_LIMIT + state.look) / style.look,
    }.get(command, seconds)  # fmt: skip
    seconds = min(seconds, room + EASE)
    if seconds * fps < fps:
        return 0
    gone = seconds - EASE
    state.zoom += {"in": -gone, "out": gone}.get(command, 0.0) * style.zoom
    state.pan += {"pan left": gone, "pan right": -gone}.get(command, 0.0) * style.pan.high
    state.look += {"up": gone, "down": -gone}.get(command, 0.0) * style.look
    return round(seconds * fps)


@lru_cache(maxsize=1024)
def commands_of(program: tuple[Segment, ...]) -> tuple[str, ...]:
    """The command of each image."""
    return tuple(s.command for s in program for _ in range(s.images))


def camera_path(draw: np.random.Generator, style: CameraStyle, program: tuple[Segment, ...], fps: int) -> np.ndarray:
    """Where the camera is in each image, float64 "T 6".

    The six are x, y, z in meters, and yaw, pitch and vertical field of view in degrees.
    """
    turn, pan = uniform(draw, style.turn), uniform(draw, style.pan)
    distance, elevation = uniform(draw, style.distance), uniform(draw, style.elevation)
    height, fov = uniform(draw, style.center_height), uniform(draw, style.fov)
    around = float(draw.uniform(0.0, 360.0))
    rates = {
        "orbit": _rates(program, "left", "right", fps) * -turn,
        "zoom": _rates(program, "out", "in", fps) * style.zoom,
    }
    rates |= {
        "pan": _rates(program, "pan left", "pan right", fps) * pan,
        "look": _rates(program, "up", "down", fps) * style.look,
    }
    orbit, zoom, panned, look = (
        np.concatenate([[0.0], np.cumsum(rates[k])[:-1]]) / fps for k in ("orbit", "zoom", "pan", "look")
    )
    angle, tilt = np.deg2rad(around + orbit), np.deg2rad(elevation)
    r = distance * (1.0 + zoom)
    x, y, z = r * np.cos(tilt) * np.cos(angle), r * np.cos(tilt) * np.sin(angle), height + r * np.sin(tilt)
    yaw = around + orbit + 180.0 + panned
    return np.stack([x, y, z, yaw, look - elevation, np.full_like(x, fov)], -1)


def _rates(program: tuple[Segment, ...], plus: str, minus: str, fps: int) -> np.ndarray:
    """Speed in each image, -1..1: each segment eases in and out."""
    out = []
    for segment in program:
        time = (np.arange(segment.images) + 0.5) / fps
        edge = np.minimum(time, segment.images / fps - time)
        ease = 0.5 - 0.5 * np.cos(pi * np.clip(edge / EASE, 0.0, 1.0))
        out.append(ease * ((segment.command == plus) - (segment.command == minus)))
    return np.concatenate(out)
