"""A seed to a clip: images, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any
from zlib import crc32

import numpy as np

from longtake.errors import InputError, NumericsError
from longtake.toybox.camera import Segment, camera_path, draw_program
from longtake.toybox.difficulty import Difficulty, difficulty_named
from longtake.toybox.physics import BadClipError, Motion, draw_events, simulate, steps_per_image
from longtake.toybox.render import Tiles, load_mujoco, open_context, render, tiles_for
from longtake.toybox.scenes import Scene, draw_scene
from longtake.toybox.truth import Truth
from longtake.toybox.world import textures_of, world_xml

__all__ = ["Clip", "Studio", "Take", "rehearse", "render_clip"]

ATTEMPTS = 50
CLOSEST = 0.75  # meters between the camera and the surface of a toy


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """Images and what is true of them."""

    images: np.ndarray  # uint8 "T H W 3"
    truth: Truth


class Studio:
    """A place to render in: holds an OpenGL context. One at a time in a process.

    with Studio() as studio:
        clip = studio.clip(seed=7, difficulty="kind")
    """

    def __init__(self) -> None:
        self._context = open_context()

    def __enter__(self) -> Studio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.free()

    def clip(
        self, seed: int, difficulty: str = "kind", images: int = 217, height: int = 96, width: int = 160, fps: int = 12
    ) -> Clip:
        """The clip of a seed: on one machine always the same pixels.

        A bad clip is replaced by that of the next sub-seed.

        Raises:
            InputError: a size or a number that cannot be.
            NumericsError: no sub-seed gives a good clip.
        """
        world = difficulty_named(difficulty)
        _check(seed, images, height, width, fps)
        for attempt in range(ATTEMPTS):
            try:
                take = rehearse(seed, attempt, world, images, fps)
            except BadClipError:
                continue
            return self._film(take, world, tiles_for(height, width, images))
        raise NumericsError(f"seed {seed}: the first {ATTEMPTS} clips of the {world.name} world are all bad")

    def _film(self, take: Take, world: Difficulty, tiles: Tiles) -> Clip:
        scene, motion = take.scene, take.motion
        pixels, visibility = render(take.model, textures_of(scene), motion.poses, take.cameras, tiles)
        truth = Truth(
            seed=take.seed,
            attempt=take.attempt,
            difficulty=world.name,
            fps=take.fps,
            scene=scene,
            program=take.program,
            events=motion.events,
            camera=take.cameras.astype(np.float32),
            poses=motion.poses.astype(np.float32),
            visibility=visibility,
        )
        return Clip(pixels, truth)


@dataclass(frozen=True, eq=False, slots=True)
class Take:
    """All of a clip but its pixels."""

    seed: int
    attempt: int
    fps: int
    scene: Scene
    program: tuple[Segment, ...]
    cameras: np.ndarray  # "T 6"
    model: Any  # mujoco.MjModel
    motion: Motion


def rehearse(seed: int, attempt: int, world: Difficulty, images: int, fps: int) -> Take:
    """Draws a scene, a camera program and events from a sub-seed, and simulates what follows.

    Raises:
        BadClipError: something went wrong that nobody should see.
    """
    draw = np.random.default_rng((seed, attempt, crc32(world.name.encode())))
    scene = draw_scene(draw, world)
    program = draw_program(draw, world.camera, images, fps)
    cameras = camera_path(draw, world.camera, program, fps)
    events = draw_events(draw, world, scene, images, fps)
    model = load_mujoco().MjModel.from_xml_string(world_xml(scene, 1.0 / (fps * steps_per_image(fps))))
    motion = simulate(model, scene, events, images, fps, world.reach)
    gaps = np.linalg.norm(motion.poses[:, :, :3] - cameras[:, None, :3], axis=-1) - [1.4 * t.half for t in scene.toys]
    if gaps.min() < CLOSEST:
        raise BadClipError("a toy met the camera")
    return Take(seed, attempt, fps, scene, program, cameras, model, motion)


def _check(seed: int, images: int, height: int, width: int, fps: int) -> None:
    if seed < 0:
        raise InputError(f"a seed is a whole number from 0 on, not {seed}")
    if images < 1 or fps < 1:
        raise InputError(f"a clip needs at least one image and one image a second, not {images} at {fps}")
    if height < 16 or width < 16 or height % 2 or width % 2 or max(height, width) > 1024:
        raise InputError(f"a clip's height and width are even, from 16 to 1024, not {height} and {width}")


def render_clip(
    seed: int, difficulty: str = "kind", images: int = 217, height: int = 96, width: int = 160, fps: int = 12
) -> Clip:
    """The clip of a seed, rendered in a studio of its own. For many clips, open one `Studio` or use `write_clips`."""
    with Studio() as studio:
        return studio.clip(seed, difficulty, images, height, width, fps)
