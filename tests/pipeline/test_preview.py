import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import longtake
from longtake.media import load_image, read_video
from longtake.pipeline import Request, Run, SectionDone, Step, generate
from longtake.pipeline.preview import fit_glance, sheet_of


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64))[0, 1])


def enlarged(pictures, height, width):
    return np.stack(
        [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pictures]
    )


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """A section of the embedded model: its run, steps, latents and images."""
    folder = tmp_path_factory.mktemp("glance")
    image = next(iter(longtake.__path__)) + "/assets/examples/04.png"  # of eight the one that is hardest to guess
    request = Request(image=image, prompt="a ball on a floor, the camera orbits left", seconds=3, steps=4)
    events = list(generate(request, folder / "a.mp4", folder / "run"))
    (done,) = [event for event in events if isinstance(event, SectionDone)]
    steps = [event for event in events if isinstance(event, Step)]
    return Run.open(folder / "run"), steps, done, read_video(folder / "a.mp4")


def test_a_glance_at_latents_shows_what_is_decoded(section):
    run, steps, done, images = section
    glance = fit_glance(load_image(run.folder / "start.png"), run.read_start())
    decoded = images[1:].reshape(9, 4, *images.shape[1:]).mean(1)
    seen = [correlation(enlarged(glance.of(x), *images.shape[1:3]), decoded) for x in (done.latents, steps[0].clean)]
    assert seen[0] > 0.85  # 0.9
    assert seen[1] > 0.8  # at the first step already: it is the prediction, not the noise


def test_a_glance_at_noise_shows_less(section):
    """The measure can fail: noisy latents are not what they become."""
    run, steps, _, images = section
    glance = fit_glance(load_image(run.folder / "start.png"), run.read_start())
    decoded = images[1:].reshape(9, 4, *images.shape[1:]).mean(1)
    assert correlation(enlarged(glance.of(steps[0].latents), *images.shape[1:3]), decoded) < 0.75


def test_a_linear_codec_is_found_but_for_the_ridge():
    """Latents that are colors turned and mixed into five channels."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    mix = torch.randn(3, 5, generator=generator)
    rgb = torch.from_numpy(picture).float() / 127.5 - 1
    latents = (rgb @ mix).permute(2, 0, 1)[None, :, None]
    assert correlation(fit_glance(picture, latents).of(latents)[0], picture) > 0.999


def test_the_last_prediction_is_what_euler_ends_at(section):
    _, steps, done, _ = section
    assert torch.allclose(steps[-1].clean, done.latents, atol=1e-5)


def test_a_sheet_is_a_row_of_frames():
    url = sheet_of(np.zeros((9, 12, 20, 3), np.uint8))
    head, _, body = url.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert image.size == (9 * 160, 96)
