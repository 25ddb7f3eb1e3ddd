import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.toybox import DIFFICULTIES, VOCABULARY, caption, dominant_command, window_commands, with_command
from longtake.toybox.camera import COMMANDS, Segment
from longtake.toybox.captions import CAMERA, HAPPENS, SYNONYMS, TOKENS, tokens_of, told_events
from longtake.toybox.scenes import TOY_COLORS

SEEDS = st.integers(0, 10**5)
WORLDS = st.sampled_from(sorted(DIFFICULTIES))
WORDINGS = st.integers(0, 11)
FIRSTS = st.sampled_from([1, 37, 73, 109, 145, 181])
SHAPES = {variant: name for name in DIFFICULTIES["wide"].shapes for variant in SYNONYMS.get(name, (name,))}


def named_toys(text):
    """The color and shape of each toy in a caption, events left out."""
    scene = re.split(r"\b(?:floor|ground)\b", text.split("camera", 1)[1] if text.startswith("the camera") else text)[0]
    if " with " in text:
        scene = text.split(" with ")[1].split(" under ")[0]
    words = tokens_of(scene)
    return {(a, SHAPES[b]) for a, b in pairwise(words) if a in TOY_COLORS and b in SHAPES}


@given(SEEDS, WORLDS, FIRSTS, WORDINGS)
@settings(deadline=None)
def test_every_word_is_in_the_vocabulary(imagined, seed, world, first, wording):
    words = tokens_of(caption(imagined(seed, world), first, first + 35, wording))
    assert set(words) - {",", "."} <= set(VOCABULARY)
    assert len(words) <= TOKENS


@given(SEEDS, FIRSTS, WORDINGS)
@settings(deadline=None)
def test_a_caption_names_the_toys_that_are_seen_and_no_others(imagined, seed, first, wording):
    truth = imagined(seed)
    text = caption(truth, first, first + 35, wording)
    seen = {(truth.toys[k].color, truth.toys[k].shape) for k in truth.seen(first, first + 35)}
    assert named_toys(text) == seen
    assert ("no toys" in text) == (not seen)


@given(SEEDS, WORLDS, FIRSTS, WORDINGS)
@settings(deadline=None)
def test_a_caption_says_what_the_camera_does_and_what_the_floor_is(imagined, seed, world, first, wording):
    truth = imagined(seed, world)
    text = caption(truth, first, first + 35, wording)
    said = text[text.index("camera") + len("camera") :]
    for command in window_commands(truth, first, first + 35):
        assert any(verb in said for verb in CAMERA[command])
    floor = SYNONYMS.get(truth.scene.room.floor_color, (truth.scene.room.floor_color,))
    assert any(f"{color} {word}" in text for color in floor for word in SYNONYMS["floor"])


@given(SEEDS, FIRSTS, WORDINGS)
@settings(deadline=None)
def test_a_caption_tells_of_an_event_exactly_where_it_happens(imagined, seed, first, wording):
    truth = imagined(seed)
    text = caption(truth, first, first + 35, wording)
    verbs = [verb for variants in HAPPENS.values() for verb in variants]
    assert any(verb in text for verb in verbs) == bool(told_events(truth, first, first + 35))


def test_an_event_out_of_sight_is_not_told(imagined):
    truth = next(t for t in map(imagined, range(100)) if t.events)
    event = truth.events[0]
    truth.visibility[:, event.toy] = 0.1
    assert event in told_events(truth, event.first, event.last)
    truth.visibility[:, event.toy] = 0.0
    assert event not in told_events(truth, event.first, event.last)
    assert event in truth.happening(event.first, event.last)


def test_the_same_arguments_give_the_same_words(imagined):
    assert caption(imagined(3), 1, 36, 2) == caption(imagined(3), 1, 36, 2)


def test_the_plainest_wording_reads_like_a_prompt(imagined):
    text = caption(imagined(3), 1, 36, 0)
    assert re.fullmatch(r"(an?|no) [a-z ,]+ on an? [a-z ]+ floor, the camera [a-z ,]+", text)


def test_two_clear_commands_are_joined_in_the_order_of_time(imagined):
    truth = imagined(3)
    object.__setattr__(truth, "program", (Segment("left", 20), Segment("still", 197)))
    assert window_commands(truth, 1, 36) == ("left", "still")
    assert "orbits left, then stands still" in caption(truth, 1, 36, 0)
    assert window_commands(truth, 13, 48) == ("still",)
    assert dominant_command(truth, 1, 36) == "left"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_scene_can_be_captioned_with_any_command(imagined, command):
    text = with_command(imagined(3), command)
    assert text.endswith(f"the camera {CAMERA[command][0]}")


def test_the_vocabulary_is_small_and_sorted():
    assert len(VOCABULARY) < 150
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert all(word.isascii() and word.islower() for word in VOCABULARY)
