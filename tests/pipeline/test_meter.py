import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import RunError
from longtake.evaluation.metrics import color_distance, sharpness
from longtake.pipeline import Meter, Planned, Run, SectionDone, generate, make, measure, reroll


@pytest.fixture
def start():
    """A picture, not too smooth, and latents of it."""
    draw = np.random.default_rng(0)
    picture = np.kron(draw.integers(40, 200, (8, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    latents = torch.randn(1, 4, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    return picture, latents - latents.mean((3, 4), keepdim=True)


def held(start, images=36, frames=9):
    """A section in which the start image stands still, behind the frame before it."""
    picture, latents = start
    return picture[None].repeat(images, 0), latents.repeat(1, 1, 1 + frames, 1, 1)


def test_a_start_image_that_stands_still_has_no_drift(start):
    meter = measure(3, *held(start), *start)
    expected = Meter(3, sharpness=1.0, color=0.0, motion=0.0, latent_mean=0.0, latent_std=1.0, jump=0.0)
    assert asdict(meter) == pytest.approx(asdict(expected), abs=1e-5)  # float32


def test_a_blurred_section_is_less_sharp(start):
    images, latents = held(start)
    blurred = ((2 * images.astype(int) + np.roll(images, 1, 1) + np.roll(images, 1, 2)) // 4).astype(np.uint8)
    meter = measure(0, blurred, latents, *start)
    assert meter.sharpness < 0.7
    assert meter.motion < 1e-4  # float32


def test_a_brighter_section_has_other_colors_alone(start):
    images, latents = held(start)
    meter = measure(0, images + 20, latents, *start)
    assert meter.color == pytest.approx(20 * 3**0.5, rel=1e-5)  # red, green and blue
    assert (meter.sharpness, meter.motion) == pytest.approx((1.0, 0.0), abs=1e-4)  # float32


def test_a_section_that_moves_has_motion_alone(start):
    images, latents = held(start)
    moving = np.stack([np.roll(image, t, axis=1) for t, image in enumerate(images)])
    meter = measure(0, moving, latents, *start)
    assert meter.motion == pytest.approx(1.0, abs=0.3)  # blocks of 4 pixels are coarse
    assert meter.sharpness == pytest.approx(1.0, abs=0.02)  # what was the border is inside
    assert meter.color == pytest.approx(0.0, abs=1e-3)


def test_numbers_of_the_images_are_those_of_the_evaluation(start):
    images = np.random.default_rng(1).integers(0, 256, (36, 32, 48, 3), dtype=np.uint8)
    meter = measure(0, images, held(start)[1], *start)
    picture = start[0][None]
    assert meter.sharpness == pytest.approx(sharpness(images[::4]) / sharpness(picture), rel=1e-5)
    assert meter.color == pytest.approx(color_distance(images[::4], picture), rel=1e-5)


def test_numbers_of_the_latents_are_in_their_own_measure(start):
    images, latents = held(start)
    louder = measure(0, images, 1.5 * latents, *start)  # its channels have the mean 0
    assert (louder.latent_mean, louder.latent_std) == pytest.approx((0.0, 1.5), abs=1e-6)
    shifted = measure(0, images, latents + torch.tensor([0.3, -0.3, 0.3, -0.3]).view(1, 4, 1, 1, 1), *start)
    assert (shifted.latent_mean, shifted.latent_std) == pytest.approx((0.3, 1.0), abs=1e-6)


@pytest.mark.parametrize(("steps", "jump"), [([1, 1, 1, 1], 1.0), ([5, 1, 1, 1], 2.5), ([0, 1, 1, 1], 0.0), ([7], 1.0)])
def test_a_jump_is_a_seam_with_more_change_than_the_section_has(start, steps, jump):
    """Frames change by these amounts, the first from the one before the section; a single frame is all seam."""
    levels = torch.tensor([0.0, *np.cumsum(steps)]).view(1, 1, -1, 1, 1)
    latents = start[1] + levels
    assert measure(0, held(start)[0], latents, *start).jump == pytest.approx(jump, abs=1e-5)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(2, 9), st.floats(0, 1e6))
@settings(max_examples=25)
def test_flat_pictures_and_wild_latents_have_finite_numbers(one, other, images, scale):
    start = np.full((16, 16, 3), one, np.uint8)
    video = np.full((images, 16, 16, 3), other, np.uint8)
    latents = scale * torch.randn(1, 2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    meter = measure(0, video, latents, start, torch.zeros(1, 2, 1, 2, 2))
    assert all(math.isfinite(number) and number >= 0 for number in asdict(meter).values())
    assert json.loads(json.dumps(asdict(meter))) == asdict(meter)


def copy_of(undisturbed, tmp_path):
    return Run.open(shutil.copytree(undisturbed.folder, tmp_path / "run"))


def meters_of(events):
    return [event.meters for event in events if isinstance(event, SectionDone)]


def test_a_meter_comes_with_the_images_that_it_measures(undisturbed):
    """In time order with its section; in any other, once the section before it in time is there."""
    told = [[meter.place for meter in meters] for meters in meters_of(undisturbed.events)]
    expected = {
        "vanilla": [[0], [1], [2], [3]],
        "inverted": [[], [3], [2], [0, 1]],
        "planned:2": [[], [], [0, 1], [2, 3]],
    }
    assert told == expected[undisturbed.request.order]
    assert undisturbed.events[0].meters == ()


def test_a_run_keeps_its_meters(undisturbed):
    told = sorted((meter for meters in meters_of(undisturbed.events) for meter in meters), key=lambda m: m.place)
    assert Run.open(undisturbed.folder).read_meters() == tuple(told)


def test_a_meter_is_of_its_own_section(undisturbed):
    run = Run.open(undisturbed.folder)
    sections = sorted(run.config.plan().sections, key=lambda s: s.frames)
    start = run.read_start()
    for section, meter in zip(sections, run.read_meters(), strict=True):
        own = run.read_section(section)
        distance = (own.mean((0, 2, 3, 4)) - start.mean((0, 2, 3, 4))).square().mean().sqrt()
        assert meter.latent_mean == pytest.approx(distance.item(), rel=1e-5)
        before = run.read_section(sections[meter.place - 1])[:, :, -1:] if meter.place else start
        changes = torch.cat([before, own], 2).diff(dim=2).square().mean((0, 1, 3, 4)).sqrt()
        assert meter.jump == pytest.approx((changes[0] / changes.mean()).item(), rel=1e-5)


def test_a_resumed_run_begins_with_the_meters_that_are_there(undisturbed, backbone, tmp_path):
    events = generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "run", backbone)
    for event in events:
        if isinstance(event, SectionDone) and event.section.index == 2:
            break
    events.close()
    planned, *rest = make(Run.open(tmp_path / "run"), tmp_path / "a.mp4", backbone)
    assert isinstance(planned, Planned)
    whole = Run.open(undisturbed.folder).read_meters()
    there = {"vanilla": (0, 1, 2), "inverted": (2, 3), "planned:2": (0, 1)}[undisturbed.request.order]
    assert planned.meters == tuple(whole[place] for place in there)
    assert {m for meters in meters_of(rest) for m in meters} == set(whole) - set(planned.meters)
    planned, _ = make(Run.open(tmp_path / "run"), tmp_path / "a.mp4", backbone)
    assert planned.meters == whole


def test_a_meter_counts_when_its_images_are_there(undisturbed, backbone, tmp_path, contents):
    """As after a stop between the two files: the section is decoded and measured again."""
    run = copy_of(undisturbed, tmp_path)
    run.write_meter(replace(run.read_meters()[2], color=99.0))
    run.segment(2).path.unlink()
    assert [meter.place for meter in run.read_meters()] == [0, 1, 3]
    list(make(run, tmp_path / "a.mp4", backbone))
    assert contents(run.folder) == undisturbed.contents


def test_a_reroll_forgets_the_meters_of_what_it_makes_again(undisturbed, backbone, tmp_path):
    run = copy_of(undisturbed, tmp_path)
    before = run.read_meters()
    run = reroll(run, 2, seed=7)
    # What lies behind a dropped section is decoded anew.
    kept = {"vanilla": [0, 1], "inverted": [3], "planned:2": []}[undisturbed.request.order]
    assert [meter.place for meter in run.read_meters()] == kept
    assert sorted(int(path.stem) for path in run.folder.glob("meters/*")) == kept
    list(make(run, tmp_path / "a.mp4", backbone))
    after = run.read_meters()
    assert [a == b for a, b in zip(after, before, strict=True)] == [place in kept for place in range(4)]


def test_a_run_from_before_there_were_meters_goes_on(undisturbed, backbone, tmp_path):
    run = copy_of(undisturbed, tmp_path)
    for path in run.folder.glob("meters/*"):
        path.unlink()
    (run.folder / "meters").rmdir()
    run.segment(0).path.unlink()
    planned, *rest = make(run, tmp_path / "a.mp4", backbone)
    assert planned.meters == ()
    assert [meter.place for meters in meters_of(rest) for meter in meters] == [0]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"place": 0'])
def test_a_meter_that_cannot_be_read_is_named(undisturbed, tmp_path, content):
    run = copy_of(undisturbed, tmp_path)
    run.meter_path(1).write_bytes(content)
    with pytest.raises(RunError, match=r"(?s)0001\.json: cannot be read .*; delete it and its segment"):
        run.read_meters()
