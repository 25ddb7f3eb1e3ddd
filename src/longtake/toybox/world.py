"""A scene as a MuJoCo model (MJCF text) and the textures of its surfaces.

Groups: 0 is what is drawn, 3 is what collides and is not drawn. Toy k is the body `toy<k>`.
"""

from __future__ import annotations

from math import atan2, cos, degrees, pi, sin

import numpy as np

from longtake.toybox import shapes
from longtake.toybox.scenes import FLOOR_COLORS, SKIES, TOY_COLORS, Color, Room, Scene, Toy, Wall
from longtake.toybox.shapes import Mesh

__all__ = ["AWAY", "resting_height", "textures_of", "world_xml"]

AWAY = 400.0  # meters above the floor, behind the far clip plane: where toys wait until they are dropped
FAR = 40.0
GRAY: Color = (0.58, 0.58, 0.60)  # the second color of white toys
WALL_TEXELS = (128, 512)
SAMPLES = 2  # of each pixel as it is drawn, four of which make one of the image; eight halve the speed of a GPU


def _numbers(values: object) -> str:
    return " ".join(f"{v:.5g}" for v in np.ravel(np.asarray(values)))


def _lighter(color: Color, share: float) -> Color:
    r, g, b = (c + share * (1.0 - c) for c in color)
    return r, g, b


def _floor_pixels(texture: str, color: Color, second: Color, size: int = 256) -> np.ndarray:
    """A texture of two colors, uint8 "size size 3", that repeats without a seam."""
    place = (np.arange(size) + 0.5) / size
    across, along = np.meshgrid(place, place)
    if texture == "striped":
        chosen = across < 0.5
    elif texture == "checkered":
        chosen = (across < 0.5) ^ (along < 0.5)
    else:
        draw = np.random.default_rng(0)
        chosen = np.zeros((size, size), dtype=bool)
        for x, y, r in zip(
            draw.uniform(size=12), draw.uniform(size=12), draw.uniform(0.05, 0.09, size=12), strict=True
        ):
            dx, dy = np.abs(across - x), np.abs(along - y)
            chosen |= np.minimum(dx, 1 - dx) ** 2 + np.minimum(dy, 1 - dy) ** 2 < r * r
    return _painted(chosen, color, second)


def _toy_pixels(texture: str, color: Color, second: Color, size: int = 64) -> np.ndarray:
    """A cube texture of two colors, uint8 "6*size size 3": bands around the toy, or the squares of a beach ball."""
    place = 2 * (np.arange(size) + 0.5) / size - 1
    s, t = np.meshgrid(place, place)
    one = np.ones_like(s)
    # The six sides as OpenGL lays them out: +x, -x, +y, -y, +z, -z.
    sides = [(one, -t, -s), (-one, -t, s), (s, one, t), (s, -one, -t), (s, -t, one), (-s, -t, -one)]
    x, y, z = np.concatenate([np.stack(np.broadcast_arrays(*side)) for side in sides], axis=1)
    around, up = np.arctan2(y, x), np.arcsin(z / np.sqrt(x * x + y * y + z * z))
    band = np.floor(up / pi * 5 + 0.5).astype(int) % 2 == 1
    return _painted(
        band if texture == "striped" else (np.floor(around / pi * 3).astype(int) % 2 == 1) ^ (up > 0), color, second
    )


def _painted(chosen: np.ndarray, color: Color, second: Color) -> np.ndarray:
    return np.round(255 * np.where(chosen[..., None], second, color)).clip(0, 255).astype(np.uint8)


def _mesh_xml(name: str, mesh: Mesh) -> str:
    return (
        f'<mesh name="{name}" vertex="{_numbers(mesh.points)}" normal="{_numbers(mesh.normals)}" '
        f'face="{" ".join(map(str, mesh.triangles.ravel()))}"/>'
    )


def toy_mesh(toy: Toy) -> Mesh | None:
    """The surface of a toy, or None where MuJoCo has the shape itself."""
    h = toy.half
    match toy.shape:
        case "box":
            return shapes.rounded_box((0.84 * h, 0.84 * h, 0.84 * h), 0.1 * h)
        case "cylinder":
            return shapes.rounded_cylinder(0.78 * h, 0.92 * h, 0.09 * h)
        case "cone":
            return shapes.rounded_cone(0.98 * h, 2.0 * h, 0.1 * h, 0.1 * h)
        case "egg":
            return shapes.egg(0.82 * h, 1.1 * h)
        case "ring":
            return shapes.ring(0.85 * h, 0.3 * h)
        case _:
            return None


