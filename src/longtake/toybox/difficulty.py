"""How hard a world is: what may be in a scene, what may happen in it, and how the camera may move.

A difficulty is data. The generators read it and nothing else, so a new one needs no code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from longtake.errors import ConfigError

__all__ = ["DIFFICULTIES", "CameraStyle", "Difficulty", "Range", "difficulty_named"]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, drawn evenly."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CameraStyle:
    """How the camera moves: segments of one command each, eased in and out.

    `weights` are the chances of the commands; `turn` is in degrees a second, `zoom` the share of the distance a second.
    """

    weights: dict[str, float]
    segment: Range = Range(2.0, 6.0)  # seconds
    turn: Range = Range(14.0, 18.0)
    pan: Range = Range(14.0, 18.0)
    look: float = 8.0  # degrees a second up or down
    zoom: float = 0.09
    reverse: float = 0.45  # chance that a move is followed by the same move backwards
    look_back: float = 0.85  # the same for a look away from the center
    distance: Range = Range(3.1, 3.5)
    elevation: Range = Range(16.0, 23.0)  # degrees above the horizon
    center_height: Range = Range(0.5, 0.58)
    fov: Range = Range(38.0, 40.0)  # vertical, degrees


@dataclass(frozen=True, slots=True)
class Difficulty:
    """One kind of world."""

    name: str
    toys: dict[int, float]  # number of toys -> chance
    shapes: tuple[str, ...]
    colors: tuple[str, ...]
    textures: dict[str, float]  # of toys
    sizes: dict[str, float]
    scale: Range  # half the size of a medium toy of a scene, by the number of toys from 1 (high) to the most (low)
    floors: dict[str, float]
    floor_colors: tuple[str, ...]
    rug: float  # chance of a round rug
    skies: tuple[str, ...]
    room: Range  # half the length of a wall, meters
    wall_height: Range
    panels: Range  # on each wall
    spread: float  # toys start within this distance of the center
    reach: float  # a clip in which a toy goes farther is bad
    events: dict[int, float]  # number of events -> chance
    event_kinds: dict[str, float]
    push_speed: Range  # meters a second
    camera: CameraStyle = field(default_factory=lambda: CameraStyle({"still": 1.0}))


KIND = Difficulty(
    name="kind",
    toys={1: 0.2, 2: 0.4, 3: 0.4},
    shapes=("ball", "box", "cylinder", "pill", "egg", "cone"),
    colors=("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink"),
    textures={"plain": 1.0},
    sizes={"big": 0.25, "medium": 0.5, "small": 0.25},
    scale=Range(0.42, 0.56),
    floors={"plain": 0.6, "striped": 0.4},
    floor_colors=("gray", "white", "beige", "blue", "green", "pink", "yellow", "purple"),
    rug=0.0,
    skies=("blue", "orange", "pink", "gray"),
    room=Range(4.3, 4.3),
    wall_height=Range(1.15, 1.4),
    panels=Range(1, 3),
    spread=0.85,
    reach=1.35,
    events={0: 0.45, 1: 0.4, 2: 0.15},
    event_kinds={"push": 0.45, "drop": 0.3, "spin": 0.25},
    push_speed=Range(1.0, 1.5),
    camera=CameraStyle({"still": 0.2, "left": 0.3, "right": 0.3, "in": 0.1, "out": 0.1}),
)

WIDE = Difficulty(
    name="wide",
    toys={2: 0.2, 3: 0.3, 4: 0.25, 5: 0.15, 6: 0.1},
    shapes=("ball", "box", "cylinder", "pill", "egg", "cone", "ring"),
    colors=("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "white", "black", "brown"),
    textures={"plain": 0.65, "striped": 0.2, "checkered": 0.15},
    sizes={"big": 0.25, "medium": 0.5, "small": 0.25},
    scale=Range(0.3, 0.42),
    floors={"plain": 0.3, "striped": 0.25, "checkered": 0.25, "speckled": 0.2},
    floor_colors=("gray", "white", "beige", "blue", "green", "pink", "yellow", "purple", "brown"),
    rug=0.3,
    skies=("blue", "orange", "pink", "gray", "dark"),
    room=Range(4.2, 5.2),
    wall_height=Range(0.9, 1.8),
    panels=Range(0, 4),
    spread=1.6,
    reach=3.0,
    events={0: 0.15, 1: 0.3, 2: 0.3, 3: 0.25},
    event_kinds={"push": 0.35, "drop": 0.25, "spin": 0.2, "throw": 0.2},
    push_speed=Range(1.2, 2.4),
    camera=CameraStyle(
        {
            "still": 0.15, "left": 0.18, "right": 0.18, "in": 0.07, "out": 0.07,
            "pan left": 0.11, "pan right": 0.11, "up": 0.065, "down": 0.065,
        },
        segment=Range(1.5, 5.0),
        turn=Range(10.0, 26.0),
        pan=Range(14.0, 26.0),
        distance=Range(3.0, 3.8),
        elevation=Range(12.0, 30.0),
        fov=Range(38.0, 48.0),
    ),
)  # fmt: skip

DIFFICULTIES = {d.name: d for d in (KIND, WIDE)}


def difficulty_named(name: str) -> Difficulty:
    """The difficulty of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return DIFFICULTIES[name]
    except KeyError:
        raise ConfigError(f"no difficulty {name!r}; there are: {', '.join(DIFFICULTIES)}") from None
