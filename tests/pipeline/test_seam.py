"""What the codec misses, carried from the given video into the made one."""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from longtake.pipeline.seam import _led

COUNT = 12


def passing(images: int) -> np.ndarray:
    """A texture that moves to the left by two pixels an image, with detail."""
    coarse = np.random.default_rng(0).integers(0, 200, (1, 16, 60, 3))
    fine = np.kron(np.random.default_rng(1).integers(-20, 20, (1, 32, 120, 3)), np.ones((1, 2, 2, 1)))
    wide = np.clip(np.kron(coarse, np.ones((1, 4, 4, 1))) + 27 + fine, 0, 255).astype(np.uint8)[0]
    return np.stack([wide[:, 2 * t : 2 * t + 160] for t in range(images)])


def softened(images: np.ndarray) -> np.ndarray:
    """The images without their detail, a little darker."""
    pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2)
    soft = avg_pool2d(pixels, 5, stride=1, padding=2, count_include_pad=False)
    return (soft * 0.95).permute(0, 2, 3, 1).to(torch.uint8).numpy()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


def test_what_is_missing_moves_with_the_images_and_fades():
    true = passing(30)
    made = softened(true)
    led = _led(made[1:], made[0], true[0], COUNT)
    kept = [distance(led[n], true[n + 1]) / distance(made[n + 1], true[n + 1]) for n in range(29)]
    assert kept[0] < 0.7
    assert max(kept[:6]) < 0.9
    assert np.array_equal(led[COUNT:], made[1 + COUNT :])
    still = (made[4] + 8 / 12 * (true[0].astype(np.float32) - made[0])).clip(0, 255)
    assert distance(led[3], true[4]) < distance(still, true[4])


def test_where_nothing_is_missing_nothing_changes():
    true = passing(20)
    assert np.array_equal(_led(true[1:], true[0], true[0], COUNT), true[1:])


def test_fewer_images_than_it_takes_are_led_as_far_as_they_go():
    true = passing(6)
    made = softened(true)
    assert _led(made[1:], made[0], true[0], COUNT).shape == made[1:].shape
