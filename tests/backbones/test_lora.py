"""LoRAs in the real classes at tiny size, against weights merged by hand and against diffusers' own converters."""

import copy
import warnings
from collections import Counter

import pytest
import torch
from diffusers.loaders.lora_pipeline import HunyuanVideoLoraLoaderMixin, WanLoraLoaderMixin
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from longtake.backbones.lora import apply_loras, read_lora, remove_loras
from longtake.backbones.names import places
from longtake.backbones.seams import install_seams
from longtake.backbones.wan import SEAMS, rope_axes, velocity
from longtake.errors import ModelError
from longtake.packing import History, Patchify, pack
from longtake.plan import Look, Section
from longtake.schedule import Kernel

RANK, ALPHA = 3, 2.0
CLOSE = 1e-4  # of the outputs' spread, in float32: (W + d) x and W x + d x are summed in another order, in every layer


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def hunyuan():
    return randomized(
        HunyuanVideoFramepackTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=2,
            num_single_layers=2,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=16,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
            has_clean_x_embedder=True,
            has_image_proj=True,
            image_proj_dim=12,
        )
    )


def wan():
    return randomized(
        WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=10,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=24,
            num_layers=2,
            image_dim=12,
            added_kv_proj_dim=20,
        )
    )


MODELS = {"hunyuan": hunyuan, "wan": wan}


def predicted(model):
    with torch.no_grad():
        if isinstance(model, WanTransformer3DModel):
            # Wan takes the last 512 tokens for text, what stands before them for an image.
            text, image = drawn(1, 512, 16, seed=2), drawn(1, 5, 12, seed=3)
            return model(drawn(1, 4, 2, 4, 4, seed=1), torch.tensor([500.0]), text, image, return_dict=False)[0]
        history = {
            "latents_clean": drawn(1, 4, 2, 4, 4, seed=5),
            "indices_latents_clean": torch.tensor([0, 4]),
            "latents_history_2x": drawn(1, 4, 2, 4, 4, seed=6),
            "indices_latents_history_2x": torch.tensor([5, 6]),
            "latents_history_4x": drawn(1, 4, 4, 4, 4, seed=7),
            "indices_latents_history_4x": torch.tensor([7, 8, 9, 10]),
        }
        return model(
            hidden_states=drawn(1, 4, 2, 4, 4, seed=1),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=drawn(1, 7, 16, seed=2),
            encoder_attention_mask=torch.ones(1, 7, dtype=torch.bool),
            pooled_projections=drawn(1, 8, seed=3),
            image_embeds=drawn(1, 5, 12, seed=4),
            indices_latents=torch.tensor([1, 2]),
            guidance=torch.tensor([6000.0]),
            return_dict=False,
            **history,
        )[0]


def own_names(model):
    return {n: (n,) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv3d)}


def hunyuan_names():
    """Names of the original HunyuanVideo, most of them, written out."""
    names = {"img_in.proj": ("x_embedder.proj",), "final_layer.linear": ("proj_out",)}
    for n in range(2):
        double, single = f"transformer_blocks.{n}", f"single_transformer_blocks.{n}"
        names |= {
            f"double_blocks.{n}.img_attn_qkv": tuple(f"{double}.attn.to_{x}" for x in "qkv"),
            f"double_blocks.{n}.txt_attn_qkv": tuple(f"{double}.attn.add_{x}_proj" for x in "qkv"),
            f"double_blocks.{n}.img_attn_proj": (f"{double}.attn.to_out.0",),
            f"double_blocks.{n}.txt_attn_proj": (f"{double}.attn.to_add_out",),
            f"double_blocks.{n}.img_mod.linear": (f"{double}.norm1.linear",),
            f"double_blocks.{n}.txt_mod.linear": (f"{double}.norm1_context.linear",),
            f"double_blocks.{n}.img_mlp.fc1": (f"{double}.ff.net.0.proj",),
            f"double_blocks.{n}.txt_mlp.fc2": (f"{double}.ff_context.net.2",),
            f"single_blocks.{n}.linear1": (*(f"{single}.attn.to_{x}" for x in "qkv"), f"{single}.proj_mlp"),
            f"single_blocks.{n}.linear2": (f"{single}.proj_out",),
            f"single_blocks.{n}.modulation.linear": (f"{single}.norm.linear",),
        }
    refiner = "context_embedder.token_refiner.refiner_blocks.0"
    names |= {"txt_in.individual_token_refiner.blocks.0.self_attn_qkv": tuple(f"{refiner}.attn.to_{x}" for x in "qkv")}
    return names | {"txt_in.individual_token_refiner.blocks.0.mlp.fc1": (f"{refiner}.ff.net.0.proj",)}


