"""Transformers in one file, against the networks that were written and against diffusers' own converters."""

import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_hunyuan_video_transformer_to_diffusers,
    convert_wan_transformer_to_diffusers,
)
from safetensors.torch import save_file
from torch import nn

from longtake.backbones.catalog import MODELS
from longtake.backbones.checking import check_model
from longtake.backbones.lora import apply_loras, read_lora
from longtake.backbones.names import places
from longtake.backbones.parts import FoundModel, FoundPart
from longtake.backbones.placement import PROFILES, PromptInputs, place, stream_blocks, tabulate
from longtake.backbones.placement.storage import FP8, StoredLinear, block_linears
from longtake.backbones.single_file import (
    Entry,
    TensorFile,
    check_transformer_file,
    config_for,
    load_transformer_file,
    open_tensors,
)
from longtake.errors import ModelError
from longtake.packing import Patchify
from longtake.schedule import Kernel

CPU = torch.device("cpu")
SIZES = {"in_channels": 4, "out_channels": 4, "num_attention_heads": 1, "attention_head_dim": 128}
HUNYUAN = SIZES | {
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 32,
    "pooled_projection_dim": 32,
}
IMAGES = {"has_image_proj": True, "image_proj_dim": 32, "has_clean_x_embedder": True}
WAN = SIZES | {"text_dim": 32, "freq_dim": 32, "ffn_dim": 64, "num_layers": 2}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def wan(**more):
    return randomized(WanTransformer3DModel(**WAN | more))


def hunyuan():
    return randomized(HunyuanVideoTransformer3DModel(**HUNYUAN))


def framepack():
    return randomized(HunyuanVideoFramepackTransformer3DModel(**HUNYUAN | IMAGES))


def wan_with_images():
    return wan(image_dim=32, added_kv_proj_dim=128, pos_embed_seq_len=6)


BUILDS = [wan, wan_with_images, hunyuan, framepack]


def stem(name):
    return name.rpartition(".")[0] if name.endswith((".weight", ".bias")) else name


def renamed(state, comfy=False):
    """Tensors under the names that their publisher gave them, fused where they were."""
    where, left, out = places({stem(name) for name in state}), dict(state), {}
    known = {}
    for name, there in where.items():
        is_comfy = re.search(
            r"\.lin$|in_layer|out_layer|query_norm|key_norm|_attn\.(qkv|proj)|(_mlp|\d\.mlp)\.[02]$", name
        )
        original = name not in {stem(own) for own in state} and ("." in name or name in ("scale_shift_table",))
        if original and (there.layers not in known or bool(is_comfy) == comfy):
            known[there.layers] = (name, there.swapped)
    for layers, (name, swapped) in known.items():
        for suffix in (".weight", ".bias", ""):
            parts = [left.pop(layer + suffix, None) for layer in layers]
            if parts[0] is not None:
                fused = torch.cat(parts)
                scale = suffix == ".weight" and name.endswith(("query_norm", "key_norm"))
                fused = fused.roll(len(fused) // 2, 0) if swapped else fused
                out[name + (".scale" if scale else suffix)] = fused
    return out | left


def step(transformer, dtype=torch.float32):
    x, timestep = drawn(1, 4, 2, 4, 6, seed=3).to(dtype), torch.tensor([500.0])
    if isinstance(transformer, WanTransformer3DModel):
        given = {"encoder_hidden_states": drawn(1, 7, 32, seed=1).to(dtype)}
        if transformer.config["image_dim"]:
            given["encoder_hidden_states"] = drawn(1, 512, 32, seed=1).to(dtype)
            given["encoder_hidden_states_image"] = drawn(2, 3, 32, seed=2).to(dtype)
    else:
        given = {
            "encoder_hidden_states": drawn(1, 7, 32, seed=1).to(dtype),
            "encoder_attention_mask": torch.ones(1, 7, dtype=torch.int64),
            "pooled_projections": drawn(1, 32, seed=2).to(dtype),
            "guidance": torch.tensor([6000.0]),
        }
    if isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        given |= {"image_embeds": drawn(1, 3, 32, seed=4).to(dtype), "indices_latents": torch.arange(2)}
        for name, count in (("clean", 2), ("history_2x", 2), ("history_4x", 4)):
            given[f"latents_{name}"] = drawn(1, 4, count, 4, 6, seed=count).to(dtype)
            given[f"indices_latents_{name}"] = torch.arange(count)
    with torch.no_grad():
        return transformer(x, timestep, **given, return_dict=False)[0]


def same(a, b):
    """To float round-off: tensors in a file lie at other addresses, for which products are summed in another order."""
    return bool((a - b).norm() <= 1e-5 * b.norm())


def kind(transformer):
    return type(transformer).__name__


def load(path, transformer, dtype=torch.float32):
    check_transformer_file(path, kind(transformer))
    return load_transformer_file(path, kind(transformer), dtype)


def write(path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


# Names.


@pytest.mark.parametrize("comfy", [False, True])
def test_original_hunyuan_names_mean_what_diffusers_converter_says(comfy):
    """Its converter takes a width of 3072 for granted, so the rows are as many; one column is enough to see them."""
    with torch.device("meta"):
        network = HunyuanVideoTransformer3DModel(num_layers=2, num_single_layers=2)
    state = {
        name: torch.arange(len(p) * 1.0).reshape(-1, *[1] * (p.ndim - 1)) + number * 1e6
        for number, (name, p) in enumerate(network.state_dict().items())
    }
    original = renamed(state)
    assert not {name for name in original if "transformer_blocks" in name}
    theirs = convert_hunyuan_video_transformer_to_diffusers(dict(original))
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[name], value) for name, value in state.items())
    if comfy:
        assert len(renamed(state, comfy)) == len(original)


