import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtake.backbones import MODELS, check_model, find_parts
from longtake.backbones.architecture import new_tokenizer
from longtake.errors import ModelError

ROW = MODELS["framepack-i2v"]
WAN = MODELS["wan2.1-t2v-1.3b"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every part of FramePack at tiny size, each in a folder of its name, as the released ones are."""
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        LlamaConfig,
        LlamaModel,
        SiglipImageProcessorPil,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    folder = tmp_path_factory.mktemp("parts")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        HunyuanVideoFramepackTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=8,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
            has_image_proj=True,
            image_proj_dim=8,
            has_clean_x_embedder=True,
        ).save_pretrained(folder / "transformer")
        AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=4
        ).save_pretrained(folder / "vae")
        LlamaModel(LlamaConfig(vocab_size=20, **sizes)).save_pretrained(folder / "text_encoder")
        CLIPTextModel(CLIPTextConfig(vocab_size=20, **sizes)).save_pretrained(folder / "text_encoder_2")
        siglip = SiglipVisionConfig(image_size=14, patch_size=7, **sizes)
        SiglipVisionModel(siglip).save_pretrained(folder / "image_encoder")
    for name in ("tokenizer", "tokenizer_2"):
        new_tokenizer(["ball"]).save_pretrained(folder / name)
    SiglipImageProcessorPil().save_pretrained(folder / "feature_extractor")
    change_json(folder / "transformer/config.json", _class_name="HunyuanVideoTransformer3DModelPacked")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "parts")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def found_in(folder, row=ROW, **others):
    return find_parts(row, places={part.name: folder / part.name for part in row.parts} | others)


def refused(folder, match, **others):
    with pytest.raises(ModelError, match=match):
        check_model(found_in(folder, **others))


def test_framepacks_parts_are_what_they_are_said_to_be(whole, capfd):
    check_model(found_in(whole))
    assert capfd.readouterr() == ("", "")


def test_the_class_may_have_the_name_that_diffusers_gives_it(folder):
    change_json(folder / "transformer/config.json", _class_name="HunyuanVideoFramepackTransformer3DModel")
    check_model(found_in(folder))


def test_a_wan_and_its_history_weights_are_accepted(tiny_backbone_folder):
    check_model(found_in(tiny_backbone_folder, WAN))


def test_another_network_is_named(folder, tiny_backbone_folder):
    message = "config.json says WanTransformer3DModel; transformer is read by HunyuanVideoFramepackTransformer3DModel"
    refused(folder, message, transformer=tiny_backbone_folder / "transformer")
    refused(
        folder, "config.json says umt5; text_encoder is a llama", text_encoder=tiny_backbone_folder / "text_encoder"
    )
    refused(folder, "says clip_text_model; image_encoder is a siglip", image_encoder=folder / "text_encoder_2")


def test_a_config_that_disagrees_with_the_tensors_is_named(folder):
    change_json(folder / "transformer/config.json", num_single_layers=2)
    refused(folder, r"transformer: the weights lack single_transformer_blocks.1.\S+ and \d+ more")
    change_json(folder / "transformer/config.json", num_single_layers=1, in_channels=8)
    refused(folder, r"tensor \S+ is \(20, 4, 1, 2, 2\) in the file, but config.json asks for \(20, 8, 1, 2, 2\)")


def test_an_encoder_that_disagrees_with_its_config_is_named(folder):
    change_json(folder / "text_encoder/config.json", intermediate_size=24)
    refused(folder, r"text_encoder: the weights lack 6 tensors that config.json asks for, 4 of them \(24, 8\)")


def test_an_encoder_may_be_saved_under_the_names_of_another_version(folder):
    path = folder / "text_encoder_2/model.safetensors"
    state = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})
    check_model(found_in(folder))


def test_a_config_that_describes_no_network_is_named(folder):
    change_json(folder / "transformer/config.json", num_layers="many")
    refused(folder, "transformer: config.json does not describe a network")


@pytest.mark.parametrize("name", [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "image_encoder/model.safetensors"])
def test_truncated_weights_are_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) * 9 // 10])
    refused(folder, f"{name} is cut short or is not a safetensors file .*; fetch it again")


@pytest.mark.parametrize(
    "name", ["transformer/config.json", "tokenizer/tokenizer_config.json", "feature_extractor/preprocessor_config.json"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, f"framepack-i2v: its {name.split('/')[0]}: .*{name} is missing")


def test_a_broken_file_of_a_tokenizer_is_named(folder):
    (folder / "tokenizer/tokenizer.json").write_text("{")
    refused(folder, "tokenizer.json cannot be read as JSON")


def test_a_single_file_is_known_by_its_tensors(folder, tiny_backbone_folder):
    check_model(found_in(folder, transformer=folder / "transformer" / WEIGHTS))
    wrong = tiny_backbone_folder / "transformer" / WEIGHTS
    refused(folder, "looks like WanTransformer3DModel; expected HunyuanVideoFramepack", transformer=wrong)
    refused(folder, "looks like no transformer that is known", transformer=folder / "text_encoder/model.safetensors")


def test_a_single_file_that_is_cut_is_named(folder, tmp_path):
    file = tmp_path / "cut.safetensors"
    file.write_bytes((folder / "transformer" / WEIGHTS).read_bytes()[:-1])
    refused(folder, "cut.safetensors is cut short", transformer=file)


def test_a_gguf_file_that_is_none_or_is_cut_is_named(folder, tmp_path):
    file = tmp_path / "model.gguf"
    for content in (b"GGUF\x03\x00\x00\x00", b"<html>"):
        file.write_bytes(content)
        refused(folder, "model.gguf is cut short or is not a GGUF file .*; fetch it again", transformer=file)
