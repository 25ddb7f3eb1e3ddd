import shutil

import numpy as np
import pytest
import torch

from longtake.media import read_video
from longtake.pipeline import Run, generate
from longtake.pipeline.decoding import ContextDecoder, StreamDecoder, decoder_for


def decoded_by(decoder, run, sections):
    """Images by place, and the section at which each place came, with sections that arrive one by one."""
    latents = [run.read_section(section) for section in sections]
    for section in sections:
        run.section_path(section.index).unlink()
    images, when = {}, {}
    for section, made in zip(sections, latents, strict=True):
        run.write_section(section, made)
        for decoded in decoder.add(section, made):
            assert decoded.place not in images, "each frame is decoded once"
            images[decoded.place], when[decoded.place] = decoded.images, section.index
            run.segment(decoded.place).path.touch()  # as its encoding does
    return images, when


@pytest.fixture
def run(undisturbed, tmp_path):
    """A run whose latents are there and whose images are not."""
    run = Run.open(shutil.copytree(undisturbed.folder, tmp_path / "run"))
    for path in run.folder.glob("segments/*"):
        path.unlink()
    return run


@pytest.fixture
def truth(run, backbone):
    """All latents in time order, decoded at once."""
    sections = sorted(run.config.plan().sections, key=lambda s: s.frames[0])
    latents = torch.cat([run.read_start(), *(run.read_section(s) for s in sections)], dim=2)
    pixels = backbone.codec.decode(latents)[0].permute(1, 2, 3, 0)
    return ((pixels + 1) * 127.5).numpy()


def test_images_are_those_of_decoding_everything_at_once(run, truth, backbone):
    """Exact in time order but for rounding; a few frames of context stand for the whole past in any other order."""
    plan = run.config.plan()
    decoder = decoder_for(run, plan, backbone.codec)
    places, when = decoded_by(decoder, run, plan.sections)
    images = np.concatenate([places[place] for place in sorted(places)])
    assert images.shape == truth.shape
    error = np.abs(images - truth)
    if run.config.order == "vanilla":
        assert isinstance(decoder, StreamDecoder)
        assert error.max() <= 1
        assert when == {0: 0, 1: 1, 2: 2, 3: 3}
    else:
        assert isinstance(decoder, ContextDecoder)
        assert np.square(error).mean() < 255**2 / 10**4.5  # 45 dB; rounding alone is 59 dB
        assert error[:37].max() <= 1  # the first section has its whole past
        # As soon as the section before it in time is there.
        inverted, planned = {3: 1, 2: 2, 1: 3, 0: 3}, {0: 2, 1: 2, 2: 3, 3: 3}
        assert when == (inverted if run.config.order == "inverted" else planned)


@pytest.mark.parametrize("generated", [1, 2, 5])
def test_short_sections_are_decoded_behind_the_one_before_them(asked, backbone, tmp_path, generated):
    wanted = asked(order="inverted", schedule=f"f1k1_x_g{generated}_f1k1f2k2_td", seconds=4 * generated / 3)
    *_, finished = generate(wanted, tmp_path / "a.mp4", tmp_path / "run", backbone)
    run = Run.open(tmp_path / "run")
    sections = sorted(run.config.plan().sections, key=lambda s: s.frames[0])
    assert (len(sections), finished.images) == (4, 1 + 16 * generated)
    for path in run.folder.glob("segments/*"):
        path.unlink()
    places, when = decoded_by(decoder_for(run, run.config.plan(), backbone.codec), run, run.config.plan().sections)
    assert when == {3: 1, 2: 2, 1: 3, 0: 3}
    latents = torch.cat([run.read_start(), *(run.read_section(s) for s in sections)], dim=2)
    truth = ((backbone.codec.decode(latents)[0].permute(1, 2, 3, 0) + 1) * 127.5).numpy()
    images = np.concatenate([places[place] for place in range(4)])
    assert images.shape == truth.shape
    assert np.abs(images - truth)[: 1 + 8 * generated].max() <= 1  # two sections have their whole past


def test_images_in_the_file_are_the_decoded_ones(undisturbed, truth):
    """In light; color has half the size in the file, and an untrained codec paints colored noise."""
    weights = np.array([0.299, 0.587, 0.114])
    seen, wanted = read_video(undisturbed.events[-1].path) @ weights, truth @ weights
    assert seen.shape == wanted.shape
    assert np.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("there", [{0}, {1, 2}, {0, 3}, {0, 1, 2, 3}])
def test_images_that_are_on_disk_are_not_decoded_again(run, backbone, there):
    plan = run.config.plan()
    everything, _ = decoded_by(decoder_for(run, plan, backbone.codec), run, plan.sections)
    for place in range(4):
        if place not in there:
            run.segment(place).path.unlink()
    rest, _ = decoded_by(decoder_for(run, plan, backbone.codec), run, plan.sections)
    assert rest.keys() == {0, 1, 2, 3} - there
    assert all(np.array_equal(images, everything[place]) for place, images in rest.items())


def test_each_segment_covers_its_images(run):
    segments = [run.segment(place) for place in range(4)]
    assert [(s.first, s.images) for s in segments] == [(0, 37), (37, 36), (73, 36), (109, 36)]
