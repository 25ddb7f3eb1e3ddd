"""What stands where: toys, room, sky, light, as data drawn from a random generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TypeVar

import numpy as np

from longtake.toybox.difficulty import Difficulty, Range

__all__ = [
    "FLOOR_COLORS", "SIZES", "SKIES", "TOY_COLORS", "Color", "Panel", "Room", "Scene", "Toy", "Wall",
    "choice", "draw_scene", "uniform",
]  # fmt: skip

T = TypeVar("T")
Color = tuple[float, float, float]

TOY_COLORS: dict[str, Color] = {
    "red": (0.86, 0.16, 0.15),
    "orange": (0.98, 0.50, 0.10),
    "yellow": (0.98, 0.82, 0.16),
    "green": (0.20, 0.66, 0.28),
    "turquoise": (0.13, 0.72, 0.72),
    "blue": (0.14, 0.36, 0.86),
    "purple": (0.50, 0.24, 0.74),
    "pink": (0.97, 0.50, 0.68),
    "white": (0.94, 0.94, 0.93),
    "black": (0.13, 0.13, 0.15),
    "brown": (0.50, 0.31, 0.18),
}
FLOOR_COLORS: dict[str, Color] = {
    "gray": (0.66, 0.67, 0.70),
    "white": (0.88, 0.88, 0.87),
    "beige": (0.83, 0.75, 0.62),
    "blue": (0.58, 0.71, 0.84),
    "green": (0.60, 0.76, 0.62),
    "pink": (0.88, 0.70, 0.71),
    "yellow": (0.91, 0.83, 0.56),
    "purple": (0.71, 0.65, 0.83),
    "brown": (0.66, 0.52, 0.40),
}
SKIES: dict[str, tuple[Color, Color]] = {  # at the horizon, overhead
    "blue": ((0.86, 0.93, 0.98), (0.42, 0.66, 0.92)),
    "orange": ((1.00, 0.90, 0.76), (0.97, 0.66, 0.45)),
    "pink": ((0.99, 0.90, 0.90), (0.86, 0.64, 0.78)),
    "gray": ((0.93, 0.94, 0.95), (0.68, 0.72, 0.78)),
    "dark": ((0.36, 0.40, 0.56), (0.09, 0.11, 0.24)),
}
WALLS: tuple[tuple[Color, Color, Color, Color], ...] = (  # four walls that go together, in order around the room
    ((0.56, 0.67, 0.58), (0.80, 0.58, 0.47), (0.87, 0.79, 0.64), (0.48, 0.60, 0.71)),
    ((0.52, 0.65, 0.77), (0.72, 0.57, 0.68), (0.89, 0.85, 0.75), (0.42, 0.64, 0.63)),
    ((0.87, 0.69, 0.64), (0.60, 0.63, 0.46), (0.91, 0.88, 0.82), (0.45, 0.53, 0.67)),
    ((0.93, 0.80, 0.58), (0.50, 0.62, 0.72), (0.78, 0.50, 0.47), (0.66, 0.74, 0.66)),
    ((0.66, 0.60, 0.76), (0.88, 0.83, 0.76), (0.46, 0.60, 0.55), (0.82, 0.64, 0.56)),
    ((0.44, 0.58, 0.72), (0.86, 0.74, 0.70), (0.55, 0.66, 0.66), (0.80, 0.70, 0.52)),
)
SIZES = {"small": 0.72, "medium": 1.0, "big": 1.25}
SYMMETRIC = frozenset({"ball", "cylinder", "cone", "ring"})  # a plain one shows no spin


@dataclass(frozen=True, slots=True)
class Toy:
    """One toy. `half` is half its size in meters; `yaw` its heading where it starts."""

    shape: str
    color: str
    texture: str
    size: str
    half: float
    x: float
    y: float
    yaw: float

    @property
    def shows_spin(self) -> bool:
        """Whether a turn about its vertical axis can be seen."""
        return self.shape not in SYMMETRIC or self.texture != "plain"


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle on a wall; sizes and places in meters from the wall's middle and the floor."""

    along: float
    height: float
    half_width: float
    half_height: float
    color: Color


