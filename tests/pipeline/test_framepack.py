"""A whole FramePack model of the real classes, from its folder to videos."""

import gc
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, LlamaModel, SiglipVisionModel

from longtake.backbones import inspect_model, load_backbone
from longtake.backbones.hunyuan.intake import HunyuanIntake
from longtake.backbones.outline import Loaded
from longtake.backbones.placement import PROFILES
from longtake.backbones.running import Demand, Runtime, running
from longtake.errors import InputError, ModelError
from longtake.flow import noise, sigmas
from longtake.media import read_video
from longtake.pipeline import Planned, Run, extend, generate, make, preflight
from longtake.pipeline.overlap import NeighborDecoder, OverlapDecoder
from longtake.pipeline.request import read_extension, read_request

PROMPT = "a red ball rolls left"
LOSSLESS = [profile.name for profile in PROFILES if profile.storage is None]


@pytest.fixture(scope="module")
def backbone(framepack_folder):
    return load_backbone(framepack_folder)


@pytest.fixture
def asked(framepack_folder, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "start.png")

    def ask(**options):
        given = {"image": str(tmp_path / "start.png"), "prompt": PROMPT, "seconds": 3.6, "model": str(framepack_folder)}
        return read_request({**given, **options})

    return ask


def made(events):
    """The run of a video, once it is made."""
    planned, *_ = everything = list(events)
    assert isinstance(planned, Planned)
    return Run.open(planned.folder), everything


def latents_of(run):
    return [run.read_section(section) for section in run.config.plan().sections]


def test_a_folder_says_what_it_is(framepack_folder):
    outline = inspect_model(framepack_folder)
    assert (outline.family, outline.channels, outline.temporal_ratio, outline.spatial_ratio) == ("hunyuan", 16, 4, 8)
    assert [str(kernel) for kernel in outline.kernels] == ["k1", "k2", "k4"]


@pytest.mark.parametrize("order", ["inverted", "vanilla", "anti_drifting", "planned:2"])
def test_every_order_makes_all_images(asked, backbone, tmp_path, order):
    schedule = {} if order in ("inverted", "vanilla") else {"schedule": "f1k1_x_f16k4f2k2f1k1_g9_f1k1f2k2f16k4_td"}
    request = asked(order=order, **schedule)
    run, events = made(generate(request, tmp_path / "a.mp4", tmp_path / "run", backbone))
    assert events[-1].images == 1 + 4 * 9 * 3 == len(read_video(tmp_path / "a.mp4"))
    # Whichever way they were made: a stream through all sections shows the same images as each between its neighbors.
    plan = run.config.plan()
    places = sorted(plan.sections, key=lambda section: section.frames)
    for path in run.folder.glob("segments/*"):
        path.unlink()
    alone = {}
    for section in plan.sections:
        alone |= {
            d.place: d.images
            for d in NeighborDecoder(run, plan, backbone.codec).add(section, run.read_section(section))
        }
    in_time = make_plan_in_time(plan)
    stream = OverlapDecoder(run, in_time, backbone.codec)
    together = {d.place: d.images for section in places for d in stream.add(section, run.read_section(section))}
    assert alone.keys() == together.keys() == {0, 1, 2}
    assert all(np.array_equal(alone[place], together[place]) for place in alone)
    assert sum(map(len, alone.values())) == 109


def make_plan_in_time(plan):
    from dataclasses import replace

    return replace(plan, sections=tuple(sorted(plan.sections, key=lambda section: section.frames)))


