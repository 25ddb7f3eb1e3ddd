"""A scene as a MuJoCo model (MJCF text) and the textures of its surfaces.

Groups: 0 is what is drawn, 3 is what collides and is not drawn. Toy k is the body `toy<k>`.
"""

from __future__ import annotations

from math import atan2, cos, degrees, pi, sin

import numpy as np

from longtake.toybox import shapes
from longtake.toybox.scenes import FLOOR_COLORS, SKIES, TOY_COLORS, Color, Room, Scene, Toy, Wall
from longtake.toybox.shapes import Mesh

__all__ = ["AWAY", "pixels_of", "world_xml"]

AWAY = 400.0  # meters above the floor, behind the far clip plane: where toys wait until they are dropped
FAR = 40.0
SHADOW_TEXELS = 1024


def _numbers(values: object) -> str:
    return " ".join(f"{v:.5g}" for v in np.ravel(np.asarray(values)))


def _lighter(color: Color, share: float) -> Color:
    r, g, b = (c + share * ((1.0 if share > 0 else c * 0.0) - c) * (1 if share > 0 else -1) for c in color)
    return r, g, b


def pixels_of(texture: str, color: Color, second: Color, size: int = 256, seed: int = 0) -> np.ndarray:
    """A texture of two colors, uint8 "size size 3", that repeats without a seam."""
    place = (np.arange(size) + 0.5) / size
    across, along = np.meshgrid(place, place)
    if texture == "striped":
        share = across < 0.5
    elif texture == "checkered":
        share = (across < 0.5) ^ (along < 0.5)
    elif texture == "speckled":
        draw = np.random.default_rng(seed)
        share = np.zeros((size, size), dtype=bool)
        for x, y, r in zip(
            draw.uniform(size=40), draw.uniform(size=40), draw.uniform(0.02, 0.05, size=40), strict=True
        ):
            dx, dy = np.abs(across - x), np.abs(along - y)
            share |= np.minimum(dx, 1 - dx) ** 2 + np.minimum(dy, 1 - dy) ** 2 < r * r
    else:
        share = np.zeros((size, size), dtype=bool)
    return np.round(255 * np.where(share[..., None], second, color)).clip(0, 255).astype(np.uint8)


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


def _wall_xml(k: int, wall: Wall, room: Room) -> list[str]:
    angle = k * pi / 2
    c, s, half, height = cos(angle), sin(angle), room.half, room.wall_height

    def slab(
        along: float, inward: float, z: float, size: tuple[float, float, float], color: Color, extra: str = ""
    ) -> str:
        x, y = c * (half - inward) - s * along, s * (half - inward) + c * along
        return (
            f'<geom type="box" class="seen" pos="{x:.4f} {y:.4f} {z:.4f}" euler="0 0 {degrees(angle):.3f}" '
            f'size="{_numbers(size)}" material="wall" rgba="{_numbers(color)} 1" {extra}/>'
        )

    geoms = [slab(0.0, -0.1, height / 2, (0.1, half + 0.2, height / 2), wall.color)]
    geoms.append(slab(0.0, -0.1, height + 0.03, (0.1, half + 0.2, 0.03), _lighter(wall.color, 0.55)))
    geoms.append(slab(0.0, 0.0, 0.07, (0.015, half, 0.07), _lighter(wall.color, 0.7)))
    geoms += [slab(p.along, 0.0, p.height, (0.012, p.half_width, p.half_height), p.color) for p in wall.panels]
    geoms.append(
        f'<geom type="plane" class="barrier" pos="{c * half:.4f} {s * half:.4f} 0" '
        f'zaxis="{-c:.4f} {-s:.4f} 0" size="9 9 1"/>'
    )
    return geoms


def _light(room: Room) -> str:
    """One far lamp. A directional light speckles the floor with its own shadow; a spot that is far away does not."""
    turn, height, distance = room.light_turn, room.light_height, 11.0
    place = distance * np.array([cos(height) * cos(turn), cos(height) * sin(turn), sin(height)])
    cutoff = degrees(atan2(1.5 * room.half, distance)) + 4.0
    level = 0.44 * room.brightness
    return (
        f'<light type="spot" castshadow="true" pos="{_numbers(place)}" dir="{_numbers(-place)}" '
        f'cutoff="{cutoff:.2f}" exponent="1" ambient="0 0 0" '
        f'diffuse="{_numbers([level * 1.04, level, level * 0.95])}" specular="0.5 0.5 0.5"/>'
    )


def world_xml(scene: Scene, timestep: float, width: int, height: int) -> str:
    """The scene as MJCF. `width` and `height` are those of the offscreen buffer, in pixels."""
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
            f'material="wall" rgba="{color} 1"/>'
        )
    bodies = []
    for k, toy in enumerate(scene.toys):
        geoms = "".join(_toy_geoms(k, toy))
        place = f"{toy.x:.4f} {toy.y:.4f} {resting_height(toy) + 0.01:.4f}"
        bodies.append(
            f'<body name="toy{k}" pos="{place}" euler="0 0 {degrees(toy.yaw):.3f}">'
            f'<freejoint name="toy{k}"/>{geoms}</body>'
        )
    walls = [line for k, wall in enumerate(room.walls) for line in _wall_xml(k, wall, room)]
    textures = "".join(
        f'<texture name="{name}" type="2d" builtin="flat" width="256" height="256" rgb1="1 1 1"/>'
        for name in ["floor"] * (room.floor != "plain")
        + [f"toy{k}" for k, t in enumerate(scene.toys) if t.texture != "plain"]
    )
    return f"""
<mujoco>
  <compiler angle="degree"/>
  <option timestep="{timestep:.8f}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <statistic center="0 0 0.5" extent="1" meansize="0.3"/>
  <visual>
    <global offwidth="{width}" offheight="{height}"/>
    <quality shadowsize="{SHADOW_TEXELS}" offsamples="8" numslices="40" numstacks="24"/>
    <headlight ambient="0.54 0.55 0.57" diffuse="0.16 0.16 0.16" specular="0 0 0"/>
    <map znear="0.05" zfar="{FAR}" shadowclip="8" shadowscale="0.95"/>
  </visual>
  <default>
    <default class="seen"><geom contype="0" conaffinity="0" group="0" mass="0"/></default>
    <default class="solid">
      <geom group="3" density="300" condim="6" friction="0.4 0.02 0.015" solref="0.03 0.7" solimp="0.95 0.99 0.002"
            rgba="0 0 0 0"/>
    </default>
    <default class="barrier"><geom group="3" condim="3" rgba="0 0 0 0" solref="0.04 0.7"/></default>
  </default>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="{_numbers(overhead)}" rgb2="{_numbers(horizon)}"
             width="128" height="768"/>
    {textures}
    <material name="floor" {floor} specular="0.05" shininess="0.2"/>
    <material name="wall" specular="0.05" shininess="0.2"/>
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
    room, found = scene.room, {}
    if room.floor != "plain":
        color = FLOOR_COLORS[room.floor_color]
        found["floor"] = pixels_of(room.floor, color, _lighter(color, 0.5))
    for k, toy in enumerate(scene.toys):
        if toy.texture != "plain":
            color = TOY_COLORS[toy.color]
            found[f"toy{k}"] = pixels_of(toy.texture, color, _lighter(color, 0.6))
    return found
