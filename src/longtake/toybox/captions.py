"""What is said of a window of a clip, from its truth alone.

A caption names the toys that are seen in the window, the floor, what the camera does, and what happens. There are
several wordings, so that a prompt need not hit the right one: 0 is the plainest, others shuffle toys and draw synonyms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random

from longtake.toybox.camera import COMMANDS
from longtake.toybox.difficulty import DIFFICULTIES
from longtake.toybox.physics import Event
from longtake.toybox.scenes import Toy
from longtake.toybox.truth import Truth

__all__ = [
    "TOKENS",
    "VOCABULARY",
    "caption",
    "dominant_command",
    "mirrored",
    "tokens_of",
    "told_events",
    "window_commands",
    "with_command",
]

TOKENS = 38  # words and punctuation marks in a caption, at most
CLEAR = 0.3  # share of a window that a command must fill to be named beside another

CAMERA = {
    "still": ("stands still", "does not move", "stays still"),
    "left": ("orbits left", "moves left", "circles left", "goes left"),
    "right": ("orbits right", "moves right", "circles right", "goes right"),
    "in": ("moves closer", "zooms in", "comes closer"),
    "out": ("moves back", "zooms out", "goes back"),
    "pan left": ("turns left", "pans left", "looks left"),
    "pan right": ("turns right", "pans right", "looks right"),
    "up": ("looks up", "tilts up"),
    "down": ("looks down", "tilts down"),
}
HAPPENS = {
    "roll": ("rolls", "is pushed and rolls"),
    "slide": ("slides", "is pushed and slides"),
    "drop": ("drops from above", "falls from above", "falls down"),
    "spin": ("spins", "spins around"),
    "throw": ("is thrown", "flies up"),
}
ROUND = frozenset({"ball", "pill", "egg"})
SYNONYMS = {
    "ball": ("ball", "sphere"),
    "box": ("box", "cube"),
    "pill": ("pill", "capsule"),
    "big": ("big", "large"),
    "small": ("small", "little"),
    "gray": ("gray", "grey"),
    "speckled": ("speckled", "dotted"),
    "floor": ("floor", "ground"),
}
TEMPLATES = (
    "{toys} on {floor}, {camera}{, events}",
    "{camera}. {toys} on {floor}{. events}",
    "{list}, {bare floor}, camera {verb}{, events}",
    "{floor} with {toys} under {sky}. {camera}{. events}",
)
NOTHING = "no toys"


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is said: a long caption says less of each toy."""

    sizes: bool
    textures: bool
    toys: int
    events: int


DETAILS = (
    _Detail(sizes=True, textures=True, toys=4, events=2),
    _Detail(sizes=False, textures=True, toys=4, events=2),
    _Detail(sizes=False, textures=True, toys=4, events=1),
    _Detail(sizes=False, textures=False, toys=4, events=1),
    _Detail(sizes=False, textures=False, toys=3, events=1),
    _Detail(sizes=False, textures=False, toys=2, events=1),
)


def tokens_of(text: str) -> tuple[str, ...]:
    """Words and punctuation marks, as a tokenizer of words counts them.

    >>> tokens_of("a red ball, the camera orbits left")
    ('a', 'red', 'ball', ',', 'the', 'camera', 'orbits', 'left')
    """
    return tuple(re.findall(r"[a-z]+|[^a-z\s]", text))


def dominant_command(truth: Truth, first: int, last: int) -> str:
    """What the camera is told in most of the images `first` to `last`, both included."""
    window = truth.commands[first : last + 1]
    return max(dict.fromkeys(window), key=window.count)


def window_commands(truth: Truth, first: int, last: int) -> tuple[str, ...]:
    """The one or two commands that a caption of the images `first` to `last` names, in the order of time."""
    window = truth.commands[first : last + 1]
    runs = [(command, len(list(run))) for command, run in groupby(window)]
    clear = [command for command, length in runs if length >= CLEAR * len(window)]
    return tuple(clear) if len(clear) == 2 else (dominant_command(truth, first, last),)


def caption(truth: Truth, first: int, last: int, wording: int = 0) -> str:
    """The caption of the images `first` to `last`, both included; the same arguments give the same words."""
    shown = truth.visibility[first : last + 1].mean(0).tolist()
    biggest_first = sorted(truth.seen(first, last), key=lambda k: -shown[k])
    events = told_events(truth, first, last)
    return _compose(truth, window_commands(truth, first, last), biggest_first, events, wording, first)


