"""What happens: toys are pushed, dropped, spun and thrown, and MuJoCo says what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, pi, sin
from typing import Any

import numpy as np

from longtake.toybox.difficulty import Difficulty
from longtake.toybox.render import load_mujoco
from longtake.toybox.scenes import Scene, choice, uniform
from longtake.toybox.world import AWAY

__all__ = ["EVENTS", "BadClipError", "Event", "Motion", "draw_events", "simulate", "steps_per_image"]

EVENTS = ("push", "drop", "spin", "throw")
DROP_HEIGHT = 3.0
SLIDING = 2.0  # what slides is pushed that much harder than what rolls
SPIN = 1.6  # seconds for which a toy is turned
SETTLE = 2.5  # seconds before the first image
FASTEST = 14.0  # meters a second; nothing in these worlds is faster, so it exploded
DRAG = 0.3  # 1/s: how fast motion dies without friction
RATE = 120  # physics steps a second, at least


class BadClipError(Exception):
    """A clip that is not shown: something exploded, left the arena or met the camera."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is done to a toy, from one image to the one in which it is over."""

    kind: str
    toy: int
    first: int
    last: int
    angle: float  # radians around the vertical axis, the way it is pushed; for a spin its sign
    strength: float  # meters a second, or radians a second


@dataclass(frozen=True, eq=False, slots=True)
class Motion:
    """Where everything is in each image."""

    poses: np.ndarray  # float64 "T k 7": place and quaternion (w first)
    events: tuple[Event, ...]


def steps_per_image(fps: int) -> int:
    """Physics steps in the time of one image."""
    return ceil(RATE / fps)


def draw_events(
    draw: np.random.Generator, difficulty: Difficulty, scene: Scene, images: int, fps: int
) -> tuple[Event, ...]:
    """Random events in the order of time; each toy has at most one, so that a caption can say who did what."""
    count = min(choice(draw, difficulty.events), len(scene.toys))
    begins = _draw_begins(draw, count, images / fps)
    events: list[Event] = []
    for toy, begin in zip(draw.permutation(len(scene.toys)), begins, strict=False):
        kinds = dict(difficulty.event_kinds)
        if not scene.toys[toy].shows_spin:
            kinds.pop("spin", None)
        if sum(e.kind == "drop" for e in events) >= len(scene.toys) - 1:
            kinds.pop("drop", None)  # no clip begins without a toy
        if not kinds:
            continue
        kind, first = choice(draw, kinds), round(begin * fps)
        strength = uniform(draw, difficulty.push_speed)
        if kind == "spin":
            strength = float(
                draw.uniform(3.5, 4.5)
            )  # a box that turned 90 degrees between two images would not seem to
        elif kind == "throw" or scene.toys[toy].shape != "ball":
            strength *= SLIDING
        events.append(Event(kind, int(toy), first, first, float(draw.uniform(0, 2 * pi)), strength))
    return tuple(sorted(events, key=lambda e: e.first))


def _draw_begins(draw: np.random.Generator, count: int, seconds: float) -> list[float]:
    """Seconds at which events begin, apart from each other where the clip is long enough."""
    latest = max(0.5, seconds - 2.5)
    apart = min(2.0, (latest - 0.5) / max(1, count))
    room = latest - 0.5 - apart * max(0, count - 1)
    return [0.5 + t + apart * k for k, t in enumerate(sorted(draw.uniform(0.0, room, size=count).tolist()))]


