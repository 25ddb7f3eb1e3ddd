from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, grid_sample

from longtake.evaluation import metrics
from longtake.media import load_image
from longtake.pipeline.motion import displacement, optical_flow

EXAMPLES = sorted(Path(str(files("longtake")), "assets", "examples").glob("*.png"))


def texture(height, width, seed=0):
    """Smooth noise that reaches from black to white, channels first."""
    noise = torch.rand(1, 1, height + 12, width + 12, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        noise = avg_pool2d(noise, 5, stride=1)
    return (noise - noise.min()) / (noise.max() - noise.min())


def seen_through(picture, matrix, shift, height=96, width=160):
    """A uint8 image "1 H W 3": what is at x around the middle is what the picture has at `matrix` x + `shift`."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    places = torch.stack([x, y], -1) @ torch.tensor(matrix).T + torch.tensor(shift)
    scale = torch.tensor([2 / (picture.shape[3] - 1), 2 / (picture.shape[2] - 1)])
    image = grid_sample(picture, (places * scale)[None], mode="bicubic", align_corners=True)
    return (255 * image[0, 0, :, :, None].clamp(0, 1).numpy()).round().astype(np.uint8).repeat(3, axis=2)[None]


STILL = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("shift", [(0.25, 0.0), (0.0, -0.5), (1.0, 1.0), (-3.0, 2.0), (10.0, 0.0), (0.0, -8.0)])
def test_flow_finds_a_known_shift(shift):
    picture = texture(200, 260)
    before, after = seen_through(picture, STILL, (0.0, 0.0)), seen_through(picture, STILL, shift)
    # Rounding to 8 bits alone moves a picture as smooth as this one by hundredths of a pixel.
    assert displacement(before, after) == pytest.approx(np.hypot(*shift), rel=0.03, abs=0.07)
    flow = optical_flow(before, after)[0].mean((1, 2))  # the picture moves against what looks at it
    assert flow.numpy() == pytest.approx([-shift[0], -shift[1]], rel=0.03, abs=0.07)


@pytest.mark.parametrize(("turn", "zoom"), [(0.02, 0.0), (0.0, 0.02), (-0.01, 0.01)])
def test_flow_finds_turns_and_zooms(turn, zoom):
    picture = texture(240, 300)
    matrix = np.exp(zoom) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    before = seen_through(picture, STILL, (0.0, 0.0))
    after = seen_through(picture, matrix.astype(np.float32).tolist(), (0.0, 0.0))
    y, x = np.mgrid[:96, :160] - np.array([95, 159]).reshape(2, 1, 1) / 2
    moved = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix) - np.eye(2), np.stack([x, y]))
    assert displacement(before, after) == pytest.approx(np.linalg.norm(moved, axis=0).mean(), rel=0.06)


def test_a_frozen_picture_does_not_move():
    pictures = np.stack([load_image(path) for path in EXAMPLES])
    assert displacement(pictures, pictures) < 1e-5  # float32


@pytest.mark.parametrize("deviation", [1, 3])
def test_noise_hardly_moves(deviation):
    picture = np.stack([load_image(path) for path in EXAMPLES]).astype(float)
    draw = np.random.default_rng(0)
    before, after = (picture + draw.normal(0, deviation, picture.shape) for _ in range(2))
    noisy = [x.clip(0, 255).round().astype(np.uint8) for x in (before, after)]
    assert displacement(*noisy) < 0.03 * deviation  # pixels


def test_a_bare_wall_moves_with_its_edges():
    """A picture of one color but for two posts has the displacement of the posts."""
    wall = torch.full((1, 1, 120, 240), 0.5)
    wall[:, :, :, 90:100], wall[:, :, :, 140:150] = 0.9, 0.1
    before, after = seen_through(wall, STILL, (0.0, 0.0)), seen_through(wall, STILL, (2.0, 0.0))
    assert displacement(before, after) == pytest.approx(2.0, rel=0.1)


def test_what_leaves_the_picture_does_not_count():
    """A sixteenth of the picture leaves it on one side, and what comes on the other is not in the image before."""
    picture = texture(200, 400)
    before, after = seen_through(picture, STILL, (0.0, 0.0)), seen_through(picture, STILL, (-10.0, 0.0))
    flow = optical_flow(before, after)[0]
    assert np.allclose(flow[0], 10.0, atol=1.0)  # everywhere
    assert np.allclose(flow[1], 0.0, atol=1.0)


def test_a_larger_picture_moves_by_more_pixels():
    small = load_image(EXAMPLES[0])[None]
    large = small.repeat(5, axis=1).repeat(5, axis=2)
    moved = displacement(small[:, :, :-2], small[:, :, 2:])
    assert displacement(large[:, :, :-10], large[:, :, 10:]) == pytest.approx(5 * moved, rel=0.05)


@pytest.mark.parametrize("size", [(16, 16), (16, 640), (48, 32), (720, 1280)])
def test_pictures_of_any_size_have_a_flow(size):
    before = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    flow = optical_flow(before, np.roll(before, 1, 2))
    assert flow.shape[:2] == (2, 2)
    assert flow.isfinite().all()


def panned(picture, step, images=6):
    """What a window sees that moves over a picture."""
    return np.stack([picture[8:88, 4 + step * t : 4 + step * t + 112] for t in range(images)])


@pytest.mark.parametrize("step", [1, 2, 4, 7])
def test_flow_agrees_with_that_of_opencv(step):
    """Over pictures with bare floors and walls. DIS, too, is a few percent off where there is no texture."""
    pytest.importorskip("cv2")
    videos = [panned(load_image(path), step) for path in EXAMPLES]
    ours = [displacement(video[:-1], video[1:]) for video in videos]
    theirs = [metrics.displacement(video) for video in videos]
    assert ours == pytest.approx(theirs, rel=0.06)
    assert np.mean(ours) == pytest.approx(step, rel=0.03)
