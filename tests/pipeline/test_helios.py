"""A whole Helios of the real classes, from its folder to videos; diffusers' own pipelines say what is right."""

import json
import shutil
import sys
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from longtake.backbones import inspect_model, load_backbone
from longtake.backbones.helios.anchor import noised
from longtake.backbones.placement import PROFILES
from longtake.backbones.running import Demand, Runtime, running
from longtake.errors import InputError, ModelError, PlanError
from longtake.flow import Pyramid, noise, renoising
from longtake.media import read_video
from longtake.pipeline import Planned, Run, SectionDone, Step, extend, generate, make, preflight, reroll
from longtake.pipeline.curves import rows_of
from longtake.pipeline.decoding import decoder_for
from longtake.pipeline.request import read_extension, read_request
from longtake.plan import ANCHOR

# diffusers' Helios schedulers hand tensors to NumPy, in a way that NumPy means to end.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

PROMPT, BLURRY, SEED = "a red ball rolls left", "blurry", 5
HEIGHT, WIDTH = 64, 128
STEPS = {"base": {"steps": 3}, "mid": {"steps": 7}, "distilled": {}}
CALLS = {
    "base": {"num_inference_steps": 3, "guidance_scale": 5.0},
    "mid": {"pyramid_num_inference_steps_list": [2, 2, 3], "guidance_scale": 5.0},
    "distilled": {
        "pyramid_num_inference_steps_list": [2, 2, 2],
        "guidance_scale": 1.0,
        "is_amplify_first_chunk": True,
    },
}
LOSSLESS = [profile.name for profile in PROFILES if profile.storage is None and not profile.tables]


@pytest.fixture(scope="session")
def picture_of_noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "start.png"
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def request_for(folder, picture, **options):
    """Two sections, in as few steps as show everything."""
    usual = {"image": str(picture), "prompt": PROMPT, "negative_prompt": BLURRY, "seed": SEED, "seconds": 2.75,
             "model": str(folder), "height": HEIGHT, "width": WIDTH}  # fmt: skip
    return read_request({**usual, **STEPS[folder.name], **options})


@pytest.fixture
def asked(helios_folder, picture_of_noise):
    return lambda **options: request_for(helios_folder, picture_of_noise, **options)


@pytest.fixture(scope="session")
def undisturbed(helios_folder, picture_of_noise, tmp_path_factory):
    """A video that nothing disturbed: the model, the run, the events and the file."""
    home = tmp_path_factory.mktemp("undisturbed")
    backbone = load_backbone(helios_folder)
    request = request_for(helios_folder, picture_of_noise)
    events = list(generate(request, home / "a.mp4", home / "run", backbone))
    return SimpleNamespace(backbone=backbone, run=Run.open(home / "run"), events=events, video=home / "a.mp4")


def latents_of(run):
    return [run.read_section(section) for section in run.config.plan().sections]


