"""The three stages at tiny size, on real clips of the toybox: twenty steps each, the same numbers every time."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from helios import save_helios
from longtake.backbones import MODELS, load_backbone
from longtake.backbones.pixels import to_pixels
from longtake.errors import ConfigError, ModelError
from longtake.flow import SizeShift
from longtake.toybox import write_clips
from longtake.training import Logged, prepare, train
from longtake.training.clips import open_clips
from longtake.training.config import PRESETS, DiscreteConfig

# Not importorskip: importing MuJoCo before the toybox does would choose a drawing library that needs a screen.
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, the extra `toybox`")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder / "train", (0, 1), images=73, height=32, width=48)
    write_clips(folder / "held", (900_000,), images=73, height=32, width=48)
    return folder


def run(config, clips, output, model=None):
    stage = prepare(config, clips / "train", clips / "held", model, "cpu")
    return [e.numbers for e in train(stage, config.loop, config.optimizer, output) if isinstance(e, Logged)]


@pytest.fixture(scope="session")
def trained(clips, tmp_path_factory):
    """All three stages, one after the other, and what they said."""
    folder = tmp_path_factory.mktemp("trained")
    said = {"codec": run(PRESETS["codec/tiny"], clips, folder / "codec")}
    said["base"] = run(PRESETS["base/tiny"], clips, folder / "base", folder / "codec" / "model")
    said["pack"] = run(PRESETS["pack/tiny"], clips, folder / "pack", folder / "base" / "model")
    return folder, said


@pytest.mark.parametrize("stage", ["codec", "base", "pack"])
def test_twenty_steps_lower_the_loss(trained, stage):
    losses = [n["loss"] for n in trained[1][stage] if "loss" in n]
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])


def test_twenty_steps_are_the_same_twenty_steps_again(trained, clips, tmp_path):
    again = run(PRESETS["pack/tiny"], clips, tmp_path, trained[0] / "base" / "model")
    assert again == trained[1]["pack"]


def test_pack_begins_where_base_ended(trained):
    base = load_backbone(trained[0] / "base" / "model").transformer
    pack = load_backbone(trained[0] / "pack" / "model").transformer
    moved = (pack.blocks[0].ffn.net[2].weight - base.blocks[0].ffn.net[2].weight).abs().mean()
    assert 0 < moved < base.blocks[0].ffn.net[2].weight.abs().mean()


def test_a_codec_is_trained_on_and_takes_its_place_in_a_model(trained, clips, tmp_path):
    before = trained[0] / "pack" / "model"
    run(PRESETS["codec/tiny"], clips, tmp_path / "codec", before)
    stage = prepare(
        PRESETS["pack/tiny"], clips / "train", clips / "held", before, "cpu", codec=tmp_path / "codec" / "model"
    )
    stage.export(tmp_path / "joined")
    old, new = load_backbone(before), load_backbone(tmp_path / "joined")
    assert torch.equal(old.transformer.proj_out.weight, new.transformer.proj_out.weight)
    moved = (old.codec.network.post_quant_conv.weight - new.codec.network.post_quant_conv.weight).abs().max()
    assert 0 < moved < 1
    assert "_name_or_path" not in json.loads((tmp_path / "joined" / "transformer" / "config.json").read_text())


def test_the_codec_knows_its_latents_mean_and_deviation(trained):
    config = json.loads((trained[0] / "codec" / "model" / "vae" / "config.json").read_text())
    assert len(config["latents_mean"]) == len(config["latents_std"]) == 16
    assert all(d > 0 for d in config["latents_std"])


def test_history_weights_are_trained_by_pack_and_left_alone_by_base(trained):
    def drift(stage):
        transformer = load_backbone(trained[0] / stage / "model").transformer
        own = transformer.history_patch_embed.proj["k1h2w2"].weight
        return (own - transformer.patch_embedding.weight).abs().max()

    assert drift("pack") > 0


def test_a_stage_without_its_model_is_refused(clips):
    with pytest.raises(ConfigError, match="needs --model"):
        prepare(PRESETS["pack/tiny"], clips / "train", clips / "held", None, "cpu")


def test_clips_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"longtake\.toybox"):
        prepare(PRESETS["codec/tiny"], tmp_path, tmp_path, None, "cpu")


def test_only_models_of_one_stream_are_trained(clips, tmp_path):
    model = save_helios(tmp_path / "model", "distilled")
    with pytest.raises(ModelError, match="only models are trained whose sections follow each other in one stream"):
        prepare(PRESETS["pack/tiny"], clips / "train", clips / "held", model, "cpu")


def test_a_published_wan_is_trained_with_prompts_of_its_own_length(tiny_backbone_folder, clips, tmp_path):
    model = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    (model / "longtake.json").unlink()
    config = PRESETS["pack/tiny"].with_limits(steps=1, seconds=None, batch=1)
    assert load_backbone(model).prompts.text_length == 512 != config.text_length
    assert any("loss" in numbers for numbers in run(config, clips, tmp_path / "out", model))


@pytest.mark.parametrize("name", ["wan2.2-ti2v-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"])
def test_a_model_that_is_known_by_name_is_trained_with_its_own_settings(
    tiny_backbone_folder, cache_in_hub, clips, tmp_path, monkeypatch, name
):
    plain = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    (plain / "longtake.json").unlink()
    cache_in_hub(tmp_path / "hub", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", plain, "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    config, row = PRESETS["pack/tiny"], MODELS["wan2.2-ti2v-5b"].settings
    stage = prepare(config, clips / "train", clips / "held", Path(name), "cpu")
    trained = {"schedules": config.schedules, "gaps": config.gaps}
    assert stage.backbone.settings == row.model_copy(update=trained)
    assert stage.shift == row.shift == 5.0


def test_levels_are_shifted_as_the_model_wants_it_or_as_the_config_says(tiny_backbone_folder, clips, tmp_path):
    plain = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    change = {"shift": {"small": 2.0, "large": 9.0}}
    (plain / "longtake.json").write_text(json.dumps(json.loads((plain / "longtake.json").read_text()) | change))
    for shift, levels, kept in (("model", 2.0, SizeShift(2.0, 9.0)), (4.0, 4.0, 4.0)):
        config = PRESETS["pack/tiny"].model_copy(update={"shift": shift})
        stage = prepare(config, clips / "train", clips / "held", plain, "cpu")
        assert (stage.shift, stage.backbone.settings.shift) == (levels, kept)


def test_what_training_does_not_know_is_refused_before_clips_are_encoded(
    tiny_backbone_folder, framepack_folder, clips, tmp_path
):
    both = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    shutil.copytree(both / "transformer", both / "transformer_2")
    index = json.loads((both / "model_index.json").read_text()) | {"transformer_2": ["diffusers", "A"]}
    (both / "model_index.json").write_text(json.dumps(index))
    (both / "longtake.json").unlink()
    write_clips(tmp_path / "odd", (0,), images=73, height=40, width=48)
    for model, source, error, says in (
        (framepack_folder, clips / "train", ModelError, "read prompts with UMT5 and nothing else"),
        (both, clips / "train", ModelError, "models of one transformer"),
        (tiny_backbone_folder, tmp_path / "odd", ConfigError, "clips of 40 x 48 are off the grid of"),
    ):
        with pytest.raises(error, match=says):
            prepare(PRESETS["pack/tiny"], source, clips / "held", model, "cpu")


def test_tracks_come_back_from_their_cache(trained, clips, tmp_path):
    config = PRESETS["pack/tiny"]
    model = trained[0] / "base" / "model"
    fresh = prepare(config, clips / "train", clips / "held", model, "cpu", cache=tmp_path)
    cached = prepare(config, clips / "train", clips / "held", model, "cpu", cache=tmp_path)
    assert torch.equal(fresh.tracks.latents, cached.tracks.latents)
    assert torch.equal(fresh.tracks.keys, cached.tracks.keys)
    assert fresh.tracks.captions == cached.tracks.captions
    assert fresh.tracks.lengths == cached.tracks.lengths


def test_a_cache_of_another_codec_is_refused(trained, clips, tmp_path):
    config, codec = PRESETS["pack/tiny"], tmp_path / "codec" / "model"
    run(PRESETS["codec/tiny"], clips, tmp_path / "codec", trained[0] / "pack" / "model")
    folders = clips / "train", clips / "held"
    prepare(config, *folders, trained[0] / "base" / "model", "cpu", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="another codec"):
        prepare(config, *folders, trained[0] / "base" / "model", "cpu", cache=tmp_path / "cache", codec=codec)


def test_a_codec_for_the_stage_that_trains_one_is_refused(trained, clips):
    with pytest.raises(ConfigError, match="--model"):
        prepare(
            PRESETS["codec/tiny"], clips / "train", clips / "held", None, "cpu", codec=trained[0] / "codec" / "model"
        )


def test_training_sees_each_clip_in_a_mirror_too(trained, clips):
    config = PRESETS["pack/tiny"]
    stage = prepare(config, clips / "train", clips / "held", trained[0] / "base" / "model", "cpu")
    films = open_clips(clips / "train")
    count, frames = len(films), stage.tracks.lengths[0]
    assert len(stage.tracks.lengths) == 2 * count
    assert len(stage.held_out.lengths) == 1
    seen = torch.from_numpy(films.read(1, 0, 4 * frames - 3)[None, :, :, ::-1].copy())
    with torch.no_grad():
        latents = stage.backbone.codec.encode(to_pixels(seen, torch.device("cpu"), torch.float32))
    # Two clips at once and one alone: the same sums in another order.
    assert torch.allclose(stage.tracks.latents[count + 1 : count + 2].transpose(1, 2), latents, atol=1e-4)
    assert not torch.allclose(stage.tracks.latents[1], stage.tracks.latents[count + 1], atol=1e-4)
    words = [" ".join(track[0]) for track in stage.tracks.captions]
    for plain, mirrored in zip(words[:count], words[count:], strict=True):
        assert mirrored == plain.replace("left", "*").replace("right", "left").replace("*", "right")


def test_samples_are_written_on_the_way(trained):
    with Image.open(trained[0] / "pack" / "samples" / "000020.webp") as sample:
        # One held-out clip: the real one on the left, the made one on the right, two sections and the start image.
        assert (sample.size, sample.n_frames) == ((96, 32), 73)


def test_a_key_image_is_the_last_image_of_its_section_encoded_alone(trained, clips):
    stage = prepare(PRESETS["pack/tiny"], clips / "train", clips / "held", trained[0] / "base" / "model", "cpu")
    image = torch.from_numpy(open_clips(clips / "train").read(1, 36, 1)[None].copy())
    latents = stage.backbone.codec.encode(to_pixels(image, torch.device("cpu"), torch.float32))
    # Four pictures at once and one alone: the same sums in another order.
    assert torch.allclose(stage.tracks.keys[1, 0], latents[0, :, 0], atol=1e-4)


def test_pack_gives_the_model_its_orders_and_codebooks(trained):
    backbone = load_backbone(trained[0] / "pack" / "model")
    assert set(backbone.settings.schedules) == {"vanilla", "inverted", "planned", "anti_drifting"}
    assert sorted(backbone.codebooks) == [1, 8]
    mean = backbone.codebooks[1].words[0]
    assert mean.abs().max() < 1.5  # latents are normalized; few clips have a mean of their own


def test_pack_says_first_what_its_codebooks_keep_of_held_out_clips(trained):
    found = trained[1]["pack"][0]
    assert sorted(found) == ["words_1_explained", "words_1_unused", "words_8_explained", "words_8_unused"]
    assert found["words_1_explained"] < found["words_8_explained"] < 1
    assert found["words_1_explained"] <= 0  # one word is a mean, and of other clips
    assert found["words_1_unused"] == 0


BASELINES = ("repeated-i2v", "anchor-frame", "causal", "noisy-history", "history-guidance")


def tiny(name, **changes):
    """A preset of stage `pack` at tiny size, for two steps."""
    same = "schedules", "shares", "key_share", "corruption", "discrete", "use"
    preset, small = PRESETS[f"pack/{name}"], PRESETS["pack/tiny"]
    given = {field: getattr(preset, field) for field in same} | {"loop": small.loop.model_copy(update={"steps": 2})}
    return small.model_copy(update={**given, **changes})


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_trained_and_its_model_knows_how_it_reads_history(trained, clips, tmp_path, name):
    config = tiny(name)
    losses = [n["loss"] for n in run(config, clips, tmp_path, trained[0] / "base" / "model") if "loss" in n]
    assert len(losses) == 2
    settings = load_backbone(tmp_path / "model").settings
    assert settings.schedules == config.schedules
    assert {name: getattr(settings, name) for name in config.use.settings} == config.use.settings
    assert settings.order == "vanilla"


def test_a_model_keeps_what_its_training_leaves_to_it(trained, clips, tmp_path):
    run(tiny("causal"), clips, tmp_path / "causal", trained[0] / "base" / "model")
    again = tiny("tiny", discrete=DiscreteConfig(share=0.0))
    run(again, clips, tmp_path / "again", tmp_path / "causal" / "model")
    settings = load_backbone(tmp_path / "again" / "model").settings
    assert (settings.attention, settings.history_time) == ("causal", "clean")
    assert set(settings.schedules) == set(again.schedules)


def test_a_corrupted_training_is_the_same_training_again(trained, clips, tmp_path):
    """Own history, recycled errors and all the rest, on real clips; stopped and taken up after five steps."""
    config = tiny("corrupted", discrete=DiscreteConfig(share=0.0))
    config = config.model_copy(update={"loop": config.loop.model_copy(update={"steps": 12, "checkpoint_steps": (5,)})})
    model = trained[0] / "base" / "model"
    whole = run(config, clips, tmp_path / "whole", model)
    stage = prepare(config, clips / "train", clips / "held", model, "cpu")
    for event in train(stage, config.loop, config.optimizer, tmp_path / "stopped"):
        if isinstance(event, Logged) and event.step == 8:
            break
    assert run(config, clips, tmp_path / "stopped", model) == whole[5:]