@pytest.mark.parametrize("order", ["inverted", "vanilla"])
@pytest.mark.parametrize("kept", [1, 2])
def test_a_stopped_run_ends_as_an_undisturbed_one(asked, backbone, tmp_path, order, kept):
    run, _ = made(generate(asked(order=order), tmp_path / "a.mp4", tmp_path / "run", backbone))
    whole = (tmp_path / "a.mp4").read_bytes()
    wanted = latents_of(run)
    stopped = generate(asked(order=order), tmp_path / "b.mp4", tmp_path / "b", backbone)
    for event in stopped:
        if getattr(getattr(event, "section", None), "index", 0) == kept:
            break
    stopped.close()
    run, _ = made(make(Run.open(tmp_path / "b"), tmp_path / "b.mp4", backbone))
    assert all(torch.equal(a, b) for a, b in zip(latents_of(run), wanted, strict=True))
    assert len((tmp_path / "b.mp4").read_bytes()) == len(whole)
    assert np.array_equal(read_video(tmp_path / "a.mp4"), read_video(tmp_path / "b.mp4"))


def test_official_choices_are_those_of_the_official_program(asked, tmp_path):
    request = asked(compat="official", gaps="true")
    config = preflight(asked(compat="official"), tmp_path / "a.mp4", tmp_path / "run").config
    assert (config.solver, config.noise, config.posterior) == ("unipc_official", "running", "sample")
    assert (config.gaps, config.missing, config.distilled_guidance) == ("clamped", "zeros", 10.0)
    assert config.shift == pytest.approx(np.exp(0.5 + 0.65 * (9 * 6 - 256) / 3840))
    assert preflight(request, tmp_path / "a.mp4", tmp_path / "run").config.gaps == "true"  # who asks is served


def test_the_official_noise_is_one_generators(asked, backbone, tmp_path):
    """What the network is asked first in each section is the next draw, in bfloat16."""
    seen = []
    hook = backbone.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append([*args, *kwargs.values()][0]), with_kwargs=True
    )
    run, _ = made(generate(asked(compat="official"), tmp_path / "a.mp4", tmp_path / "a", backbone))
    hook.remove()
    generator = torch.Generator().manual_seed(run.config.seed)
    for first in seen[:: run.config.steps]:
        drawn = torch.randn(first.shape, generator=generator)
        assert torch.equal(first, drawn.bfloat16().float())
    assert len(seen) == run.config.steps * len(run.config.plan().sections)


@pytest.mark.parametrize("profile", LOSSLESS)
def test_where_weights_lie_does_not_change_the_video(asked, framepack_folder, tmp_path, profile):
    resident = load_backbone(framepack_folder)
    wanted, _ = made(generate(asked(guidance=2.0), tmp_path / "a.mp4", tmp_path / "a", resident))
    backbone = load_backbone(framepack_folder)
    words = backbone.prompts.tell([PROMPT, ""], np.asarray(Image.open(tmp_path / "a" / "start.png")))
    demand = Demand(2000, sigmas(2, wanted.config.shift)[:-1], tuple(words.told.values()))
    # Checked generators are not generators to torch, so that the engine's own mode does not hold inside.
    with torch.no_grad(), running(backbone, torch.device("cpu"), Runtime("cpu", profile), demand) as ready:
        run, _ = made(generate(asked(guidance=2.0), tmp_path / "b.mp4", tmp_path / "b", ready))
    for a, b in zip(latents_of(wanted), latents_of(run), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_prompt_that_is_cut_is_said_to_be(asked, backbone, tmp_path):
    events = generate(asked(prompt="a red ball and " * 30), tmp_path / "a.mp4", tmp_path / "run", backbone)
    planned = next(events)
    events.close()
    (said,) = planned.unread
    assert said.startswith("CLIP reads 77 of 122 tokens and loses: ")


def test_encoders_leave_memory_when_they_have_read(backbone):
    def encoders():
        return sum(isinstance(held, LlamaModel | CLIPTextModel | SiglipVisionModel) for held in gc.get_objects())

    before = encoders()
    words = backbone.prompts.tell([PROMPT], np.zeros((32, 48, 3), np.uint8))
    (told,) = words.told.values()
    assert told.text.shape[1] == 512
    assert told.image.shape == (1, 16, 12)
    assert encoders() == before


def lora(path, name="transformer_blocks.0.attn.to_q", scale=1.0):
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            f"transformer.{name}.lora_A.weight": torch.randn(2, 32, generator=generator),
            f"transformer.{name}.lora_B.weight": scale * torch.randn(32, 2, generator=generator),
        },
        path,
    )
    return path