def wan_names():
    """Names of the original Wan blocks, written out."""
    names = {}
    for n in range(2):
        for kind, here in (("self_attn", "attn1"), ("cross_attn", "attn2")):
            names |= {f"blocks.{n}.{kind}.{x}": (f"blocks.{n}.{here}.to_{x}",) for x in "qkv"}
            names |= {f"blocks.{n}.{kind}.o": (f"blocks.{n}.{here}.to_out.0",)}
        names |= {f"blocks.{n}.cross_attn.{x}_img": (f"blocks.{n}.attn2.add_{x}_proj",) for x in "kv"}
        names |= {f"blocks.{n}.ffn.0": (f"blocks.{n}.ffn.net.0.proj",), f"blocks.{n}.ffn.2": (f"blocks.{n}.ffn.net.2",)}
    return names


def drawn_lora(model, names, seed=10, rank=RANK):
    """For every name in a file: the layers that share it, and the halves of what is added to them."""
    lora = {}
    for k, (name, layers) in enumerate(names.items()):
        weights = [model.get_submodule(layer).weight for layer in layers]
        inner, rows = weights[0].shape[1:], sum(len(w) for w in weights)
        ones = (1,) * (weights[0].ndim - 2)
        down = 0.3 * drawn(rank, *inner, seed=seed + 2 * k)
        lora[name] = (layers, down, 0.3 * drawn(rows, rank, *ones, seed=seed + 2 * k + 1))
    return lora


