"""Meshes with smooth edges, as points, normals and triangles.

Two generators make them all: a profile turned about the vertical axis, and a box with rounded edges. Sharp edges
flicker in small pictures and look cheap; a rounded edge catches the light.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np

__all__ = ["Mesh", "rounded_box", "turned"]


@dataclass(frozen=True, eq=False, slots=True)
class Mesh:
    """A closed surface; triangles are counter-clockwise seen from outside."""

    points: np.ndarray  # "n 3"
    normals: np.ndarray  # "n 3"
    triangles: np.ndarray  # "m 3", indices of points


def _grid(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of points whose columns close to a ring; rows go up, columns go counter-clockwise."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def _without_slivers(points: np.ndarray, normals: np.ndarray, triangles: np.ndarray) -> Mesh:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return Mesh(points, normals, triangles[area > 1e-9])


def turned(profile: np.ndarray, slopes: np.ndarray, sides: int = 40) -> Mesh:
    """A profile turned about z. `profile` and `slopes` (its normals) are "n 2": radius and height, from below."""
    angle = 2 * pi * np.arange(sides) / sides
    around = np.stack([np.cos(angle), np.sin(angle)], -1)

    def turn(line: np.ndarray) -> np.ndarray:
        flat = line[:, None, :1] * around[None]
        return np.concatenate([flat, np.broadcast_to(line[:, None, 1:], (*flat.shape[:2], 1))], -1).reshape(-1, 3)

    return _without_slivers(turn(profile), turn(slopes), _grid(len(profile), sides))


def rounded_box(half: tuple[float, float, float], radius: float, steps: int = 5) -> Mesh:
    """A box of half sizes `half` whose edges are rounded by `radius`."""
    quarter = np.linspace(0.0, pi / 2, steps)
    up = np.concatenate([quarter - pi / 2, quarter])
    around = np.concatenate([quarter + k * pi / 2 for k in range(4)])
    north = np.concatenate([-np.ones(steps), np.ones(steps)])
    east = np.repeat([1, -1, -1, 1], steps)
    south = np.repeat([1, 1, -1, -1], steps)
    normals = np.stack(
        [
            np.outer(np.cos(up), np.cos(around)),
            np.outer(np.cos(up), np.sin(around)),
            np.outer(np.sin(up), np.ones(len(around))),
        ],
        -1,
    )
    sign = np.stack(np.broadcast_arrays(east[None], south[None], north[:, None]), -1)
    points = sign * (np.asarray(half) - radius) + radius * normals
    triangles = _grid(len(up), len(around))
    corners = np.array([0, 1, 2, 3]) * steps
    top = (len(up) - 1) * len(around) + corners
    caps = np.array([[top[0], top[1], top[2]], [top[0], top[2], top[3]], [*corners[[0, 2, 1]]], [*corners[[0, 3, 2]]]])
    return _without_slivers(points.reshape(-1, 3), normals.reshape(-1, 3), np.concatenate([triangles, caps]))


def _arc(
    center: tuple[float, float], radius: float, start: float, end: float, steps: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(start, end, steps)
    normal = np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.asarray(center) + radius * normal, normal


def _joined(*pieces: tuple[np.ndarray, np.ndarray]) -> Mesh:
    return turned(np.concatenate([p for p, _ in pieces]), np.concatenate([n for _, n in pieces]))


def _cap(height: float, radius: float, up: float) -> tuple[np.ndarray, np.ndarray]:
    radii = np.array([0.0, radius] if up < 0 else [radius, 0.0])
    return np.stack([radii, np.full(2, height)], -1), np.tile([0.0, up], (2, 1))


def rounded_cylinder(radius: float, half: float, edge: float) -> Mesh:
    """An upright cylinder with rounded edges."""
    inner = (radius - edge, half - edge)
    return _joined(
        _cap(-half, inner[0], -1.0),
        _arc((inner[0], -inner[1]), edge, -pi / 2, 0.0),
        _arc(inner, edge, 0.0, pi / 2),
        _cap(half, inner[0], 1.0),
    )


def rounded_cone(radius: float, height: float, edge: float, tip: float) -> Mesh:
    """A cone that stands on z = 0, with a rounded rim and a rounded tip."""
    slope = np.arctan2(radius, height)  # the angle of the side's normal above the horizon
    low = (radius - edge / np.tan((pi / 2 - slope) / 2), edge)
    high = (0.0, height - tip / np.sin(slope))
    return _joined(_cap(0.0, low[0], -1.0), _arc(low, edge, -pi / 2, slope), _arc(high, tip, slope, pi / 2))


def egg(radius: float, half: float, point: float = 0.28, steps: int = 24) -> Mesh:
    """An egg along z: blunt below, pointed above. Half its length is `half`."""
    angle = np.linspace(-pi / 2, pi / 2, steps)
    r = radius * np.cos(angle) * (1.0 - point * np.sin(angle)) ** 0.5
    z = half * np.sin(angle)
    dr, dz = np.gradient(r, angle), np.gradient(z, angle)
    normal = np.stack([dz, -dr], -1)
    normal[0], normal[-1] = (0.0, -1.0), (0.0, 1.0)
    return turned(np.stack([r, z], -1), normal / np.linalg.norm(normal, axis=1, keepdims=True))


def ring(radius: float, thickness: float, steps: int = 20) -> Mesh:
    """A torus around z: `radius` to the middle of the tube, whose radius is `thickness`."""
    points, normals = _arc((radius, 0.0), thickness, -pi, pi, steps + 1)
    return turned(points, normals)
