from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.toybox import DIFFICULTIES
from longtake.toybox.camera import EASE, FAR, NEAR, PAN_LIMIT, Segment, camera_path, commands_of, draw_program

FPS = 12
WORLDS = st.sampled_from(sorted(DIFFICULTIES))


def path(style, *segments):
    return camera_path(np.random.default_rng(0), style, segments, FPS)


@given(st.integers(0, 10**6), WORLDS, st.integers(1, 400))
def test_a_program_has_a_command_for_every_image(seed, name, images):
    program = draw_program(np.random.default_rng(seed), DIFFICULTIES[name].camera, images, FPS)
    assert len(commands_of(program)) == images
    assert all(a.command != b.command for a, b in pairwise(program))


@given(st.integers(0, 10**6), WORLDS)
def test_the_camera_stays_within_its_limits(seed, name):
    style, draw = DIFFICULTIES[name].camera, np.random.default_rng(seed)
    program = draw_program(draw, style, 600, FPS)
    cameras = camera_path(draw, style, program, FPS)
    center = np.array([0, 0, np.mean([style.center_height.low, style.center_height.high])])
    distance = np.linalg.norm(cameras[:, :3] - center, axis=1)
    margin = 0.1  # the center's height varies by less than this, and a segment ends within half an image
    assert distance.min() > style.distance.low * NEAR - margin
    assert distance.max() < style.distance.high * FAR + margin
    outward = np.rad2deg(np.arctan2(cameras[:, 1], cameras[:, 0])) + 180.0
    away = (cameras[:, 3] - outward + 180.0) % 360.0 - 180.0
    assert np.abs(away).max() < PAN_LIMIT + 5.0


@pytest.mark.parametrize(("command", "sign"), [("left", -1), ("right", 1), ("pan left", 1), ("pan right", -1)])
def test_a_turn_changes_the_yaw_its_own_way(command, sign):
    cameras = path(DIFFICULTIES["wide"].camera, Segment("still", 12), Segment(command, 36), Segment("still", 12))
    steps = np.diff(cameras[:, 3])
    assert (sign * steps[12:47] > 0).all()
    np.testing.assert_allclose(steps[:11], 0.0)
    np.testing.assert_allclose(steps[48:], 0.0)


def test_an_orbit_moves_the_camera_to_its_own_left():
    cameras = path(DIFFICULTIES["kind"].camera, Segment("left", 24))
    yaw = np.deg2rad(cameras[0, 3])
    to_the_left = np.array([-np.sin(yaw), np.cos(yaw)])
    assert (cameras[3, :2] - cameras[0, :2]) @ to_the_left > 0


def test_a_pan_leaves_the_camera_where_it_is():
    cameras = path(DIFFICULTIES["wide"].camera, Segment("pan left", 24), Segment("up", 24))
    np.testing.assert_allclose(cameras[:, :3], cameras[:1, :3].repeat(48, 0))


@pytest.mark.parametrize("there", ["left", "in", "pan right", "up"])
def test_the_opposite_command_leads_back(there):
    back = {"left": "right", "in": "out", "pan right": "pan left", "up": "down"}[there]
    cameras = path(DIFFICULTIES["wide"].camera, Segment(there, 30), Segment(back, 30), Segment("still", 2))
    np.testing.assert_allclose(cameras[-1], cameras[0], atol=1e-9)
    assert np.abs(cameras[30] - cameras[0]).max() > 0.1


def test_moves_ease_in_and_out():
    cameras = path(DIFFICULTIES["kind"].camera, Segment("left", 48))
    speed = np.abs(np.diff(cameras[:, 3]))
    assert speed[0] < 0.2 * speed.max()
    assert (np.diff(speed[: int(EASE * FPS)]) > 0).all()
