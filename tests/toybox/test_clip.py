from dataclasses import replace

import numpy as np
import pytest

from longtake.errors import InputError
from longtake.toybox import DIFFICULTIES, Studio, Truth
from longtake.toybox.clip import rehearse
from longtake.toybox.physics import BadClipError, Event, simulate
from longtake.toybox.render import load_mujoco
from longtake.toybox.scenes import TOY_COLORS
from longtake.toybox.truth import SEEN
from longtake.toybox.world import resting_height, world_xml


def project(camera, point, height, width):
    """Where a point is in the picture: column and row in pixels, and its depth."""
    x, y, z, yaw, pitch, fov = camera.astype(float)
    yaw, pitch = np.deg2rad(yaw), np.deg2rad(pitch)
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    offset = point - np.array([x, y, z])
    scale = height / 2 / np.tan(np.deg2rad(fov) / 2) / (offset @ forward)
    return (
        width / 2 + scale * (offset @ right),
        height / 2 - scale * (offset @ np.cross(right, forward)),
        offset @ forward,
    )


def test_a_seed_gives_the_same_pixels_and_truth_again(studio, clip):
    truth = clip.truth
    again = studio.clip(truth.seed, truth.difficulty, 37, 48, 80)
    np.testing.assert_array_equal(again.images, clip.images)
    assert again.truth.to_json() == truth.to_json()


def test_another_seed_gives_another_clip(studio, clip):
    other = studio.clip(clip.truth.seed + 1, clip.truth.difficulty, 1, 48, 80)
    assert other.truth.scene != clip.truth.scene


def test_a_clip_has_images_and_truth_of_one_length(clip):
    truth, toys = clip.truth, len(clip.truth.toys)
    assert clip.images.shape == (37, 48, 80, 3)
    assert clip.images.dtype == np.uint8
    assert truth.camera.shape == (37, 6)
    assert truth.poses.shape == (37, toys, 7)
    assert truth.visibility.shape == (37, toys)
    assert len(truth.commands) == truth.images == 37


def test_truth_comes_back_from_json(clip):
    line = clip.truth.to_json()
    again = Truth.from_json(line)
    assert again.to_json() == line
    assert again.scene == clip.truth.scene
    np.testing.assert_allclose(again.poses, clip.truth.poses, atol=1e-4)
    with pytest.raises(InputError, match="not the truth"):
        Truth.from_json('{"seed": 1}')


@pytest.mark.parametrize("seed", range(6))
def test_a_toy_is_where_its_pose_and_the_camera_say(studio, seed):
    clip = studio.clip(seed, "kind", 1, 96, 160)
    truth = clip.truth
    depths = [project(truth.camera[0], pose[:3].astype(float), 96, 160)[2] for pose in truth.poses[0]]
    nearest = int(np.argmin(np.where(truth.visibility[0] > SEEN, depths, np.inf)))
    toy = truth.toys[nearest]
    lift = np.array([0.0, 0.0, 0.5 * toy.half if toy.shape == "cone" else 0.0])
    middle = truth.poses[0, nearest, :3].astype(float) + lift
    column, row, _ = project(truth.camera[0], middle, 96, 160)
    pixel = clip.images[0, round(row), round(column)].astype(float)
    color = np.array(TOY_COLORS[toy.color])
    cosine = pixel @ color / np.linalg.norm(pixel) / np.linalg.norm(color)
    assert cosine > 0.985  # light and shade change a color's length, and its direction by less than 10 degrees


def test_visibility_is_the_share_of_the_pixels_that_a_lone_ball_covers(studio):
    seed = next(s for s in range(179, 400) if _is_lone(s))  # few are
    clip = studio.clip(seed, "kind", 1, 96, 160)
    toy, camera = clip.truth.toys[0], clip.truth.camera[0]
    color = np.array(TOY_COLORS[toy.color])
    pixels = clip.images[0].astype(float)
    cosine = pixels @ color / np.linalg.norm(pixels, axis=-1) / np.linalg.norm(color)
    share = (cosine > 0.985).mean()
    assert camera[5] > 0
    assert clip.truth.visibility[0, 0] == pytest.approx(share, rel=0.15)  # edges are mixed, highlights are white


def _is_lone(seed):
    scene = rehearse(seed, 0, DIFFICULTIES["kind"], 1, 12).scene
    return len(scene.toys) == 1 and scene.toys[0].color in ("blue", "purple") and scene.room.floor_color == "beige"


def test_an_image_does_not_depend_on_the_others_drawn_with_it(studio, monkeypatch):
    many = studio.clip(5, "kind", 13, 48, 80).images
    monkeypatch.setattr("longtake.toybox.render.BUFFER", 1)  # a buffer of one tile
    alone = studio.clip(5, "kind", 13, 48, 80).images
    # Edges may round differently at other places of a buffer: few pixels, by little.
    assert np.abs(alone.astype(int) - many).max() < 16
    assert (alone != many).mean() < 1e-3


def test_a_toy_that_waits_to_be_dropped_is_not_seen(studio):
    seed = next(s for s in range(100) if any(e.kind == "drop" for e in _events(s)))
    clip = studio.clip(seed, "kind", 49, 16, 32)
    event = next(e for e in clip.truth.events if e.kind == "drop")
    assert clip.truth.visibility[: event.first, event.toy].max() == 0
    assert clip.truth.visibility[event.last, event.toy] > SEEN
    assert event.toy not in clip.truth.seen(0, event.first - 1)


def _events(seed):
    return rehearse(seed, 0, DIFFICULTIES["kind"], 49, 12).motion.events


def test_a_toy_that_leaves_the_arena_makes_a_clip_bad(studio, clip):
    scene = clip.truth.scene
    model = load_mujoco().MjModel.from_xml_string(world_xml(scene, 1 / 120))
    kick = Event("push", 0, 2, 2, 3.1, 12.0)
    with pytest.raises(BadClipError):
        simulate(model, scene, [kick], 24, 12, reach=1.0)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="not -1"):
        Studio.clip(None, -1)  # pyright: ignore - no context is needed to say no


@pytest.mark.parametrize(("height", "width"), [(97, 160), (8, 160), (96, 4096)])
def test_a_size_that_cannot_be_is_refused(height, width):
    with pytest.raises(InputError, match="even, from 16 to 1024"):
        Studio.clip(None, 0, "kind", 1, height, width)  # pyright: ignore - no context is needed to say no


@pytest.mark.parametrize("shape", DIFFICULTIES["wide"].shapes)
def test_a_toy_rests_on_the_floor(clip, shape):
    toy = replace(clip.truth.scene.toys[0], shape=shape, half=0.5)
    scene = replace(clip.truth.scene, toys=(toy,))
    model = load_mujoco().MjModel.from_xml_string(world_xml(scene, 1 / 120))
    poses = simulate(model, scene, [], 24, 12, reach=2.0).poses[:, 0]
    assert np.abs(poses[-1] - poses[0]).max() < 0.02
    assert poses[-1, 2] == pytest.approx(resting_height(toy), abs=0.01)  # soft contacts give way by millimeters


def test_a_bad_clip_is_replaced_by_that_of_the_next_sub_seed(studio):
    bad = next(s for s in range(100) if _is_bad(s))
    clip = studio.clip(bad, "wide", 73, 16, 32)
    assert clip.truth.attempt >= 1
    np.testing.assert_array_equal(studio.clip(bad, "wide", 73, 16, 32).images, clip.images)


def _is_bad(seed):
    try:
        rehearse(seed, 0, DIFFICULTIES["wide"], 73, 12)
    except BadClipError:
        return True
    return False
