"""What is true of a clip, beside its pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake.errors import InputError
from longtake.toybox.camera import Segment, commands_of
from longtake.toybox.physics import Event
from longtake.toybox.scenes import Panel, Room, Scene, Toy, Wall

__all__ = ["SEEN", "Truth", "read_truths", "write_truths"]

SEEN = 0.002  # share of a picture from which on a toy counts as seen: 30 pixels of 160 x 96


@dataclass(frozen=True, eq=False, slots=True)
class Truth:
    """Everything about a clip that is not its pixels. `T` images, `k` toys."""

    seed: int
    attempt: int  # the sub-seed that gave a good clip
    difficulty: str
    fps: int
    scene: Scene
    program: tuple[Segment, ...]
    events: tuple[Event, ...]
    camera: np.ndarray  # float32 "T 6": x, y, z (meters), yaw, pitch, vertical field of view (degrees)
    poses: np.ndarray  # float32 "T k 7": place (meters) and quaternion, w first
    visibility: np.ndarray  # float32 "T k": share of the image's pixels

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.camera)

    @property
    def toys(self) -> tuple[Toy, ...]:
        """The toys, in the order of `poses` and `visibility`."""
        return self.scene.toys

    @property
    def commands(self) -> tuple[str, ...]:
        """What the camera is told, image by image."""
        return commands_of(self.program)

    def seen(self, first: int, last: int) -> tuple[int, ...]:
        """The toys that can be seen in at least one of the images `first` to `last`, both included."""
        return tuple(int(k) for k in np.flatnonzero(self.visibility[first : last + 1].max(0) >= SEEN))

    def happening(self, first: int, last: int) -> tuple[Event, ...]:
        """The events under way in the images `first` to `last`, both included; a half second is the least."""
        least = min(self.fps // 2, last - first)
        return tuple(e for e in self.events if min(last, e.last) - max(first, e.first) >= min(least, e.last - e.first))

    def to_json(self) -> str:
        """One line; `from_json` gives the same truth back."""
        data = {name: getattr(self, name) for name in ("seed", "attempt", "difficulty", "fps")}
        data |= {"scene": asdict(self.scene), "program": [asdict(s) for s in self.program]}
        data |= {"events": [asdict(e) for e in self.events]}
        data |= {name: _rounded(getattr(self, name)) for name in ("camera", "poses", "visibility")}
        return json.dumps(data, separators=(",", ":"))

    @staticmethod
    def from_json(line: str) -> Truth:
        """The truth in one line.

        Raises:
            InputError: the line holds something else.
        """
        try:
            data: dict[str, Any] = json.loads(line)
            return Truth(
                seed=data["seed"],
                attempt=data["attempt"],
                difficulty=data["difficulty"],
                fps=data["fps"],
                scene=_scene(data["scene"]),
                program=tuple(Segment(**s) for s in data["program"]),
                events=tuple(Event(**e) for e in data["events"]),
                camera=np.array(data["camera"], np.float32),
                poses=np.array(data["poses"], np.float32),
                visibility=np.array(data["visibility"], np.float32),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not the truth of a toybox clip: {line[:60]!r}: {error}") from error


def _rounded(numbers: np.ndarray) -> list[Any]:
    return np.round(numbers.astype(np.float64), 4).tolist()


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _scene(data: dict[str, Any]) -> Scene:
    room = dict(data["room"])
    room["walls"] = tuple(
        Wall(_tuples(w["color"]), tuple(Panel(**{**p, "color": _tuples(p["color"])}) for p in w["panels"]))
        for w in room["walls"]
    )
    return Scene(tuple(Toy(**t) for t in data["toys"]), Room(**room))


def write_truths(path: Path, truths: Sequence[Truth]) -> None:
    """Writes one line a truth."""
    path.write_text("".join(truth.to_json() + "\n" for truth in truths), encoding="utf-8")


def read_truths(path: Path) -> tuple[Truth, ...]:
    """The truths of a file, one in each line.

    Raises:
        InputError: the file is missing, or a line is something else.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return tuple(Truth.from_json(line) for line in lines)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