def test_original_wan_names_mean_what_diffusers_converter_says():
    state = wan(image_dim=32, added_kv_proj_dim=128).state_dict()
    original = renamed(state)
    assert len(original.keys() & state.keys()) == 2  # the patch embedding's
    theirs = convert_wan_transformer_to_diffusers(dict(original))
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[name], value) for name, value in state.items())


@pytest.mark.parametrize("names", ["own", "original", "comfy"])
@pytest.mark.parametrize("build", BUILDS)
def test_a_network_comes_back_whatever_its_tensors_are_called(build, names, tmp_path):
    transformer = build()
    state = transformer.state_dict()
    if names != "own":
        state = renamed(state, names == "comfy" and "Wan" not in kind(transformer))
        assert len(state) <= len(transformer.state_dict())
        assert sum(name in transformer.state_dict() for name in state) < len(state) / 3
    back = load(write(tmp_path / "one.safetensors", state), transformer)
    assert back.state_dict().keys() == transformer.state_dict().keys()
    assert all(torch.equal(value, transformer.state_dict()[name]) for name, value in back.state_dict().items())
    assert same(step(back), step(transformer))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model.model.", "transformer."])
def test_a_prefix_that_says_nothing_is_taken_off(prefix, tmp_path):
    state = {prefix + name: value for name, value in renamed(wan().state_dict()).items()}
    check_transformer_file(write(tmp_path / "one.safetensors", state), "WanTransformer3DModel")


# Sizes.


@pytest.mark.parametrize("build", BUILDS)
def test_the_sizes_are_read_off_the_tensors(build, tmp_path):
    transformer = build()
    for original in (False, True):
        state = transformer.state_dict()
        path = write(tmp_path / "one.safetensors", renamed(state) if original else state)
        config = config_for(open_tensors(path), kind(transformer))
        assert {name: transformer.config[name] for name in config} == config


@pytest.mark.parametrize(
    ("build", "more"),
    [
        (WanTransformer3DModel, {}),
        (HunyuanVideoTransformer3DModel, {}),
        (HunyuanVideoFramepackTransformer3DModel, {"has_image_proj": True, "has_clean_x_embedder": True}),
    ],
)
def test_the_sizes_of_released_models_are_their_defaults(build, more):
    with torch.device("meta"):
        network = build(**more)
    entries = {name: Entry(tuple(t.shape), False, lambda: torch.empty(0)) for name, t in network.state_dict().items()}
    config = config_for(TensorFile(Path("nowhere/one.safetensors"), entries), kind(network))
    assert {name: network.config[name] for name in config} == config