def write(path, lora, form="{}", parts=("lora_A", "lora_B"), alpha=None, **others):
    tensors = dict(others)
    for name, (_, down, up) in lora.items():
        name = form.format(name.replace(".", "_") if form.startswith("lora_unet_") else name)
        tensors |= {f"{name}.{parts[0]}.weight": down, f"{name}.{parts[1]}.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def merge(model, lora, scale):
    """Adds scale * up @ down to the weights themselves."""
    for layers, down, up in lora.values():
        change = (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
        with torch.no_grad():
            weights = [model.get_submodule(layer).weight for layer in layers]
            for weight, part in zip(weights, change.split([len(w) for w in weights]), strict=True):
                weight += scale * part.to(weight.dtype)
    return model


def off(ours, expected):
    """The largest difference, as a share of the expected values' spread."""
    return ((ours - expected).abs().max() / expected.std()).item()


PEFT, KOHYA = ("lora_A", "lora_B"), ("lora_down", "lora_up")
NAMINGS = {
    "diffusers": ("own", "transformer.{}", PEFT, None),
    "peft": ("own", "base_model.model.{}", PEFT, None),
    "bare": ("own", "{}", KOHYA, ALPHA),
    "musubi": ("own", "lora_unet_{}", KOHYA, ALPHA),
    "original": ("original", "diffusion_model.{}", PEFT, None),
    "original with alpha": ("original", "transformer.{}", KOHYA, ALPHA),
    "original, flattened": ("original", "lora_unet_{}", KOHYA, ALPHA),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_adds_what_a_merge_by_hand_would(kind, naming, tmp_path):
    whose, form, parts, alpha = NAMINGS[naming]
    model = MODELS[kind]()
    original = hunyuan_names() if kind == "hunyuan" else wan_names()
    lora = drawn_lora(model, own_names(model) if whose == "own" else original)
    file = read_lora(write(tmp_path / "style.safetensors", lora, form, parts, alpha))
    expected = predicted(merge(copy.deepcopy(model), lora, 0.7 * (1.0 if alpha is None else alpha / RANK)))
    assert off(predicted(model), expected) > 0.05
    (report,) = apply_loras(model, [(file, 0.7)])
    assert off(predicted(model), expected) < CLOSE
    assert set(report.matched) == set(file.keys)
    assert not report.unmatched
    assert not report.zero


@pytest.mark.parametrize("kind", MODELS)
def test_several_at_once_each_with_its_weight_and_its_ranks(kind, tmp_path):
    model = MODELS[kind]()
    every = own_names(model)
    first = drawn_lora(model, dict(list(every.items())[::2])) | drawn_lora(model, dict(list(every.items())[:1]), rank=5)
    second = drawn_lora(model, hunyuan_names() if kind == "hunyuan" else wan_names(), seed=99, rank=2)
    files = [
        read_lora(write(tmp_path / "one.safetensors", first, "transformer.{}")),
        read_lora(write(tmp_path / "two.safetensors", second, "lora_unet_{}", KOHYA, 1.0)),
    ]
    expected = predicted(merge(merge(copy.deepcopy(model), first, 0.8), second, -0.6 * 1.0 / 2))
    apply_loras(model, [(files[1], 3.0)])  # replaced by what comes
    apply_loras(model, [(files[0], 0.8), (files[1], -0.6)])
    assert off(predicted(model), expected) < CLOSE


@pytest.mark.parametrize("form", ["diffusion_model.{}", "lora_unet_{}"])
def test_original_wan_names_mean_what_diffusers_takes_them_for(form, tmp_path):
    model = wan()
    path = write(tmp_path / "style.safetensors", drawn_lora(model, wan_names()), form, KOHYA, ALPHA)
    theirs = copy.deepcopy(model)
    theirs.load_lora_adapter(WanLoraLoaderMixin.lora_state_dict(load_file(path)), prefix="transformer")
    apply_loras(model, [(read_lora(path), 1.0)])
    expected = predicted(theirs)
    assert off(predicted(model), expected) < CLOSE


def test_original_hunyuan_names_mean_what_diffusers_takes_them_for(tmp_path):
    model = hunyuan()
    # Its converter knows single blocks of width 3072 only, and splits both halves of the refiner's fused layers.
    names = {n: layers for n, layers in hunyuan_names().items() if not n.startswith(("single", "txt_in.individual"))}
    others = {
        "txt_in.input_embedder": ("context_embedder.proj_in",),
        "txt_in.c_embedder.linear_1": ("context_embedder.time_text_embed.text_embedder.linear_1",),
        "txt_in.t_embedder.mlp.2": ("context_embedder.time_text_embed.timestep_embedder.linear_2",),
        "time_in.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "guidance_in.mlp.2": ("time_text_embed.guidance_embedder.linear_2",),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    }
    path = write(tmp_path / "style.safetensors", drawn_lora(model, names | others), "{}")
    theirs = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its targets, by suffix, are more than its layers
        theirs.load_lora_adapter(HunyuanVideoLoraLoaderMixin.lora_state_dict(load_file(path)), prefix="transformer")
    apply_loras(model, [(read_lora(path), 1.0)])
    expected = predicted(theirs)
    assert off(predicted(model), expected) < CLOSE


def test_the_last_modulation_of_the_original_hunyuan_has_its_halves_the_other_way_round(tmp_path):
    model = hunyuan()
    own = drawn_lora(model, {"norm_out.linear": ("norm_out.linear",)})
    ((layers, down, up),) = own.values()
    original = {"final_layer.adaLN_modulation.1": (layers, down, torch.cat([up[20:], up[:20]]))}
    apply_loras(model, [(read_lora(write(tmp_path / "a.safetensors", original)), 1.0)])
    expected = predicted(merge(hunyuan(), own, 1.0))
    assert off(predicted(model), expected) < CLOSE


def helios():
    return HeliosTransformer3DModel(num_attention_heads=2, attention_head_dim=20, ffn_dim=24, num_layers=2)


def test_helios_is_called_what_wan_is():
    ours, theirs = places(own_names(helios())), places(own_names(wan()))
    blocks = {name for name in theirs if name.startswith("blocks") and "img" not in name and "add_" not in name}
    assert {name: ours[name] for name in blocks} == {name: theirs[name] for name in blocks}


@pytest.mark.parametrize("build", [hunyuan, wan, helios])
def test_no_two_layers_share_a_name(build):
    layers = own_names(build())
    found = places(layers)
    flat = {}
    for name, place in found.items():
        assert flat.setdefault(name.replace(".", "_"), place) == place
    originals = [place.layers for name, place in found.items() if "." in name and name not in layers]
    assert max(Counter(originals).values()) <= 2  # its publisher's name, and ComfyUI's for HunyuanVideo


@pytest.mark.parametrize("kind", MODELS)
def test_without_its_loras_a_model_is_what_it_was(kind, tmp_path):
    model = MODELS[kind]()
    model.proj_out.requires_grad_(False)
    before, keys = predicted(model), list(model.state_dict())
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    file = read_lora(write(tmp_path / "style.safetensors", drawn_lora(model, own_names(model))))
    apply_loras(model, [(file, 1.0), (file, 0.5)])
    assert not torch.equal(predicted(model), before)
    assert not [n for n, p in model.named_parameters() if p.requires_grad and ".lora_" in n]
    remove_loras(model)
    assert torch.equal(predicted(model), before)
    assert list(model.state_dict()) == keys
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trainable


FOREIGN = {
    "lora_te1_text_model_encoder_layers_0.lora_down.weight": torch.ones(2, 4),
    "blocks.0.attn1.norm_q.diff": torch.ones(20),
    "blocks.0.attn1.to_q.dora_scale": torch.ones(20, 1),
    "blocks.0.ffn.net.2.lokr_w1": torch.ones(4, 4),
    "transformer_2.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 20),
    "transformer_2.blocks.0.attn1.to_q.lora_B.weight": torch.ones(20, 2),
    "blocks.9.attn1.to_q.lora_A.weight": torch.ones(2, 20),
    "blocks.9.attn1.to_q.lora_B.weight": torch.ones(20, 2),
    "blocks.1.attn1.to_v.lora_A.weight": torch.ones(2, 20),
    "blocks.1.attn1.to_k.alpha": torch.tensor(1.0),
}


@settings(max_examples=25, deadline=None)
@given(
    layers=st.sets(st.sampled_from([*wan_names(), "time_projection.1", "head.head"]), min_size=1, max_size=6),
    zeros=st.sets(st.integers(0, 5)),
    foreign=st.sets(st.sampled_from(sorted(FOREIGN)), max_size=6),
    alpha=st.sampled_from([None, 2.0]),
)
def test_every_tensor_of_a_file_is_accounted_for_once(tmp_path_factory, layers, zeros, foreign, alpha):
    model = wan()
    names = {name: places(own_names(model))[name].layers for name in sorted(layers)}
    lora = drawn_lora(model, names)
    for k, name in enumerate(lora):
        if k in zeros:
            lora[name][1 + k % 2].zero_()
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    file = read_lora(write(path, lora, "{}", PEFT, alpha, **{key: FOREIGN[key] for key in foreign}))
    (report,) = apply_loras(model, [(file, 1.0)])
    assert sorted([*report.matched, *report.unmatched, *report.zero]) == sorted(load_file(path))
    assert foreign <= set(report.unmatched)
    nothing = {name for k, name in enumerate(lora) if k in zeros}
    assert {key.rsplit(".lora_", 1)[0] for key in report.zero if ".lora_" in key} == nothing


def test_layers_without_effect_are_told_and_left_alone(tmp_path):
    model = wan()
    lora = drawn_lora(model, {n: (n,) for n in ("blocks.0.attn1.to_q", "blocks.1.attn1.to_q", "proj_out")})
    lora["blocks.0.attn1.to_q"][2].zero_()
    lora["proj_out"][1].zero_()
    (report,) = apply_loras(model, [(read_lora(write(tmp_path / "style.safetensors", lora)), 0.5)])
    assert {key.rsplit(".lora_", 1)[0] for key in report.zero} == {"blocks.0.attn1.to_q", "proj_out"}
    assert type(model.proj_out) is nn.Linear
    assert str(report).splitlines() == [
        "style.safetensors at 0.5 (Wan, diffusers' names): 2 of 6 tensors applied",
        "  4 have no effect: blocks.0.attn1.to_q.lora_A.weight, blocks.0.attn1.to_q.lora_B.weight, "
        "proj_out.lora_A.weight, ...",
    ]


def test_a_file_of_zeros_changes_nothing(tmp_path):
    model = wan()
    before = predicted(model)
    lora = drawn_lora(model, {"proj_out": ("proj_out",)})
    (report,) = apply_loras(model, [(read_lora(write(tmp_path / "a.safetensors", lora, alpha=0.0)), 1.0)])
    assert len(report.zero) == 3
    assert torch.equal(predicted(model), before)


def test_biases_are_added_scaled_or_not_as_their_names_say(tmp_path):
    model = wan()
    lora = drawn_lora(model, {n: (n,) for n in ("blocks.0.ffn.0", "proj_out", "patch_embedding")} | wan_names(), seed=4)
    lora = {n: v for n, v in lora.items() if n in ("proj_out", "patch_embedding", "blocks.1.ffn.2")}
    scaled, plain = drawn(20, seed=70), drawn(20, seed=71)
    biases = {"patch_embedding.lora_B.bias": scaled, "blocks.1.ffn.2.diff_b": plain}
    expected = merge(wan(), lora, 0.5 * ALPHA / RANK)
    with torch.no_grad():
        expected.patch_embedding.bias += 0.5 * ALPHA / RANK * scaled
        expected.blocks[1].ffn.net[2].bias += 0.5 * plain
    file = read_lora(write(tmp_path / "style.safetensors", lora, "{}", PEFT, ALPHA, **biases))
    (report,) = apply_loras(model, [(file, 0.5)])
    assert not report.unmatched
    expected = predicted(expected)
    assert off(predicted(model), expected) < CLOSE


def test_a_lora_of_another_model_is_refused_by_name(tmp_path):
    video, film = hunyuan(), wan()
    file = read_lora(write(tmp_path / "a.safetensors", drawn_lora(video, hunyuan_names()), "lora_unet_{}", KOHYA, 1.0))
    with pytest.raises(ModelError, match=r"none of its 78 tensors fits.*looks like HunyuanVideo, original names, fl"):
        apply_loras(film, [(file, 1.0)])
    image = {"lora_unet_down_blocks_0_attentions_0_to_q": ((), torch.ones(2, 4), torch.ones(4, 2))}
    file = read_lora(write(tmp_path / "b.safetensors", image))
    with pytest.raises(ModelError, match=r"Stable Diffusion, flattened; the model is a HunyuanVideoFramepackTrans"):
        apply_loras(video, [(file, 1.0)])


def test_a_lora_of_another_size_is_refused_before_the_model_is_touched(tmp_path):
    model = hunyuan()
    before = predicted(model)
    good = read_lora(write(tmp_path / "good.safetensors", drawn_lora(model, hunyuan_names())))
    wide = {"double_blocks.0.img_attn_qkv": ((), torch.ones(2, 24), torch.ones(72, 2))}
    bad = read_lora(write(tmp_path / "wide.safetensors", wide))
    with pytest.raises(
        ModelError, match=r"another model: double_blocks.0.img_attn_qkv.* of \(72, 24\).* has \(60, 20\)"
    ):
        apply_loras(model, [(good, 1.0), (bad, 1.0)])
    assert torch.equal(predicted(model), before)


def test_a_layer_that_is_changed_twice_is_refused(tmp_path):
    model = wan()
    names = {"blocks.0.attn1.to_q": ("blocks.0.attn1.to_q",), "blocks.0.self_attn.q": ("blocks.0.attn1.to_q",)}
    file = read_lora(write(tmp_path / "twice.safetensors", drawn_lora(model, names)))
    with pytest.raises(ModelError, match=r"changes blocks.0.attn1.to_q twice"):
        apply_loras(model, [(file, 1.0)])


def test_a_lora_of_another_kind_is_not_applied_in_part(tmp_path):
    model = wan()
    lora = drawn_lora(model, {"proj_out": ("proj_out",), "blocks.0.attn1.to_q": ("blocks.0.attn1.to_q",)})
    others = {"proj_out.lora_magnitude_vector.weight": torch.ones(16)}
    (report,) = apply_loras(model, [(read_lora(write(tmp_path / "dora.safetensors", lora, **others)), 1.0)])
    assert {key.partition(".lora_")[0] for key in report.unmatched} == {"proj_out"}
    assert len(report.unmatched) == 3
    assert type(model.proj_out) is nn.Linear


SECTION = Section(
    index=1,
    frames=(3, 4),
    positions=(3, 4),
    sees=(Look((0,), Kernel(1, 2, 2), (0,)), Look((1, 2), Kernel(2, 4, 4), (1, 2))),
)


def packed_velocity(model, seams):
    history = History()
    history.remember(range(3), drawn(1, 4, 3, 4, 4, seed=8))
    with torch.no_grad():
        packed = pack(SECTION, history, model.history_patch_embed, rope_axes(model))
        return velocity(model, seams, drawn(1, 4, 2, 4, 4), torch.tensor([0.5]), drawn(1, 512, 16, seed=2), packed)


def packable():
    model = randomized(WanTransformer3DModel(**{**dict(wan().config), "image_dim": None, "added_kv_proj_dim": None}))
    model.history_patch_embed = Patchify(model.patch_embedding, [Kernel(1, 2, 2), Kernel(2, 4, 4)])
    return model


def test_seams_are_installed_around_loras_and_stay_when_these_go(tmp_path):
    model = packable()
    lora = drawn_lora(model, own_names(model))
    file = read_lora(write(tmp_path / "style.safetensors", lora))
    bare = packable()
    before = packed_velocity(bare, install_seams(bare, SEAMS))
    other = merge(packable(), lora, 1.0)
    expected = packed_velocity(other, install_seams(other, SEAMS))
    apply_loras(model, [(file, 1.0)])
    seams = install_seams(model, SEAMS)
    assert off(packed_velocity(model, seams), expected) < CLOSE
    remove_loras(model)
    assert torch.equal(packed_velocity(model, seams), before)
    apply_loras(model, [(file, 1.0)])
    assert off(packed_velocity(model, seams), expected) < CLOSE


def test_a_layer_with_a_seam_on_it_is_not_wrapped(tmp_path):
    model = packable()
    install_seams(model, SEAMS)
    for layer in ("patch_embedding", "proj_out"):
        file = read_lora(write(tmp_path / "a.safetensors", drawn_lora(model, {layer: (layer,)})))
        with pytest.raises(ModelError, match=f"{layer}, on which hooks are installed; apply LoRAs before"):
            apply_loras(model, [(file, 1.0)])


def test_adapters_of_weights_stored_in_eight_bits_stay_whole(tmp_path):
    model = wan()
    lora = drawn_lora(model, own_names(model))
    file = read_lora(write(tmp_path / "style.safetensors", lora))
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    rounded = wan()
    for name, module in rounded.named_modules():
        stored = model.get_submodule(name)
        if isinstance(module, nn.Linear | nn.Conv3d) and stored.weight.dtype == torch.float8_e4m3fn:
            module.to(torch.float8_e4m3fn).to(torch.float32)
    expected = predicted(merge(rounded, lora, 1.0))
    apply_loras(model, [(file, 1.0)])
    assert model.blocks[0].attn1.to_q.base_layer.weight.dtype == torch.float8_e4m3fn
    assert model.blocks[0].attn1.to_q.lora_A["lora_0"].weight.dtype == torch.float32
    assert off(predicted(model), expected) < CLOSE


def test_adapters_compute_in_the_dtype_of_their_layer(tmp_path):
    model = wan().to(torch.bfloat16)
    model.condition_embedder.time_embedder.float()
    file = read_lora(write(tmp_path / "style.safetensors", drawn_lora(model, own_names(model))))
    apply_loras(model, [(file, 1.0)])
    assert model.blocks[0].attn1.to_q.lora_B["lora_0"].weight.dtype == torch.bfloat16
    assert model.condition_embedder.time_embedder.linear_1.lora_B["lora_0"].weight.dtype == torch.float32