def _toy_geoms(k: int, toy: Toy) -> list[str]:
    h = toy.half
    look = f'class="seen" material="toy{k}"'
    collide = 'class="solid"'
    match toy.shape:
        case "ball":
            return [f'<geom type="sphere" size="{h:.4f}" {look}/>', f'<geom type="sphere" size="{h:.4f}" {collide}/>']
        case "pill":
            size = f'type="capsule" size="{0.58 * h:.4f} {0.68 * h:.4f}" euler="0 90 0"'
            return [f"<geom {size} {look}/>", f"<geom {size} {collide}/>"]
        case "box":
            return [
                f'<geom type="mesh" mesh="toy{k}" {look}/>',
                f'<geom type="box" size="{_numbers([0.84 * h] * 3)}" {collide}/>',
            ]
        case "cylinder":
            solid = f'<geom type="cylinder" size="{0.78 * h:.4f} {0.92 * h:.4f}" {collide}/>'
            return [f'<geom type="mesh" mesh="toy{k}" {look}/>', solid]
        case "cone":
            return [f'<geom type="mesh" mesh="toy{k}" {g}/>' for g in (look, collide)]
        case "egg":
            turn = 'euler="0 90 0"'
            return [f'<geom type="mesh" mesh="toy{k}" {turn} {g}/>' for g in (look, collide)]
        case "ring":
            angles = np.arange(12) * 2 * pi / 12
            ends = 0.85 * h * np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
            tubes = [
                f'<geom type="capsule" size="{0.3 * h:.4f}" fromto="{_numbers([a, b])}" {collide}/>'
                for a, b in zip(ends, np.roll(ends, 1, 0), strict=True)
            ]
            return [f'<geom type="mesh" mesh="toy{k}" {look}/>', *tubes]
        case _:
            raise AssertionError(toy.shape)


def resting_height(toy: Toy) -> float:
    """The height of a toy's own origin when it rests on the floor."""
    return (
        toy.half
        * {"ball": 1.0, "box": 0.84, "cylinder": 0.92, "pill": 0.58, "egg": 0.82, "cone": 0.0, "ring": 0.3}[toy.shape]
    )


def _wall_xml(k: int, room: Room) -> str:
    """A plane whose local x runs along the wall, y up and z into the room: MuJoCo lays textures on the x-y plane.

    Planes cast no shadow. A slab would, and its rim would sparkle.
    """
    c, s, height = cos(k * pi / 2), sin(k * pi / 2), room.wall_height / 2
    place = _numbers([c * room.half, s * room.half, height])
    return (
        f'<geom type="plane" pos="{place}" xyaxes="{_numbers([s, -c, 0, 0, 0, 1])}" '
        f'size="{room.half:.4f} {height:.4f} 1" group="0" condim="3" solref="0.04 0.7" material="wall{k}"/>'
    )


def _wall_pixels(wall: Wall, room: Room) -> np.ndarray:
    """A wall with its panels, a board below and a rim above, uint8 "128 512 3"; row 0 is on top.

    They are painted, not built: the shadows of thin things sparkle.
    """
    rows, columns = WALL_TEXELS
    up = (1.0 - (np.arange(rows)[:, None] + 0.5) / rows) * room.wall_height
    along = ((np.arange(columns)[None] + 0.5) / columns - 0.5) * 2 * room.half
    pixels = np.empty((rows, columns, 3))
    pixels[:] = wall.color
    for panel in wall.panels:
        pixels[(np.abs(along - panel.along) < panel.half_width) & (np.abs(up - panel.height) < panel.half_height)] = (
            panel.color
        )
    pixels[up[:, 0] < 0.13] = _lighter(wall.color, 0.7)
    pixels[up[:, 0] > room.wall_height - 0.06] = _lighter(wall.color, 0.55)
    return np.round(255 * pixels).astype(np.uint8)


def _light(room: Room) -> str:
    """One far lamp. A directional light speckles the floor with its own shadow; a spot that is far away does not."""
    turn, height, distance = room.light_turn, room.light_height, 11.0
    place = distance * np.array([cos(height) * cos(turn), cos(height) * sin(turn), sin(height)])
    cutoff = degrees(atan2(1.8 * room.half, distance)) + 4.0
    level = 0.44 * room.brightness
    return (
        f'<light type="spot" castshadow="true" pos="{_numbers(place)}" dir="{_numbers(-place)}" '
        f'cutoff="{cutoff:.2f}" exponent="1" ambient="0 0 0" '
        f'diffuse="{_numbers([level * 1.04, level, level * 0.95])}" specular="0.5 0.5 0.5"/>'
    )