def test_a_config_beside_the_file_is_read_and_has_to_fit(tmp_path):
    transformer = randomized(WanTransformer3DModel(**WAN | {"num_attention_heads": 2, "attention_head_dim": 20}))
    path = write(tmp_path / "one.safetensors", transformer.state_dict())
    with pytest.raises(ModelError, match=r"width 40 is none that was released.*; put the model's config.json beside"):
        load(path, transformer)
    transformer.save_config(tmp_path)
    assert same(step(load(path, transformer)), step(transformer))
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"num_layers": 3}))
    with pytest.raises(ModelError, match=r"the weights lack blocks\.2\.\S+ and \d+ more, which config.json asks for$"):
        load(path, transformer)
    (tmp_path / "config.json").write_text(json.dumps(told | {"_class_name": "AutoencoderKL"}))
    with pytest.raises(
        ModelError, match=r"config.json says AutoencoderKL, but one.safetensors beside it is read by Wan"
    ):
        load(path, transformer)


# What is wrong.


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    transformer, path = wan(), tmp_path / "one.safetensors"
    state = transformer.state_dict()
    write(path, state | {"blocks.0.mystery.weight": drawn(3)})
    with pytest.raises(ModelError, match=r"hold blocks\.0\.mystery\.weight, .* no place. There is no config.json"):
        load(path, transformer)
    write(path, {name: value for name, value in state.items() if name != "blocks.1.attn1.to_q.bias"})
    with pytest.raises(ModelError, match=r"the weights lack blocks\.1\.attn1\.to_q\.bias"):
        load(path, transformer)
    write(path, renamed(state) | {"blocks.0.attn1.to_q.bias": drawn(128)})
    with pytest.raises(ModelError, match=r"holds blocks\.0\.attn1\.to_q\.bias twice"):
        load(path, transformer)
    with pytest.raises(ModelError, match="looks like WanTransformer3DModel; expected HunyuanVideoFramepack"):
        check_transformer_file(write(path, state), "HunyuanVideoFramepackTransformer3DModel")
    with pytest.raises(ModelError, match="looks like no transformer that is known; expected Wan"):
        load(write(path, {"a": drawn(3)}), transformer)
    write(path, state)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"one\.safetensors is cut short"):
        load(path, transformer)
    (tmp_path / "one.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match="a pickle can run any program"):
        load(tmp_path / "one.ckpt", transformer)
    with pytest.raises(ModelError, match="there is no such file"):
        load(tmp_path / "nowhere.gguf", transformer)


def test_a_fused_matrix_of_another_size_is_named(tmp_path):
    state = renamed(hunyuan().state_dict())
    state["double_blocks.0.img_attn_qkv.weight"] = drawn(383, 128)
    path = write(tmp_path / "one.safetensors", state)
    with pytest.raises(ModelError, match=r"to_q\.weight is \(383, 128\) in the file"):
        load(path, hunyuan())


def test_a_single_file_is_a_part_of_a_model(tmp_path):
    row = MODELS["wan2.1-t2v-1.3b"]
    path = write(tmp_path / "one.safetensors", renamed(wan().state_dict()))
    check_model(FoundModel(row, (FoundPart(row.parts[0], path, (path,), ""),)))


# Eight bits.


def in_fp8(state, scaled="", dtype=FP8):
    """As ComfyUI's files have it: matrices of the blocks in eight bits, with or without scales."""
    out = {}
    for name, value in state.items():
        if value.ndim != 2 or "blocks" not in name or not name.endswith(".weight"):
            out[name] = value
            continue
        amax = value.abs().amax(1) if scaled == "row" else value.abs().amax()
        scale = amax / torch.finfo(dtype).max if scaled else torch.ones(())
        out[name] = (value / scale.reshape(-1, 1)).to(dtype)
        if scaled:
            out[name.replace(".weight", ".scale_weight" if scaled == "scalar" else ".weight_scale")] = scale
    return out


@pytest.mark.parametrize("dtype", [FP8, torch.float8_e5m2])
@pytest.mark.parametrize("scaled", ["", "scalar", "row"])
@pytest.mark.parametrize("build", [wan, framepack])
def test_matrices_stay_in_the_eight_bits_they_come_in(build, scaled, dtype, tmp_path):
    transformer = build()
    original = in_fp8(renamed(transformer.state_dict()), scaled, dtype)
    if scaled:
        original |= {"scaled_fp8": torch.empty(2).to(FP8), "blocks.0.ffn.0.scale_input": torch.ones(())}
    if scaled == "row":
        told = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
        quants = [name.replace(".weight_scale", ".comfy_quant") for name in original if "weight_scale" in name]
        original |= {name: told.clone() for name in quants}
    back = load(write(tmp_path / "one.safetensors", original), transformer)
    layers = [module for module in back.modules() if isinstance(module, StoredLinear)]
    assert len(layers) >= len(block_linears(transformer))  # modulation is stored too, where the file stores it
    assert all(layer.weight.dtype == dtype for layer in layers)
    state = {name: value for name, value in back.state_dict().items() if name in transformer.state_dict()}
    for name, layer in back.named_modules():
        if isinstance(layer, StoredLinear):
            state[f"{name}.weight"] = layer.form.unpack(layer, torch.float32)
    transformer.load_state_dict(state)
    assert same(step(back), step(transformer))


def test_what_is_rounded_in_the_file_is_no_further_off(tmp_path):
    transformer = wan()
    state = transformer.state_dict()
    back = load(write(tmp_path / "one.safetensors", in_fp8(state, "row")), transformer)
    for name, layer in block_linears(back).items():
        error = layer.form.unpack(layer, torch.float32) - transformer.get_submodule(name).weight
        largest = transformer.get_submodule(name).weight.abs().amax(1, keepdim=True)
        assert (error.abs() <= 2**-4 * largest).all()


def test_everything_in_float8_is_read_in_the_type_that_is_computed_in(tmp_path):
    transformer = framepack()
    path = write(tmp_path / "one.safetensors", {n: v.to(FP8) for n, v in transformer.state_dict().items()})
    back = load(path, transformer, torch.bfloat16)
    assert back.x_embedder.proj.weight.dtype == back.norm_out.linear.weight.dtype == torch.bfloat16
    assert back.transformer_blocks[0].attn.to_q.bias.dtype == torch.bfloat16
    assert step(back, torch.bfloat16).isfinite().all()


def test_eight_bit_integers_with_a_scale_are_read(tmp_path):
    transformer, state = wan(), wan().state_dict()
    name = "blocks.0.ffn.net.2.weight"
    scale = state[name].abs().amax() / 127
    state |= {name: (state[name] / scale).round().to(torch.int8), name.replace(".weight", ".weight_scale"): scale}
    back = load(write(tmp_path / "one.safetensors", state), transformer)
    assert back.blocks[0].ffn.net[2].form.name == "int8"
    assert (step(back) - step(transformer)).norm() < 0.01 * step(transformer).norm()


def test_storage_that_is_not_known_is_named(tmp_path):
    path, state = tmp_path / "one.safetensors", wan().state_dict()
    name = "blocks.0.ffn.net.2.weight"
    with pytest.raises(ModelError, match=rf"{name} is stored as U8, which is not read here: take a file in bf16"):
        load(write(path, state | {name: torch.zeros(128, 32, dtype=torch.uint8)}), wan())
    scale = {name.replace(".weight", ".weight_scale"): torch.ones(128, 4)}
    with pytest.raises(ModelError, match=rf"{name} is stored as F8_E4M3 with 512 scales"):
        load(write(path, state | {name: state[name].to(FP8)} | scale), wan())
    told = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    with pytest.raises(ModelError, match="comfy_quant says nvfp4, which is not read here"):
        load(write(path, state | {"blocks.0.ffn.net.2.comfy_quant": told}), wan())
    with pytest.raises(ModelError, match="comfy_quant does not say how"):
        load(write(path, state | {"blocks.0.ffn.net.2.comfy_quant": told[:5]}), wan())


def test_what_the_class_keeps_in_float32_is_kept(tmp_path):
    back = load(write(tmp_path / "one.safetensors", wan().state_dict()), wan(), torch.bfloat16)
    assert back.blocks[0].scale_shift_table.dtype == back.condition_embedder.time_embedder.linear_1.weight.dtype
    assert back.blocks[0].scale_shift_table.dtype == torch.float32
    assert back.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_history_weights_come_with_the_file(tmp_path):
    transformer = wan()
    transformer.history_patch_embed = randomized(Patchify(transformer.patch_embedding, [Kernel(2, 4, 4)]), seed=7)
    back = load(write(tmp_path / "one.safetensors", transformer.state_dict()), transformer)
    assert back.state_dict().keys() == transformer.state_dict().keys()
    ours, theirs = (network.history_patch_embed.proj["k2h4w4"].weight for network in (back, transformer))
    assert torch.equal(ours, theirs)


# GGUF.


def write_gguf(path, state, quant, reshaped=""):
    """As ComfyUI-GGUF's converter does: matrices quantized, vectors and what is small in full."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, value in state.items():
        data, kind = value.numpy(), gguf.GGMLQuantizationType.F32
        if value.ndim == 2 and ("block" in name or "proj_in" in name):
            kind = getattr(gguf.GGMLQuantizationType, quant)
        if name == reshaped:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(size) for size in data.shape])
            data = data.reshape(-1, 256)
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantized(path):
    reader = gguf.GGUFReader(path)
    full = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    return {name: torch.from_numpy(np.array(value)) for name, value in full.items()}


@pytest.mark.parametrize("quant", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16"])
@pytest.mark.parametrize("build", [wan, framepack])
def test_gguf_matrices_stay_packed_and_mean_what_the_package_says(build, quant, tmp_path):
    transformer = build()
    path = write_gguf(tmp_path / "one.gguf", renamed(transformer.state_dict()), quant)
    back = load(path, transformer)
    plain = write(tmp_path / "plain.safetensors", dequantized(path))
    expected = load(plain, transformer)
    assert same(step(back), step(expected))
    stored = [module for module in back.modules() if isinstance(module, StoredLinear)]
    if quant in ("BF16", "F16"):
        assert not stored
    else:
        assert len(stored) >= len(block_linears(transformer))
        assert {layer.form.name for layer in stored} == {f"gguf {quant}"}
        bits = {"Q8_0": 8.5, "Q5_1": 6, "Q5_0": 5.5, "Q4_1": 5, "Q4_0": 4.5}[quant]
        assert all(8 * m.weight.nbytes == bits * m.in_features * m.out_features for m in stored)


def test_a_gguf_of_four_bits_takes_loras_tables_and_streaming(tmp_path):
    transformer = framepack()
    path = write_gguf(tmp_path / "one.gguf", transformer.state_dict(), "Q4_0")
    back, plain = load(path, transformer), load(write(tmp_path / "p.safetensors", dequantized(path)), transformer)
    (resident,) = [profile for profile in PROFILES if profile.name == "resident"]
    ours, theirs = place(back, 100, resident), place(plain, 100, resident)
    assert ours.activations == theirs.activations
    assert ours.weights < 0.6 * theirs.weights  # of this tiny network the embedders are a large part
    lora = {}
    for number, name in enumerate(("transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.proj_out")):
        layer = transformer.get_submodule(name)
        lora[f"{name}.lora_A.weight"] = drawn(2, layer.in_features, seed=number)
        lora[f"{name}.lora_B.weight"] = drawn(layer.out_features, 2, seed=number)
    file = read_lora(write(tmp_path / "style.safetensors", lora))
    for network in (back, plain):
        apply_loras(network, [(file, 0.5)])
    expected = step(plain)
    assert same(step(back), expected)
    told = PromptInputs(drawn(1, 7, 32, seed=1), torch.ones(1, 7, dtype=torch.int64), drawn(1, 32, seed=2))
    tabulate(back, CPU, torch.tensor([500.0]), [told], torch.tensor([6000.0]))
    assert same(step(back), expected)
    size = stream_blocks(back, CPU).pinned_bytes
    assert same(step(back), expected)
    assert size < stream_blocks(plain, CPU).pinned_bytes / 3


def test_a_matrix_that_was_reshaped_to_fit_has_its_shape_again(tmp_path):
    transformer = wan()
    name = "blocks.0.ffn.net.0.proj.weight"
    path = write_gguf(tmp_path / "one.gguf", transformer.state_dict(), "Q8_0", reshaped=name)
    back = load(path, transformer)
    assert type(back.get_submodule(name.removesuffix(".weight"))) is nn.Linear
    assert torch.equal(back.state_dict()[name].flatten(), dequantized(path)[name].flatten())


def test_a_gguf_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "one.gguf", wan().state_dict(), "Q8_0")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"one\.gguf is cut short or is not a GGUF file"):
        load(path, wan())
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"which is not installed: pip install 'longtake\[gguf\]'"):
        load(path, wan())


def test_a_type_that_is_not_unpacked_is_named(tmp_path):
    path = tmp_path / "one.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    packed = np.zeros((128, 54), dtype=np.uint8)
    writer.add_tensor("patch_embedding.weight", packed, raw_dtype=gguf.GGMLQuantizationType.TQ1_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"patch_embedding\.weight is stored as TQ1_0, .* there are .*Q8_0"):
        load(path, wan())