def pipeline_of(folder):
    """diffusers' own pipeline of the folder, with this package's noise for its own."""
    kind = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])

    class Fed(kind):
        section, stage = -1, 0

        def prepare_latents(self, batch, channels, height, width, images, **_):
            self.section, self.stage = self.section + 1, 0
            return noise((1, channels, 1 + (images - 1) // 4, height // 8, width // 8), SEED, self.section)

        def sample_block_noise(self, b, c, t, h, w, *_):
            self.stage += 1
            pyramid = Pyramid((1,), "euler", 1.0, gamma=self.scheduler.config.gamma)
            return renoising(pyramid, self.section, [SEED], torch.zeros(1))(torch.Size((b, c, t, h, w)), self.stage)

    Fed.__name__ = kind.__name__  # diffusers looks it up in the index
    pipe = Fed.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def published(helios_folder, undisturbed):
    """What diffusers' pipeline makes of the same, its posteriors taken at their means: latents and images."""
    pipe, made = pipeline_of(helios_folder), {}

    def keep(pipe, number, time, now):
        return made.update({pipe.section: now["latents"]}) or now  # a section's last step stays

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[type(pipe).__mro__[1].__module__], "ftfy", Ftfy, raising=False)  # not installed
        picture = Image.open(undisturbed.run.folder / "start.png")
        pixels = pipe.video_processor.preprocess(picture, height=HEIGHT, width=WIDTH)[:, :, None]
        encoded = [pipe.vae.encode(p).latent_dist.mean for p in (pixels, pixels.repeat(1, 1, 33, 1, 1))]
        mean, std = (torch.tensor(pipe.vae.config[f"latents_{what}"]).view(1, -1, 1, 1, 1) for what in ("mean", "std"))
        both = (torch.cat([encoded[0], encoded[1][:, :, -1:]], dim=2) - mean) / std
        anchor, still = noised(both, [SEED], ANCHOR).split(1, dim=2)
        images = pipe(
            PROMPT, BLURRY, height=HEIGHT, width=WIDTH, num_frames=66, image_latents=anchor, fake_image_latents=still,
            add_noise_to_image_latents=False, callback_on_step_end=keep, **CALLS[helios_folder.name],
        ).frames[0]  # fmt: skip
    return SimpleNamespace(latents=[made[0], made[1]], images=images)


class Ftfy:
    """What mends broken letters, of which there are none."""

    fix_text = staticmethod(str)


def test_latents_of_two_sections_are_those_of_the_published_pipeline(published, undisturbed):
    for ours, theirs in zip(latents_of(undisturbed.run), published.latents, strict=True):
        assert theirs.std() > 0.3
        # Float round-off of two sections under guidance 5; UniPC's last level is 1e-8 there and 0 here.
        assert (ours - theirs).abs().max() < 5e-5 * theirs.abs().max()


def undecoded(run, folder):
    """The same run before anything of it was decoded."""
    shutil.copytree(run.folder, folder)
    for path in folder.glob("segments/*"):
        path.unlink()
    return Run.open(folder)


def test_images_are_those_of_the_published_pipeline(published, undisturbed, tmp_path):
    run = undecoded(undisturbed.run, tmp_path / "run")
    plan = run.config.plan()
    decoder = decoder_for(run, plan, undisturbed.backbone.codec)
    shown = [decoded.images for s in plan.sections for decoded in decoder.add(s, run.read_section(s))]
    assert [len(images) for images in shown] == [33, 33]
    assert len(published.images) == 65  # it cuts its video to 4n + 1 images
    difference = np.concatenate(shown)[:65].astype(float) - 255 * published.images
    assert np.abs(difference).max() < 0.6  # rounded to whole levels here


def test_every_section_is_33_images_and_the_start_image_is_none_of_them(undisturbed):
    run, planned, finished = undisturbed.run, undisturbed.events[0], undisturbed.events[-1]
    assert run.config.images == finished.images == len(read_video(undisturbed.video)) == 66
    assert [(piece.first, piece.images) for piece in run.pieces] == [(0, 33), (33, 33)]
    assert [(row.begins, row.ends) for row in rows_of(run)] == [(0.0, 33 / 24), (33 / 24, 66 / 24)]
    assert (planned.plan.order, len(planned.plan.sections)) == ("vanilla", 2)
    assert [event.images for event in undisturbed.events if isinstance(event, SectionDone)] == [33, 66]
    assert [meter.place for meter in run.read_meters()] == [0, 1]


def test_steps_say_how_many_there_are_and_grow_from_coarse_to_fine(helios_folder, undisturbed):
    steps = [event for event in undisturbed.events if isinstance(event, Step)]
    counts = {"base": (3, 3), "mid": (7, 7), "distilled": (12, 6)}[helios_folder.name]
    assert [(s.section.index, s.step, s.steps) for s in steps] == [
        (section, step, count) for section, count in enumerate(counts) for step in range(1, count + 1)
    ]
    sizes = list(dict.fromkeys(tuple(s.latents.shape[3:]) for s in steps if s.section.index == 1))
    assert sizes == {"base": [(8, 16)]}.get(helios_folder.name, [(2, 4), (4, 8), (8, 16)])


@pytest.mark.parametrize("stop", ["in the second section", "between its latents and its images"])
def test_a_stopped_run_ends_as_an_undisturbed_one(asked, undisturbed, tmp_path, stop):
    run = undisturbed.run
    if stop == "in the second section":
        stopped = generate(asked(), tmp_path / "b.mp4", tmp_path / "b", undisturbed.backbone)
        for event in stopped:
            if isinstance(event, Step) and event.section.index == 1:
                break
        stopped.close()
    else:
        shutil.copytree(run.folder, tmp_path / "b")
        (tmp_path / "b" / "segments" / "0001.mp4").unlink()
    events = list(make(Run.open(tmp_path / "b"), tmp_path / "b.mp4", undisturbed.backbone))
    assert isinstance(events[0], Planned)
    assert all(torch.equal(a, b) for a, b in zip(latents_of(Run.open(tmp_path / "b")), latents_of(run), strict=True))
    assert (tmp_path / "b.mp4").read_bytes() == undisturbed.video.read_bytes()
    assert Run.open(tmp_path / "b").read_meters() == run.read_meters()


def test_a_section_is_made_anew_from_another_seed_and_those_before_it_stay(undisturbed, tmp_path):
    shutil.copytree(undisturbed.run.folder, tmp_path / "b")
    run = reroll(Run.open(tmp_path / "b"), 1, seed=6)
    list(make(run, tmp_path / "b.mp4", undisturbed.backbone))
    first, second = (torch.equal(a, b) for a, b in zip(latents_of(run), latents_of(undisturbed.run), strict=True))
    assert (first, second) == (True, False)