@dataclass(frozen=True, slots=True)
class Wall:
    """One side of the room."""

    color: Color
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """The arena: floor, four walls, sky and light."""

    half: float
    wall_height: float
    walls: tuple[Wall, ...]
    floor: str  # texture
    floor_color: str
    floor_turn: float  # radians
    floor_tile: float  # meters of one repeat of the texture
    rug: str  # a floor color, or "none"
    rug_radius: float
    sky: str
    light_turn: float  # radians around the vertical axis
    light_height: float  # radians above the horizon
    brightness: float


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is there at the start."""

    toys: tuple[Toy, ...]
    room: Room


def uniform(draw: np.random.Generator, range: Range) -> float:
    """A number of that range."""
    return float(draw.uniform(range.low, range.high))


def choice(draw: np.random.Generator, weights: Mapping[T, float]) -> T:
    """A key, with its weight as its chance."""
    keys = list(weights)
    chances = np.array([weights[k] for k in keys], dtype=float)
    return keys[int(draw.choice(len(keys), p=chances / chances.sum()))]


def draw_scene(draw: np.random.Generator, difficulty: Difficulty) -> Scene:
    """A random scene. No two toys share both color and shape, and none begins inside another."""
    room = _draw_room(draw, difficulty)
    return Scene(_draw_toys(draw, difficulty), room)


def _draw_toys(draw: np.random.Generator, d: Difficulty) -> tuple[Toy, ...]:
    count = choice(draw, d.toys)
    fewest, most = min(d.toys), max(d.toys)
    crowd = (count - fewest) / max(1, most - fewest)
    scale = d.scale.high + (d.scale.low - d.scale.high) * crowd
    colors = draw.permutation(d.colors)[:count]  # each its own color: a prompt can name it by color alone
    shapes = [str(s) for s in draw.choice(d.shapes, size=count)]
    sizes = [choice(draw, d.sizes) for _ in range(count)] if count > 1 else ["medium"]
    halves = [scale * SIZES[s] * float(draw.uniform(0.96, 1.04)) for s in sizes]
    places = _draw_places(draw, halves, d.spread)
    return tuple(
        Toy(shape, str(color), choice(draw, d.textures), size, half, *place, float(draw.uniform(0, 2 * pi)))
        for shape, color, size, half, place in zip(shapes, colors, sizes, halves, places, strict=True)
    )


def _draw_places(draw: np.random.Generator, halves: list[float], spread: float) -> list[tuple[float, float]]:
    if len(halves) == 1:
        return [(float(draw.uniform(-0.15, 0.15)), float(draw.uniform(-0.15, 0.15)))]
    while True:
        places: list[tuple[float, float]] = []
        for half in halves:
            for _ in range(40):
                r, angle = spread * draw.uniform() ** 0.5, draw.uniform(0, 2 * pi)
                x, y = float(r * cos(angle)), float(r * sin(angle))
                gaps = [
                    np.hypot(x - u, y - v) - 1.25 * (half + other)
                    for (u, v), other in zip(places, halves, strict=False)
                ]
                if all(g > 0.06 for g in gaps):
                    places.append((x, y))
                    break
        if len(places) == len(halves):
            middle = np.mean(places, axis=0)  # the group stands around the center
            return [(x - float(middle[0]), y - float(middle[1])) for x, y in places]
        spread *= 1.03


def _draw_room(draw: np.random.Generator, d: Difficulty) -> Room:
    half, height = uniform(draw, d.room), uniform(draw, d.wall_height)
    colors = WALLS[draw.integers(len(WALLS))]
    shift, way = int(draw.integers(4)), 1 if draw.random() < 0.5 else -1
    walls = tuple(_draw_wall(draw, d, colors[(shift + way * k) % 4], colors, half, height) for k in range(4))
    floor_color = str(draw.choice(d.floor_colors))
    rugs = [c for c in d.floor_colors if c != floor_color]
    return Room(
        half=half,
        wall_height=height,
        walls=walls,
        floor=choice(draw, d.floors),
        floor_color=floor_color,
        floor_turn=float(draw.integers(2) * pi / 2),
        floor_tile=float(draw.uniform(1.5, 1.9)),
        rug=str(draw.choice(rugs)) if draw.random() < d.rug else "none",
        rug_radius=float(draw.uniform(1.3, 1.8)),
        sky=str(draw.choice(d.skies)),
        light_turn=float(draw.uniform(0, 2 * pi)),
        light_height=float(draw.uniform(0.95, 1.15)),
        brightness=float(draw.uniform(0.97, 1.03)),
    )


def _mixed(a: Color, b: Color, share: float) -> Color:
    r, g, c = ((1 - share) * x + share * y for x, y in zip(a, b, strict=True))
    return r, g, c


def _draw_wall(
    draw: np.random.Generator, d: Difficulty, color: Color, others: tuple[Color, ...], half: float, height: float
) -> Wall:
    count = int(draw.integers(int(d.panels.low), int(d.panels.high) + 1))
    room = 2 * half / max(1, count)
    panels = []
    for k in range(count):
        half_width = float(draw.uniform(0.2, 0.36)) * room if count > 1 else float(draw.uniform(0.8, 1.6))
        along = -half + (k + 0.5) * room + float(draw.uniform(-0.1, 0.1)) * room
        half_height = float(draw.uniform(0.24, 0.36)) * height
        other = others[draw.integers(len(others))]
        tint = (
            _mixed(color, (0.97, 0.96, 0.93), 0.6)
            if other == color or draw.random() < 0.4
            else _mixed(other, color, 0.2)
        )
        panels.append(Panel(along, height * 0.52, half_width, half_height, tint))
    return Wall(color, tuple(panels))
