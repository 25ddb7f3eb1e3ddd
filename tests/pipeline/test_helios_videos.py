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

from helios import GAMMA, save_helios
from longtake.backbones import BackboneSettings, inspect_model, load_backbone
from longtake.backbones.blueprints import blueprint_of
from longtake.backbones.helios.anchor import noised
from longtake.backbones.helios.sampling import read_sampling
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.backbones.placement import PROFILES
from longtake.backbones.running import Demand, Runtime, running
from longtake.errors import InputError, ModelError, PlanError
from longtake.flow import Pyramid, noise, renoising
from longtake.media import read_video
from longtake.pipeline import Planned, Run, SectionDone, Step, generate, make, preflight, reroll
from longtake.pipeline.curves import rows_of
from longtake.pipeline.decoding import decoder_for
from longtake.pipeline.known import known_of
from longtake.pipeline.request import Config, read_extension, read_request
from longtake.pipeline.work import work_at
from longtake.plan import ANCHOR, VANILLA
from longtake.schedule import parse

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


@pytest.fixture(scope="session")
def distilled(tmp_path_factory):
    """The folder of the quickest of the three."""
    return save_helios(tmp_path_factory.mktemp("helios") / "distilled", "distilled")


@pytest.fixture
def asked_of(distilled, picture_of_noise):
    """A request for one section of the quickest of the three, with changes."""
    return lambda **options: request_for(distilled, picture_of_noise, **{"seconds": 1.0, **options})


def test_a_folder_says_what_it_is(helios_folder):
    outline = inspect_model(helios_folder)
    settings = outline.settings
    assert (outline.family, outline.channels, outline.temporal_ratio, outline.spatial_ratio) == ("helios", 4, 4, 8)
    assert [str(kernel) for kernel in outline.kernels] == ["k1", "k2", "k4"]
    assert (settings.manner, settings.missing, settings.history_time) == ("anchored", "zeros", "clean")
    assert settings.sampling == read_sampling(helios_folder)
    assert settings.sampling.usual.gamma == GAMMA  # its scheduler is believed
    usual = {"base": (50, "unipc_flow", 5.0), "mid": (60, "unipc_flow", 5.0), "distilled": (6, "dmd", 1.0)}
    assert (settings.steps, settings.solver, settings.guidance) == usual[helios_folder.name]


def test_settings_and_config_are_read_as_they_were_written(asked, helios_folder, tmp_path):
    """A shift without a limit among them, for which JSON has no number."""
    config = preflight(asked(), tmp_path / "a.mp4", tmp_path / "run").config
    assert Config.model_validate_json(config.model_dump_json()) == config
    settings = inspect_model(helios_folder).settings
    assert BackboneSettings.model_validate_json(settings.model_dump_json()) == settings
    json.loads(config.model_dump_json(), parse_constant=pytest.fail)  # Infinity without marks is no JSON


