"""Pictures of a simulated world, many at a time, and how much of each toy they show.

Drawing is cheap and reading back is not, so images are drawn as tiles of one offscreen buffer that is read back once.
Beside each tile a smaller one is drawn in which every toy has its own number: from that comes visibility.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from longtake.errors import ConfigError

__all__ = ["Tiles", "load_mujoco", "open_context", "render", "tiles_for"]

NO_OPENGL = "MuJoCo found no OpenGL to draw with; on Debian: apt-get install libegl1 libgl1-mesa-dri"
BUFFER = 2048  # pixels: the buffer is about this wide and high
SHADOW = 1024  # width of the map of shadows, for images up to 128 pixels high; a finer one is slow and adds no detail
FINER = 2  # images are drawn this much larger: multisampling leaves the edges of shadows and stripes jagged


def load_mujoco() -> Any:
    """MuJoCo, which draws without a window where there is no screen.

    Raises:
        ConfigError: it is not installed, or finds no OpenGL.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise ConfigError("the toybox needs MuJoCo: pip install 'longtake[toybox]'") from error
    except (ImportError, AttributeError) as error:  # the latter from PyOpenGL where the library itself is missing
        raise ConfigError(NO_OPENGL) from error
    return mujoco


def open_context() -> Any:
    """A current OpenGL context; the caller frees it.

    Raises:
        ConfigError: MuJoCo is not installed, or finds no OpenGL.
    """
    mujoco = load_mujoco()
    try:
        context = mujoco.GLContext(64, 64)  # pictures are drawn into a buffer of their own, not into these pixels
        context.make_current()
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ConfigError(NO_OPENGL) from error
    return context


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a buffer is divided: pictures on the left, numbers of toys, at half the size, on the right."""

    columns: int
    rows: int
    height: int  # of a picture as it is drawn
    width: int

    @property
    def count(self) -> int:
        """Images in one buffer."""
        return self.columns * self.rows

    @property
    def buffer_width(self) -> int:
        """Pixels."""
        return self.columns * (self.width + self.width // 2)

    @property
    def buffer_height(self) -> int:
        """Pixels."""
        return self.rows * self.height


def tiles_for(height: int, width: int, images: int) -> Tiles:
    """Tiles for images of that size that fill a buffer of about 2048 x 2048 pixels."""
    height, width = FINER * height, FINER * width
    columns = max(1, min(BUFFER // width, images))
    return Tiles(columns, max(1, min(BUFFER // height, ceil(images / columns))), height, width)


def render(
    model: Any, textures: dict[str, np.ndarray], poses: np.ndarray, cameras: np.ndarray, tiles: Tiles
) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 "T H W 3", and the share of each image's pixels that each toy covers, float32 "T k".

    `poses` is "T k 7", `cameras` "T 6" (x, y, z, yaw, pitch, field of view). An OpenGL context must be current.
    """
    mujoco = load_mujoco()
    _fill_textures(mujoco, model, textures)
    model.vis.global_.offwidth, model.vis.global_.offheight = tiles.buffer_width, tiles.buffer_height
    model.vis.quality.shadowsize = SHADOW * min(4, ceil(tiles.height / FINER / 128))
    data, camera, option, perturb = mujoco.MjData(model), mujoco.MjvCamera(), mujoco.MjvOption(), mujoco.MjvPerturb()
    option.geomgroup[:] = 0
    option.geomgroup[0] = 1
    scene, toys = mujoco.MjvScene(model, maxgeom=400), mujoco.MjvScene(model, maxgeom=100)
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    toys.flags[:] = 0
    toys.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = toys.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
    everything, moving = mujoco.mjtCatBit.mjCAT_ALL, mujoco.mjtCatBit.mjCAT_DYNAMIC
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    toy_of_geom = model.geom_bodyid - 1  # body 0 is the world, toy k is body k + 1
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    count, height, width = len(poses), tiles.height, tiles.width
    images = np.empty((count, height // FINER, width // FINER, 3), np.uint8)
    shares = np.empty((count, poses.shape[1]), np.float32)
    try:
        for begin in range(0, count, tiles.count):
            some = range(begin, min(begin + tiles.count, count))
            for place, image in enumerate(some):
                data.qpos[:] = poses[image].reshape(-1)
                mujoco.mj_kinematics(model, data)
                mujoco.mj_camlight(model, data)
                _aim(model, camera, cameras[image])
                mujoco.mjv_updateScene(model, data, option, perturb, camera, everything, scene)
                mujoco.mjv_updateScene(model, data, option, perturb, camera, moving, toys)
                row, column = divmod(place, tiles.columns)
                mujoco.mjr_render(mujoco.MjrRect(column * width, row * height, width, height), scene, context)
                left = tiles.columns * width + column * (width // 2)
                mujoco.mjr_render(mujoco.MjrRect(left, row * (height // 2), width // 2, height // 2), toys, context)
            colors, numbers = _read(mujoco, context, tiles)
            images[some.start : some.stop] = _reduced(colors[: len(some)])
            shares[some.start : some.stop] = _shares(numbers[: len(some)], toys, toy_of_geom, poses.shape[1])
    finally:
        context.free()
    return images, shares


def _fill_textures(mujoco: Any, model: Any, textures: dict[str, np.ndarray]) -> None:
    for name, pixels in textures.items():
        number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
        begin = int(model.tex_adr[number])
        model.tex_data[begin : begin + pixels.size] = pixels.reshape(-1)


def _aim(model: Any, camera: Any, pose: np.ndarray) -> None:
    x, y, z, yaw, pitch, fov = pose
    forward = np.array(
        [
            np.cos(np.deg2rad(pitch)) * np.cos(np.deg2rad(yaw)),
            np.cos(np.deg2rad(pitch)) * np.sin(np.deg2rad(yaw)),
            np.sin(np.deg2rad(pitch)),
        ]
    )
    camera.lookat[:] = np.array([x, y, z]) + forward
    camera.distance, camera.azimuth, camera.elevation = 1.0, yaw, pitch
    model.vis.global_.fovy = fov


def _read(mujoco: Any, context: Any, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The tiles of a buffer, "n H W 3", and their numbers, "n H/2 W/2 3"; row 0 is on top."""
    buffer = np.empty((tiles.buffer_height, tiles.buffer_width, 3), np.uint8)
    mujoco.mjr_readPixels(buffer, None, mujoco.MjrRect(0, 0, tiles.buffer_width, tiles.buffer_height), context)
    split = tiles.columns * tiles.width

    def cut(part: np.ndarray, height: int, width: int) -> np.ndarray:
        part = part[: tiles.rows * height].reshape(tiles.rows, height, tiles.columns, width, 3)
        return part[:, ::-1].transpose(0, 2, 1, 3, 4).reshape(tiles.count, height, width, 3)

    return cut(buffer[:, :split], tiles.height, tiles.width), cut(
        buffer[:, split:], tiles.height // 2, tiles.width // 2
    )


def _reduced(pictures: np.ndarray) -> np.ndarray:
    """Pictures at 1 / FINER of their size, each pixel the mean of those under it."""
    total = np.sum(
        [pictures[:, y::FINER, x::FINER] for y in range(FINER) for x in range(FINER)], axis=0, dtype=np.uint16
    )
    return np.asarray((total + FINER * FINER // 2) // (FINER * FINER), np.uint8)


def _shares(numbers: np.ndarray, scene: Any, toy_of_geom: np.ndarray, toys: int) -> np.ndarray:
    """How much of each picture each toy covers, from pictures in which a geom's color is its number plus one."""
    codes = numbers.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    toy_of_code = np.full(scene.ngeom + 1, -1)
    for place in range(scene.ngeom):
        geom = scene.geoms[place]
        if geom.segid >= 0 and geom.objtype == 5:  # mjOBJ_GEOM
            toy_of_code[geom.segid + 1] = toy_of_geom[geom.objid]
    found = toy_of_code[np.clip(codes, 0, scene.ngeom)]
    return np.stack([(found == k).mean((1, 2)) for k in range(toys)], -1).astype(np.float32)