def world_xml(scene: Scene, timestep: float) -> str:
    """The scene as MJCF."""
    room = scene.room
    horizon, overhead = SKIES[room.sky]
    meshes = [_mesh_xml(f"toy{k}", mesh) for k, toy in enumerate(scene.toys) if (mesh := toy_mesh(toy)) is not None]
    materials = []
    for k, toy in enumerate(scene.toys):
        texture = f'texture="toy{k}"' if toy.texture != "plain" else f'rgba="{_numbers(TOY_COLORS[toy.color])} 1"'
        materials.append(f'<material name="toy{k}" {texture} specular="0.55" shininess="0.55"/>')
    tile = 1.0 / room.floor_tile
    floor = f'texture="floor" texuniform="true" texrepeat="{tile:.4f} {tile:.4f}"' if room.floor != "plain" else ""
    floor_color = "1 1 1 1" if room.floor != "plain" else _numbers(FLOOR_COLORS[room.floor_color]) + " 1"
    rug = ""
    if room.rug != "none":
        color = _numbers(FLOOR_COLORS[room.rug])
        rug = (
            f'<geom type="cylinder" class="seen" size="{room.rug_radius:.4f} 0.006" pos="0 0 0.006" '
            f'material="rug" rgba="{color} 1"/>'
        )
    bodies = []
    for k, toy in enumerate(scene.toys):
        geoms = "".join(_toy_geoms(k, toy))
        place = f"{toy.x:.4f} {toy.y:.4f} {resting_height(toy) + 0.01:.4f}"
        bodies.append(
            f'<body name="toy{k}" pos="{place}" euler="0 0 {degrees(toy.yaw):.3f}">'
            f'<freejoint name="toy{k}"/>{geoms}</body>'
        )
    walls = [_wall_xml(k, room) for k in range(len(room.walls))]
    textures = (
        '<texture name="floor" type="2d" builtin="flat" width="256" height="256"/>' if room.floor != "plain" else ""
    )
    textures += "".join(
        f'<texture name="toy{k}" type="cube" builtin="flat" width="64" height="384"/>'
        for k, toy in enumerate(scene.toys)
        if toy.texture != "plain"
    )
    for k in range(len(room.walls)):
        materials.append(f'<material name="wall{k}" texture="wall{k}" specular="0.05" shininess="0.2"/>')
        textures += (
            f'<texture name="wall{k}" type="2d" builtin="flat" width="{WALL_TEXELS[1]}" height="{WALL_TEXELS[0]}"/>'
        )
    return f"""
<mujoco>
  <compiler angle="degree"/>
  <option timestep="{timestep:.8f}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <statistic center="0 0 0.5" extent="1" meansize="0.3"/>
  <visual>
    <quality offsamples="{SAMPLES}" numslices="40" numstacks="24"/>
    <headlight ambient="0.57 0.58 0.6" diffuse="0.16 0.16 0.16" specular="0 0 0"/>
    <map znear="0.05" zfar="{FAR}" shadowclip="8" shadowscale="1"/>
  </visual>
  <default>
    <default class="seen"><geom contype="0" conaffinity="0" group="0" mass="0"/></default>
    <default class="solid">
      <geom group="3" density="300" condim="6" friction="0.4 0.02 0.015" solref="0.03 0.7" solimp="0.95 0.99 0.002"
            rgba="0 0 0 0"/>
    </default>
  </default>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="{_numbers(overhead)}" rgb2="{_numbers(horizon)}"
             width="128" height="768"/>
    {textures}
    <material name="floor" {floor} specular="0.05" shininess="0.2"/>
    <material name="rug" specular="0.05" shininess="0.2"/>
    {"".join(materials)}
    {"".join(meshes)}
  </asset>
  <worldbody>
    {_light(room)}
    <geom name="floor" type="plane" size="{room.half + 0.3:.4f} {room.half + 0.3:.4f} 1"
          euler="0 0 {degrees(room.floor_turn):.3f}" group="0" condim="6" friction="0.4 0.02 0.015"
          solref="0.03 0.7"
          material="floor" rgba="{floor_color}"/>
    {rug}
    {"".join(walls)}
    {"".join(bodies)}
  </worldbody>
</mujoco>
"""


def textures_of(scene: Scene) -> dict[str, np.ndarray]:
    """The pixels of every texture that the model names."""
    room = scene.room
    found = {f"wall{k}": _wall_pixels(wall, room) for k, wall in enumerate(room.walls)}
    if room.floor != "plain":
        color = FLOOR_COLORS[room.floor_color]
        found["floor"] = _floor_pixels(room.floor, color, _lighter(color, 0.5))
    for k, toy in enumerate(scene.toys):
        if toy.texture != "plain":
            color = TOY_COLORS[toy.color]
            found[f"toy{k}"] = _toy_pixels(toy.texture, color, _lighter(color, 0.65) if min(color) < 0.8 else GRAY)
    return found