def simulate(model: Any, scene: Scene, events: Sequence[Event], images: int, fps: int, reach: float) -> Motion:
    """Runs the world and gives the pose of every toy in every image.

    Raises:
        BadClipError: MuJoCo warned, or a toy moved as none can, or went farther than `reach` from the center.
    """
    mujoco = load_mujoco()
    data = mujoco.MjData(model)
    model.dof_damping[:] = DRAG * np.repeat(model.body_inertia[1:].mean(1), 6)
    model.dof_damping.reshape(-1, 6)[:, :3] = DRAG * model.body_mass[1:, None]
    waiting = {e.toy for e in events if e.kind == "drop"}
    steps = steps_per_image(fps)
    for _ in range(round(SETTLE * fps * steps)):
        _hold(data, waiting)
        mujoco.mj_step(model, data)
    data.qvel[:] = 0.0
    poses = np.empty((images, len(scene.toys), 7))
    speeds = np.zeros((images, len(scene.toys)))
    for image in range(images):
        for event in (e for e in events if e.first == image):
            _begin(data, scene, event)
            waiting.discard(event.toy)
        _hold(data, waiting)
        poses[image] = data.qpos.reshape(-1, 7)
        velocity = data.qvel.reshape(-1, 6)
        speeds[image] = np.abs(velocity[:, :3]).max(1) + 0.3 * np.abs(velocity[:, 3:]).max(1)
        for step in range(steps):
            _turn(data, events, (image + step / steps) / fps, fps)
            mujoco.mj_step(model, data)
    _check(data, poses, speeds, reach)
    return Motion(poses, tuple(_ended(e, speeds) for e in events))


def _hold(data: Any, waiting: set[int]) -> None:
    for toy in waiting:
        data.qpos[7 * toy : 7 * toy + 3] = (0.0, 0.0, AWAY + 3.0 * toy)  # beside it is the inside of a wall
        data.qvel[6 * toy : 6 * toy + 6] = 0.0


def _turn(data: Any, events: Sequence[Event], seconds: float, fps: int) -> None:
    """Holds spinning toys at their speed: a kick would die within half a second."""
    for event in events:
        share = (seconds - event.first / fps) / SPIN
        if event.kind == "spin" and 0.0 < share < 1.0:
            speed = event.strength * sin(pi * share) ** 0.5 * (1 if event.angle < pi else -1)
            upward = data.xmat[event.toy + 1].reshape(3, 3)[2]  # in the toy's own axes, as MuJoCo has angular speeds
            data.qvel[6 * event.toy + 3 : 6 * event.toy + 6] = speed * upward


def _begin(data: Any, scene: Scene, event: Event) -> None:
    place, speed = 7 * event.toy, 6 * event.toy
    toy = scene.toys[event.toy]
    x, y = data.qpos[place : place + 2]
    match event.kind:
        case "drop":
            data.qpos[place : place + 3] = (toy.x, toy.y, DROP_HEIGHT)
            data.qpos[place + 3 : place + 7] = (cos(toy.yaw / 2), 0.0, 0.0, sin(toy.yaw / 2))
            data.qvel[speed : speed + 6] = 0.0
        case "push" | "throw":
            # Toward the middle, give or take a right angle: what is pushed outward leaves the picture.
            inward = np.arctan2(-y, -x) if x * x + y * y > 0.04 else event.angle
            way = inward + 0.5 * (event.angle - pi) * 0.5
            up = 0.0 if event.kind == "push" else 2.6
            data.qvel[speed : speed + 3] = (event.strength * cos(way), event.strength * sin(way), up)
        case _:
            pass  # a spin goes on for a while, see `_turn`


def _check(data: Any, poses: np.ndarray, speeds: np.ndarray, reach: float) -> None:
    if sum(int(w.number) for w in data.warning):
        raise BadClipError("MuJoCo warned")
    here = poses[..., 2] < AWAY / 2
    far = np.hypot(poses[..., 0], poses[..., 1])
    if not np.isfinite(poses).all() or speeds.max() > FASTEST:
        raise BadClipError("a toy exploded")
    if far[here].max() > reach:
        raise BadClipError("a toy left the arena")


def _ended(event: Event, speeds: np.ndarray) -> Event:
    """The event with its end: the image after which its toy rests."""
    moving = np.flatnonzero(speeds[event.first + 1 :, event.toy] > 0.06)
    resting = np.flatnonzero(speeds[event.first + 2 :, event.toy] <= 0.06)
    last = event.first + 2 + int(resting[0]) if len(resting) else len(speeds) - 1
    if not len(moving):
        last = event.first + 1
    return Event(event.kind, event.toy, event.first, min(last, len(speeds) - 1), event.angle, event.strength)