def test_what_became_of_a_lora_is_said_and_it_changes_the_video(asked, framepack_folder, backbone, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    plain, _ = made(generate(asked(), tmp_path / "a.mp4", tmp_path / "a", backbone))
    events = list(generate(asked(loras=[f"{path}:0.5"]), tmp_path / "b.mp4", tmp_path / "b"))
    assert events[0].remarks[0].endswith("2 of 2 tensors applied")
    assert "style.safetensors at 0.5" in events[0].remarks[0]
    assert not torch.allclose(latents_of(plain)[0], latents_of(Run.open(tmp_path / "b"))[0], atol=1e-3)
    with pytest.raises(ModelError, match=r"other\.safetensors"):
        list(generate(asked(loras=[str(lora(tmp_path / "other.safetensors", "nowhere.to_q"))]),
                      tmp_path / "c.mp4", tmp_path / "c"))  # fmt: skip


def test_a_changed_lora_stops_a_run_that_goes_on(asked, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    events = generate(asked(loras=[str(path)]), tmp_path / "a.mp4", tmp_path / "a")
    next(events)
    events.close()
    lora(path, scale=2.0)
    with pytest.raises(ModelError, match="changed since this run began"):
        list(make(Run.open(tmp_path / "a"), tmp_path / "a.mp4"))


@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated without:UserWarning")  # adapters are not merged
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:inner dimension:UserWarning")  # this network's are smaller than a group
@pytest.mark.parametrize(
    "storage", ["fp8", "int8", "nf4", "int8:torchao", "fp8:torchao", "int8:bitsandbytes", "nf4:bitsandbytes"]
)
def test_matrices_can_be_kept_in_fewer_bits_under_a_lora(asked, framepack_folder, tmp_path, storage):
    package = storage.partition(":")[2]
    if package:
        pytest.importorskip(package)
    path = lora(tmp_path / "style.safetensors")
    request = asked(loras=[str(path)], storage=storage)
    run, _ = made(generate(request, tmp_path / "a.mp4", tmp_path / "a"))
    exact, _ = made(generate(asked(loras=[str(path)]), tmp_path / "b.mp4", tmp_path / "b"))
    error = (latents_of(run)[0] - latents_of(exact)[0]).std() / latents_of(exact)[0].std()
    assert 0 < error < 0.5


def test_a_draft_skips_steps(asked, framepack_folder, tmp_path):
    request = asked(cache="draft", steps=8, seconds=1.2)
    config = preflight(request, tmp_path / "a.mp4", tmp_path / "x").config
    assert config.cache == "first_block"  # of a folder without a name; FramePack's own row says teacache
    _, events = made(generate(request, tmp_path / "a.mp4", tmp_path / "run"))
    assert events[0].remarks[-1].startswith("steps are skipped by first_block, quality draft: ")
    assert events[-1].images == 37


@pytest.mark.parametrize(("side", "order"), [("after", None), ("before", None), ("before", "anti_drifting")])
def test_a_video_is_made_longer(asked, backbone, framepack_folder, tmp_path, side, order):
    made(generate(asked(seconds=2.4), tmp_path / "a.mp4", tmp_path / "a", backbone))
    given = {"video": str(tmp_path / "a.mp4"), "side": side, "prompt": PROMPT, "seconds": 2.4, "order": order}
    schedule = {} if order is None else {"schedule": "f1k1_x_f16k4f2k2f1k1_g9_f1k1f2k2f16k4_td"}
    request = read_extension({"model": str(framepack_folder), **given, **schedule})
    _, events = made(extend(request, tmp_path / "b.mp4", tmp_path / "b", backbone))
    count = 73 + 72 - (side == "before")
    assert events[-1].images == count == len(read_video(tmp_path / "b.mp4"))
    old, new = read_video(tmp_path / "a.mp4"), read_video(tmp_path / "b.mp4")
    kept = new[:73] if side == "after" else new[-73:]
    assert np.abs(kept.astype(int) - old).mean() < 6  # compressed twice


@pytest.mark.parametrize("images", [1, 5, 17, 21, 33, 41, 65])
@pytest.mark.parametrize("chunk", [7, 64])
def test_images_some_at_a_time_are_encoded_as_all_at_once(backbone, images, chunk):
    video = noise((1, 3, images, 32, 48), seed=0, section=0).clamp(-1, 1)
    intake = HunyuanIntake(backbone.codec)
    parts = [intake.encode(part) for part in video.split(chunk, dim=2)]
    found = torch.cat([*parts, intake.finish()], dim=2)
    torch.testing.assert_close(found, backbone.codec.encode(video), atol=1e-5, rtol=1e-5)


def test_what_only_framepack_knows_is_refused_of_others(tiny_backbone_folder, asked, tmp_path):
    for options, says in (
        ({"compat": "official"}, "FramePack on HunyuanVideo"),
        ({"distilled_guidance": 6.0}, "not distilled"),
    ):
        with pytest.raises(InputError, match=says):
            preflight(asked(model=str(tiny_backbone_folder), **options), tmp_path / "a.mp4", tmp_path / "run")
    with pytest.raises(InputError, match="unknown step cache 'tea'; there are none, draft, teacache"):
        preflight(asked(cache="tea"), tmp_path / "a.mp4", tmp_path / "run")


def test_a_part_can_be_elsewhere(framepack_folder, asked, tmp_path):
    folder = shutil.copytree(framepack_folder, tmp_path / "model")
    file = (folder / "transformer" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "one.safetensors")
    shutil.copy(folder / "transformer" / "config.json", tmp_path / "config.json")
    shutil.rmtree(folder / "transformer")
    with pytest.raises(ModelError, match="lacks transformer/"):
        load_backbone(folder)
    (tmp_path / "longtake.json").write_text('{"steps": 77}')  # of whatever else lies where the file does
    there = load_backbone(folder, how=Loaded(places={"transformer": file}))
    whole = load_backbone(framepack_folder)
    assert there.settings == whole.settings
    pairs = zip(there.transformer.parameters(), whole.transformer.parameters(), strict=True)
    assert all(torch.equal(a.float(), b.float()) for a, b in pairs)


@pytest.fixture
def two_transformers(tiny_backbone_folder, tmp_path):
    """A folder of Wan 2.2's layout, as its publisher has it."""
    folder = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.9}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_two_transformers_share_the_levels_at_the_boundary(two_transformers, asked, tmp_path):
    folder = two_transformers
    settings = json.loads((folder / "longtake.json").read_text()) | {"boundary": 0.8, "second_guidance": 2.0}
    (folder / "longtake.json").write_text(json.dumps(settings))
    backbone, calls = load_backbone(folder), {"noisy": 0, "calm": 0}
    for name, network in (("noisy", backbone.transformer), ("calm", backbone.second.transformer)):
        network.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    request = asked(model=str(folder), steps=4, seconds=3.0)
    made(generate(request, tmp_path / "a.mp4", tmp_path / "run", backbone))
    noisy = int((sigmas(4, 3.0)[:-1] >= 0.8).sum())
    assert calls == {"noisy": noisy, "calm": 2 * (4 - noisy)}  # the second is guided
    assert 0 < noisy < 4


def test_a_published_folder_says_where_its_second_transformer_takes_over(two_transformers):
    (two_transformers / "longtake.json").unlink()
    backbone = load_backbone(two_transformers)
    assert backbone.second is not None
    assert backbone.settings.boundary == 0.9
    assert backbone.second.settings.guidance == 3.0
