"""Reading LoRA files: strengths that stand elsewhere, and files that cannot be used."""

import json

import pytest
import torch
from safetensors.torch import save_file

from longtake.backbones.lora import read_lora
from longtake.errors import ModelError


def halves(*names, rank=4):
    return {
        f"{prefix}.{part}.weight": torch.ones((rank, 8) if part == "lora_A" else (8, rank))
        for prefix in names
        for part in ("lora_A", "lora_B")
    }


def scales(file):
    return {layer.name: layer.scale for layer in file.layers}


def test_without_a_word_of_it_the_strength_is_one(tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(halves("transformer.blocks.0.attn1.to_q"), path)
    file = read_lora(path)
    assert scales(file) == {"blocks.0.attn1.to_q": 1.0}
    assert file.layers[0].rank == 4
    assert file.keys == tuple(sorted(halves("transformer.blocks.0.attn1.to_q")))


def test_the_header_of_diffusers_says_the_strength(tmp_path):
    path = tmp_path / "pytorch_lora_weights.safetensors"
    config = {
        "transformer.r": 4,
        "transformer.lora_alpha": 8,
        "transformer.alpha_pattern": {"blocks.0.attn1.to_k": 2.0},
        "text_encoder.lora_alpha": 64,
    }
    tensors = halves("transformer.blocks.0.attn1.to_q", "transformer.blocks.0.attn1.to_k")
    save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    assert scales(read_lora(path)) == {"blocks.0.attn1.to_q": 2.0, "blocks.0.attn1.to_k": 0.5}


def test_the_config_beside_a_peft_adapter_says_the_strength(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    save_file(halves("base_model.model.blocks.0.attn1.to_q"), path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 6, "use_rslora": True}))
    assert scales(read_lora(path)) == {"blocks.0.attn1.to_q": 3.0}


def test_a_tensor_in_the_file_outranks_its_header(tmp_path):
    path = tmp_path / "style.safetensors"
    tensors = {**halves("blocks.0.attn1.to_q"), "blocks.0.attn1.to_q.alpha": torch.tensor(1.0)}
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})})
    assert scales(read_lora(path)) == {"blocks.0.attn1.to_q": 0.25}


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", "HunyuanVideo or FramePack, diffusers' names"),
        ("lora_unet_single_transformer_blocks_3_proj_mlp", "HunyuanVideo or FramePack, diffusers' names, flattened"),
        ("diffusion_model.double_blocks.0.img_attn_qkv", "HunyuanVideo, original names"),
        ("lora_unet_single_blocks_0_linear1", "HunyuanVideo, original names, flattened"),
        ("diffusion_model.blocks.0.self_attn.q", "Wan, original names"),
        ("lora_unet_blocks_0_ffn_0", "Wan, original names, flattened"),
        ("blocks.0.attn1.to_q", "Wan, diffusers' names"),
        ("lora_unet_double_blocks_0_img_mlp_0", "Flux, original names, flattened"),
        ("lora_unet_up_blocks_1_attentions_0_proj_in", "Stable Diffusion, flattened"),
        ("encoder.layer.0", "an unknown kind of file, with names like encoder.layer.0.lora_A.weight"),
    ],
)
def test_a_file_says_what_it_looks_like(tmp_path, name, looks):
    save_file(halves(name), tmp_path / "style.safetensors")
    assert read_lora(tmp_path / "style.safetensors").looks == looks


def test_what_the_trainer_wrote_of_the_model_is_said(tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(
        halves("lora_unet_double_blocks_0_img_attn_qkv"), path, metadata={"modelspec.architecture": "Flux.1-dev/lora"}
    )
    assert read_lora(path).looks == "HunyuanVideo, original names, flattened; its header says Flux.1-dev/lora"


def refused(path, match):
    with pytest.raises(ModelError, match=match):
        read_lora(path)


def test_a_pickle_a_folder_and_nothing_are_refused(tmp_path):
    refused(tmp_path, "is a folder; give the LoRA's .safetensors file")
    refused(tmp_path / "style.safetensors", "style.safetensors: there is no such LoRA file")
    for suffix in ("pt", "ckpt", "bin"):
        pickle = tmp_path / f"style.{suffix}"
        pickle.write_bytes(b"\x80\x04.")
        refused(pickle, "pickle can run any program; look for a .safetensors file of it, or convert it")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(tmp_path, kept):
    path = tmp_path / "style.safetensors"
    save_file(halves("blocks.0.attn1.to_q"), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "style.safetensors is cut short or is not a safetensors file")


def test_halves_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(halves("blocks.0.attn1.to_q") | {"blocks.0.attn1.to_q.lora_B.weight": torch.ones(8, 3)}, path)
    refused(path, r"halves of blocks.0.attn1.to_q are \(4, 8\) and \(8, 3\)")


def test_a_header_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(halves("blocks.0.attn1.to_q"), path, metadata={"lora_adapter_metadata": "{"})
    refused(path, "its header's lora_adapter_metadata cannot be read")
