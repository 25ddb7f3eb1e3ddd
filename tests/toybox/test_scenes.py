import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import ConfigError
from longtake.toybox import DIFFICULTIES
from longtake.toybox.difficulty import difficulty_named
from longtake.toybox.physics import draw_events
from longtake.toybox.scenes import draw_scene

SEEDS = st.integers(0, 10**6)
WORLDS = st.sampled_from(sorted(DIFFICULTIES))


@given(SEEDS, WORLDS)
def test_no_toy_begins_inside_another(seed, name):
    toys = draw_scene(np.random.default_rng(seed), DIFFICULTIES[name]).toys
    for k, a in enumerate(toys):
        for b in toys[k + 1 :]:
            assert np.hypot(a.x - b.x, a.y - b.y) > 1.25 * (a.half + b.half)


@given(SEEDS, WORLDS)
def test_a_scene_is_drawn_from_its_difficulty(seed, name):
    world = DIFFICULTIES[name]
    scene = draw_scene(np.random.default_rng(seed), world)
    assert len(scene.toys) in world.toys
    assert len({t.color for t in scene.toys}) == len(scene.toys)
    assert {t.shape for t in scene.toys} <= set(world.shapes)
    assert scene.room.floor in world.floors
    assert scene.room.floor_color in world.floor_colors


@given(SEEDS, WORLDS)
def test_some_toy_is_there_from_the_start(seed, name):
    world, draw = DIFFICULTIES[name], np.random.default_rng(seed)
    scene = draw_scene(draw, world)
    events = draw_events(draw, world, scene, 217, 12)
    assert sum(e.kind == "drop" for e in events) < len(scene.toys)
    assert [e.first for e in events] == sorted(e.first for e in events)
    assert len({e.toy for e in events}) == len(events)
    assert all(scene.toys[e.toy].shows_spin for e in events if e.kind == "spin")


def test_an_unknown_difficulty_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="kind, wide"):
        difficulty_named("hard")