def told_events(truth: Truth, first: int, last: int) -> tuple[Event, ...]:
    """The events of the images `first` to `last` that can be seen there."""
    happening = truth.happening(first, last)
    return tuple(e for e in happening if e.toy in truth.seen(max(first, e.first), min(last, e.last)))


def with_command(truth: Truth, command: str, wording: int = 0, image: int = 0) -> str:
    """What a user would write below one image of the clip to have the camera do `command` and nothing else."""
    toys = sorted(truth.seen(image, image), key=lambda k: -float(truth.visibility[image, k]))
    return _compose(truth, (command,), toys, (), wording, image)


def mirrored(text: str) -> str:
    """The caption of the same images seen in a mirror.

    >>> mirrored("a red ball, the camera orbits left, then turns right")
    'a red ball, the camera orbits right, then turns left'
    """
    return re.sub(r"\b(left|right)\b", lambda word: {"left": "right", "right": "left"}[word[0]], text)


def _compose(
    truth: Truth, commands: Sequence[str], toys: Sequence[int], events: Sequence[Event], wording: int, first: int
) -> str:
    text = ""
    for detail in DETAILS:
        text = _Speaker(truth, wording, first).say(commands, toys, events, detail)
        if len(tokens_of(text)) <= TOKENS:
            break
    return text


class _Speaker:
    """Words for one caption, with the synonyms of its wording."""

    def __init__(self, truth: Truth, wording: int, first: int) -> None:
        self.truth = truth
        self.wording = wording
        self.draw = Random(f"{truth.seed}/{first}/{wording}")
        self.chosen = {word: self.pick(variants) for word, variants in SYNONYMS.items()}

    def pick(self, variants: Sequence[str]) -> str:
        """The first of the variants in half of the cases, and always in wording 0."""
        other = self.draw.random() < 0.5
        variant = variants[self.draw.randrange(len(variants))]
        return variant if self.wording and other else variants[0]

    def say(self, commands: Sequence[str], toys: Sequence[int], events: Sequence[Event], detail: _Detail) -> str:
        toys = list(toys)[: detail.toys]
        if self.wording:
            self.draw.shuffle(toys)
        verb = ", then ".join(self.pick(CAMERA[c]) for c in commands)
        named = [self.toy(self.truth.toys[k], detail) for k in toys]
        happening = [self.event(e) for e in list(events)[: detail.events]]
        room = self.truth.scene.room
        floor = self.word(room.floor_color) + " " + self.word("floor")
        floor = floor if room.floor == "plain" or not detail.textures else f"{self.word(room.floor)} {floor}"
        said = TEMPLATES[self.wording % len(TEMPLATES)]
        for slot, words in {
            "{toys}": _joined([_article(t) for t in named]) if named else NOTHING,
            "{list}": ", ".join(named) if named else NOTHING,
            "{floor}": _article(floor),
            "{bare floor}": floor,
            "{sky}": _article(f"{self.word(room.sky)} sky"),
            "{camera}": f"the camera {verb}",
            "{verb}": verb,
            "{, events}": "".join(f", {h}" for h in happening),
            "{. events}": "".join(f". {h}" for h in happening),
        }.items():
            said = said.replace(slot, words)
        return said

    def word(self, word: str) -> str:
        return self.chosen.get(word, word)

    def toy(self, toy: Toy, detail: _Detail) -> str:
        words = [toy.size] if detail.sizes and toy.size != "medium" else []
        words += [toy.texture] if detail.textures and toy.texture != "plain" else []
        return " ".join(self.word(w) for w in [*words, toy.color, toy.shape])

    def event(self, event: Event) -> str:
        toy = self.truth.toys[event.toy]
        kind = ("roll" if toy.shape in ROUND else "slide") if event.kind == "push" else event.kind
        return f"the {toy.color} {self.word(toy.shape)} {self.pick(HAPPENS[kind])}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _joined(words: Sequence[str]) -> str:
    """The words as a list in English.

    >>> _joined(["a ball", "a box", "an egg"])
    'a ball, a box and an egg'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", text)}


def _vocabulary() -> tuple[str, ...]:
    words = _words(v for table in (CAMERA, HAPPENS, SYNONYMS) for variants in table.values() for v in variants)
    words |= _words(re.sub(r"\{.*?\}", "", t) for t in TEMPLATES) | _words([NOTHING])
    words |= {"a", "an", "the", "and", "then", "camera", "sky"}
    for world in DIFFICULTIES.values():
        words |= {*world.shapes, *world.colors, *world.textures, *world.floors, *world.floor_colors, *world.skies}
    return tuple(sorted(words))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every word that a caption can hold, sorted."""

assert set(CAMERA) == set(COMMANDS)