def test_sides_that_cannot_be_halved_are_refused(helios_folder, asked, tmp_path):
    unit, near = {"base": (16, "80 and 96")}.get(helios_folder.name, (64, "64 and 128"))
    with pytest.raises(InputError, match=f"a height of 88 is off the model's grid of {unit} pixels.* are {near}"):
        preflight(asked(height=88), tmp_path / "a.mp4", tmp_path / "run")
    with pytest.raises(InputError, match=f"a width of 88 is off the model's grid of {unit} pixels"):
        preflight(asked(width=88), tmp_path / "a.mp4", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"importance": "hybrid"}, InputError, "importance hybrid for .* expected time"),
        ({"posterior": "sample"}, InputError, "posterior sample for .* expected mean"),
        ({"cache": "first_block"}, InputError, "no step cache knows its network"),
        ({"cache": "draft"}, InputError, "cache draft for .* expected none"),
        ({"compat": "official"}, InputError, "compat official is for FramePack"),
        ({"solver": "euler"}, InputError, "solver 'euler'.*expected dmd"),
        ({"steps": 2}, InputError, "2 steps for a model that samples in 3 sizes: expected 3 or more"),
        ({"distilled_guidance": 3.0}, InputError, "was not distilled to obey guidance"),
        ({"order": "inverted"}, PlanError, "the order inverted cannot serve"),
        ({"schedule": "f1k1_x_f16k4f2k2f1k1_g9_x_f1k1"}, PlanError, "makes videos forward from a start image"),
        ({"schedule": "f16k8_g9"}, ModelError, "no history weights for the kernel k8"),
        ({"codebook": 128}, ModelError, "has no codebook"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_sentence(asked_of, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        preflight(asked_of(**options), tmp_path / "a.mp4", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_video_is_not_made_longer(distilled, undisturbed, tmp_path):
    request = read_extension({"video": str(undisturbed.video), "model": str(distilled)})
    with pytest.raises(InputError, match="makes videos from a start image; it does not make others longer"):
        preflight(request, tmp_path / "a.mp4", tmp_path / "run")


def test_times_of_a_storyboard_count_sections_of_33_images(asked_of, tmp_path):
    board = {"cues": [{"at": 1.4, "prompt": "a blue box"}]}
    checked = preflight(asked_of(seconds=4.0, storyboard=board), tmp_path / "a.mp4", tmp_path / "run")
    assert (checked.sections, checked.images, checked.seconds) == (3, 99, 99 / 24)
    assert checked.script.seconds == 33 / 24
    assert [told.prompt for told in checked.script.told] == [PROMPT, "a blue box", "a blue box"]


def test_a_lora_changes_the_video_and_is_said_to(asked_of, distilled, tmp_path):
    generator = torch.Generator().manual_seed(0)
    name = "transformer.blocks.0.attn1.to_q"
    tensors = {f"{name}.lora_{side}.weight": torch.randn(shape, generator=generator)
               for side, shape in (("A", (2, 40)), ("B", (40, 2)))}  # fmt: skip
    save_file(tensors, tmp_path / "style.safetensors")
    request = asked_of(loras=[f"{tmp_path / 'style.safetensors'}:0.5"])
    planned, *_ = generate(request, tmp_path / "a.mp4", tmp_path / "a")
    assert planned.remarks[0].endswith("2 of 2 tensors applied")
    (styled,), (plain,) = latents_of(Run.open(tmp_path / "a")), made_latents(asked_of(), tmp_path / "b")
    assert not torch.allclose(styled, plain, atol=1e-3)


@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
def test_matrices_can_be_kept_in_fewer_bits(asked_of, tmp_path, storage):
    (stored,) = made_latents(asked_of(storage=storage), tmp_path / "stored")
    (exact,) = made_latents(asked_of(), tmp_path / "exact")
    assert 0 < (stored - exact).std() / exact.std() < 0.5


def made_latents(request, folder, backbone=None):
    list(generate(request, folder.with_suffix(".mp4"), folder, backbone))
    return latents_of(Run.open(folder))


@pytest.mark.parametrize("profile", LOSSLESS)
def test_where_weights_lie_does_not_change_the_video(asked_of, distilled, tmp_path, profile):
    (wanted,) = made_latents(asked_of(), tmp_path / "a")
    backbone = load_backbone(distilled)
    told = tuple(backbone.prompts.tell([PROMPT], np.zeros((HEIGHT, WIDTH, 3), np.uint8)).told.values())
    demand = Demand(2000, torch.ones(6), told)
    # Checked generators are not generators to torch, so that the engine's own mode does not hold inside.
    with torch.no_grad(), running(backbone, torch.device("cpu"), Runtime("cpu", profile), demand) as ready:
        (latents,) = made_latents(asked_of(), tmp_path / "b", ready)
    torch.testing.assert_close(latents, wanted, atol=1e-5, rtol=1e-5)


def test_a_prompt_of_its_own_changes_a_section(asked_of, distilled, tmp_path):
    backbone = load_backbone(distilled)
    (red,) = made_latents(asked_of(), tmp_path / "a", backbone)
    (blue,) = made_latents(asked_of(prompt="a blue box"), tmp_path / "b", backbone)
    assert not torch.allclose(red, blue, atol=1e-4)


def test_the_noise_in_the_start_image_belongs_to_the_seed(asked_of, distilled, tmp_path):
    backbone, shown = load_backbone(distilled), []
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        list(generate(asked_of(seed=seed), tmp_path / f"{folder}.mp4", tmp_path / folder, backbone))
        run = Run.open(tmp_path / folder)
        (known,) = known_of(run, run.config.plan(), backbone)
        assert list(known.frames) == [ANCHOR, 0]
        shown.append(known.latents)
        assert not torch.equal(known.latents[:, :, 1:], run.read_start())  # what is kept is clean
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


def test_a_model_in_the_hubs_cache_is_made_by_its_name(asked_of, distilled, cache_in_hub, monkeypatch, tmp_path):
    """Its scheduler is believed there, too."""
    home = tmp_path / "hub"
    cache_in_hub(home, "BestWishYsh/Helios-Distilled", distilled)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    for name in ("helios-distilled", "BestWishYsh/Helios-Distilled"):
        config = preflight(asked_of(model=name), tmp_path / "a.mp4", tmp_path / "run").config
        assert (config.model, config.sampling.usual.gamma, config.steps) == (name, GAMMA, 6)
    backbone = load_backbone("helios-distilled")  # checking the machine, its text encoder would count as published
    *_, finished = generate(asked_of(model="helios-distilled"), tmp_path / "a.mp4", tmp_path / "run", backbone)
    assert finished.images == 33


def test_a_model_that_is_not_here_says_how_to_fetch_it(asked_of, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="longtake models helios-distilled --fetch"):
        preflight(asked_of(model="helios-distilled"), tmp_path / "a.mp4", tmp_path / "run")


def test_a_folder_of_another_history_time_is_refused(distilled, tmp_path):
    folder = shutil.copytree(distilled, tmp_path / "model")
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"zero_history_timestep": False}))
    with pytest.raises(ModelError, match="zero_history_timestep false: expected 'same'"):
        inspect_model(folder)


def test_one_file_is_no_helios_and_it_is_saved_as_nothing_else(asked_of, distilled, tmp_path):
    file = distilled / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelError, match="does not say how a Helios divides its history"):
        inspect_model(distilled, {"transformer": file})
    with pytest.raises(ModelError, match="only a Wan model"):
        load_backbone(distilled).save(tmp_path / "saved")


def test_a_doctor_counts_coarse_steps_as_the_less_that_they_are(helios_folder):
    found = blueprint_of(str(helios_folder), torch.float32)
    size = Bucket(HEIGHT, WIDTH)
    work = work_at(found, size, parse(VANILLA), found.settings.steps, 1, 100)
    assert (work.images, work.steps) == (33, found.settings.steps)
    assert work.tokens.noisy == 9 * 4 * 8
    operations = [stage.operations.linear for stage in work.stages]
    assert len(operations) == {"base": 1}.get(helios_folder.name, 3)
    assert operations == sorted(set(operations))
