import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from longtake.backbones import MODELS, BackboneSettings, find_model, inspect_model, load_backbone, load_codec
from longtake.backbones.outline import Loaded
from longtake.backbones.wan import velocity
from longtake.errors import ModelError, OutputError
from longtake.flow import noise
from longtake.packing import History, pack
from longtake.plan import make_plan
from longtake.schedule import parse

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_backbone_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(tiny_backbone_folder, tmp_path / "model")


def change_json(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def change_weights(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def refused(folder, match):
    with pytest.raises(ModelError, match=match):
        load_backbone(folder)


def step(backbone, **choices):
    """One evaluation in the second section of a video."""
    plan = make_plan(parse(backbone.settings.schedules["vanilla"]), 19)
    history = History()
    history.remember(range(10), noise((1, 4, 10, 4, 6), seed=0, section=0))
    with torch.no_grad():
        packed = pack(plan.sections[1], history, backbone.patchify, backbone.axes)
        text = backbone.prompts.encode(["a red ball"])
        return backbone.velocity(noise((1, 4, 9, 4, 6), seed=0, section=1), 0.5, text, packed, **choices)


def test_a_backbone_is_loaded_in_float32_on_a_cpu_from_bfloat16_on_disk(tiny_backbone_folder):
    assert {t.dtype for t in load_file(tiny_backbone_folder / WEIGHTS).values()} == {torch.bfloat16}
    backbone = load_backbone(tiny_backbone_folder)
    for network in (backbone.transformer, backbone.codec.network, backbone.prompts.encoder):
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert not network.training
    assert backbone.dtype == torch.float32
    assert backbone.device.type == "cpu"
    assert backbone.grid == (16, 16)
    assert step(backbone).std() > 0.1


def test_saving_and_loading_keep_every_weight(tiny_backbone_folder, tmp_path):
    first = load_backbone(tiny_backbone_folder)
    first.save(tmp_path / "again")
    again = load_backbone(str(tmp_path / "again"))
    assert again.settings == first.settings
    assert torch.equal(step(first), step(again))
    assert first.transformer.state_dict().keys() == again.transformer.state_dict().keys()
    for file in ("vae/diffusion_pytorch_model.safetensors", WEIGHTS, "text_encoder/model.safetensors"):
        assert (tiny_backbone_folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_weights_can_be_saved_whole(tiny_backbone_folder, tmp_path):
    backbone = load_backbone(tiny_backbone_folder)
    with torch.no_grad():
        backbone.patchify.proj["k4h8w8"].weight.add_(1e-5)
    backbone.save(tmp_path, dtype=torch.float32)
    assert torch.equal(step(load_backbone(tmp_path)), step(backbone))


def test_diffusers_reads_the_folder_as_it_is(tiny_backbone_folder):
    pipeline = WanPipeline.from_pretrained(tiny_backbone_folder, torch_dtype=torch.float32)
    backbone = load_backbone(tiny_backbone_folder)
    x, text = noise((1, 4, 3, 4, 6), 0, 0), backbone.prompts.encode(["a red ball"])
    with torch.no_grad():
        theirs = pipeline.transformer(x, torch.tensor([500.0]), text, return_dict=False)[0]
        ours = backbone.transformer(x, torch.tensor([500.0]), text, return_dict=False)[0]
    assert torch.equal(theirs, ours)
    assert pipeline.scheduler.config.shift == 3.0


def test_a_plain_wan_checkpoint_gets_settings_and_fresh_history_weights(folder):
    (folder / "longtake.json").unlink()
    change_weights(
        folder / WEIGHTS, lambda s: [s.pop(name) for name in list(s) if name.startswith("history_patch_embed")]
    )
    backbone = load_backbone(folder)
    assert backbone.settings == BackboneSettings(shift=3.0)  # of its scheduler
    assert set(backbone.patchify.proj) == {"k1h2w2", "k2h4w4", "k4h8w8"}
    assert torch.equal(backbone.patchify.proj["k1h2w2"].weight, backbone.transformer.patch_embedding.weight)


def test_settings_choose_the_time_of_history(folder):
    same = step(load_backbone(folder))
    change_json(folder / "longtake.json", history_time="clean")
    assert (step(load_backbone(folder)) - same).abs().max() > 1e-4


def test_one_noise_level_or_one_a_sample(tiny_backbone_folder):
    backbone = load_backbone(tiny_backbone_folder)
    history = History()
    history.remember([0], noise((2, 4, 1, 4, 6), seed=0, section=0))
    section = make_plan(parse(backbone.settings.schedules["vanilla"]), 10).sections[0]
    x = noise((2, 4, 9, 4, 6), seed=0, section=1)
    with torch.no_grad():
        packed = pack(section, history, backbone.patchify, backbone.axes)
        text = backbone.prompts.encode(["a red ball", "a blue box"])
        both = backbone.velocity(x, torch.tensor([0.25, 0.75]), text, packed)
        assert torch.equal(backbone.velocity(x, 0.25, text, packed)[0], both[0])
        assert torch.equal(backbone.velocity(x, 0.75, text, packed)[1], both[1])
        low = velocity(backbone.transformer, backbone.seams, x, torch.full((2,), 0.25), text, packed)
        assert torch.equal(low[0], both[0])


def test_a_codec_is_loaded_alone(tiny_backbone_folder):
    codec = load_codec(tiny_backbone_folder / "vae")
    video = torch.zeros(1, 3, 5, 32, 48)
    assert torch.equal(codec.encode(video), load_backbone(tiny_backbone_folder).codec.encode(video))


def test_an_unknown_model_names_the_known_ones():
    refused("embeded", "unknown model 'embeded': no such folder.* embedded")


def test_a_file_is_not_a_model(folder):
    refused(folder / WEIGHTS, "give the model's folder")
    pickle = folder / "model.ckpt"
    pickle.write_bytes(b"\x80\x04.")
    refused(pickle, "pickle can run any program")


def test_a_folder_without_an_index_or_of_another_pipeline_is_refused(folder):
    change_json(folder / "model_index.json", _class_name="MochiPipeline")
    refused(folder, "MochiPipeline; longtake knows WanPipeline, ")
    (folder / "model_index.json").unlink()
    refused(folder, "model_index.json is missing")


def test_missing_parts_are_all_named(folder):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    refused(folder, "lacks vae, tokenizer/")


@pytest.mark.parametrize(
    "file", [WEIGHTS, "transformer/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
)
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    refused(folder, f"{file} is missing")


def test_missing_shards_are_named(folder):
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"a": "part-1-of-2.safetensors", "b": "part-2-of-2.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(folder, "part-1-of-2.safetensors, part-2-of-2.safetensors missing of the 2")


def test_shards_are_read(folder, tiny_backbone_folder):
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, of in parts.items():
        save_file({name: state[name] for name in of}, folder / "transformer" / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, of in parts.items() for name in of}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert torch.equal(step(load_backbone(folder)), step(load_backbone(tiny_backbone_folder)))


def test_pickled_weights_are_refused(folder):
    (folder / WEIGHTS).rename(folder / "transformer" / "diffusion_pytorch_model.bin")
    refused(folder, r"diffusion_pytorch_model.bin: a pickle can run any program .* convert it")


@pytest.mark.parametrize("kept", [0.9, 0.0])
@pytest.mark.parametrize("file", [WEIGHTS, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_truncated_weights_are_refused(folder, file, kept):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(kept * len(content))])
    refused(folder, f"{file} is cut short or is not a safetensors file")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder):
    change_json(folder / "transformer/config.json", ffn_dim=40)
    refused(folder, r"0.ffn.net.0.proj.weight is \(32, 32\) in the file, but config.json asks for \(40, 32\) \(5 more")


def test_a_tensor_too_few_or_too_many_is_named(folder):
    config = folder / "transformer/config.json"
    change_json(config, num_layers=3)
    refused(folder, r"lack blocks.2.\S+ and \d+ more, which config.json asks for")
    change_json(config, num_layers=1)
    refused(folder, r"hold blocks.1.\S+ and \d+ more, for which config.json has no place")


def test_a_kernel_that_was_not_trained_is_named(folder):
    change_json(folder / "longtake.json", schedules={"vanilla": "f8k8f4k4f2k2f1k1_g9"})
    refused(folder, r"lack history_patch_embed.proj.k8h16w16.weight and 1 more")


def test_kernels_beyond_the_schedules_are_kept(folder):
    change_json(folder / "longtake.json", schedules={"vanilla": "f1k1_g9"})
    assert set(load_backbone(folder).patchify.proj) == {"k1h2w2", "k2h4w4", "k4h8w8"}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("transformer", {"_class_name": "HunyuanVideoTransformer3DModel"}, "HunyuanVideoTransformer3DModel; longtake"),
        ("vae", {"_class_name": "AutoencoderKL"}, "AutoencoderKL; longtake knows AutoencoderKLWan"),
        ("text_encoder", {"model_type": "llama"}, "llama; Wan and Helios read text with umt5"),
        ("transformer", {"num_layers": "many"}, "config.json does not describe a network"),
    ],
)
def test_another_architecture_is_refused(folder, part, change, message):
    change_json(folder / part / "config.json", **change)
    refused(folder, message)


def test_parts_of_different_models_are_refused(folder, tmp_path):
    from longtake.backbones.architecture import CodecShape, new_codec

    new_codec(CodecShape(encoder_width=4, decoder_width=4, channels=6)).save_pretrained(folder / "vae")
    refused(folder, "channels of a latent: 6, but the transformer is made for 4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "inwards"}, "order 'inwards' has no schedule"),
        ({"schedules": {"inwards": "f1k1_g9"}}, "schedules: .*order 'inwards' is unknown"),
        ({"schedules": {"vanilla": "f16k4_q2_g9"}}, "schedules: .*f16k4_q2_g9"),
        ({"steps": 0}, "steps: .*greater than 0"),
        ({"temperature": 1.0}, "temperature: Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, change, message):
    change_json(folder / "longtake.json", **change)
    with pytest.raises(ModelError, match=f"(?s)longtake.json: {message}"):
        load_backbone(folder)


def test_broken_json_is_refused(folder):
    (folder / "longtake.json").write_text("{")
    refused(folder, "longtake.json cannot be read as JSON")
    (folder / "longtake.json").write_text("[]")
    refused(folder, "longtake.json is not a JSON object")


def test_a_folder_that_cannot_be_written_is_an_output_error(tiny_backbone_folder, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        load_backbone(tiny_backbone_folder).save(tmp_path / "taken")


def test_a_known_model_that_was_not_installed_is_said_to_be_missing(monkeypatch):
    monkeypatch.setitem(MODELS, "ghost", replace(MODELS["embedded"], name="ghost", assets="ghost"))
    with pytest.raises(ModelError, match="'ghost' is not part of this installation"):
        find_model("ghost")


def test_loading_is_silent(tiny_backbone_folder, capfd):
    load_backbone(tiny_backbone_folder)
    assert capfd.readouterr() == ("", "")


def test_an_outline_is_read_again_when_a_file_of_the_model_changes(tiny_backbone_folder, tmp_path):
    folder = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    first = inspect_model(folder)
    assert inspect_model(folder) is first
    settings = json.loads((folder / "longtake.json").read_text())
    (folder / "longtake.json").write_text(json.dumps({**settings, "steps": 77}))
    assert inspect_model(folder).settings.steps == 77
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(ModelError):
        inspect_model(folder)


def test_what_is_loaded_in_inference_mode_is_like_what_is_loaded_outside(tiny_backbone_folder, framepack_folder):
    with torch.inference_mode():
        for folder in (tiny_backbone_folder, framepack_folder):
            backbone = load_backbone(folder)
            weights = [*backbone.transformer.parameters(), *backbone.codec.network.parameters()]
            assert not any(weight.is_inference() for weight in weights)


def test_the_trained_history_of_a_single_file_is_kept(tiny_backbone_folder, tmp_path):
    whole = load_backbone(tiny_backbone_folder).transformer
    for weight in whole.history_patch_embed.parameters():
        torch.nn.init.normal_(weight)
    save_file(whole.state_dict(), tmp_path / "one.safetensors")
    shutil.copy(tiny_backbone_folder / "transformer" / "config.json", tmp_path)
    places = {"transformer": tmp_path / "one.safetensors"}
    loaded = load_backbone(tiny_backbone_folder, how=Loaded(places=places)).transformer
    for ours, theirs in zip(
        loaded.history_patch_embed.parameters(), whole.history_patch_embed.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
