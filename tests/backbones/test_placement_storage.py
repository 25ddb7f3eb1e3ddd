"""Matrices in fewer bits, against the same networks of diffusers' own classes in full."""

import copy
import sys
import types

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from longtake.backbones import load_backbone
from longtake.backbones.fused import Rounded, is_plain, rounded_rows
from longtake.backbones.lora import apply_loras, read_lora, remove_loras
from longtake.backbones.placement import PROFILES, PromptInputs, place, stream_blocks, tabulate
from longtake.backbones.placement.backends import store
from longtake.backbones.placement.fp8 import COMPUTED, compute_in_fp8, computes_in_fp8, multiply_into, room_for
from longtake.backbones.placement.layout import live_tensors, settle
from longtake.backbones.placement.storage import FP8, STORAGES, StoredLinear, block_linears, store_linears
from longtake.errors import ModelError

CPU = torch.device("cpu")
STORED = [*STORAGES]
# Of a weight's rounding error to the weight, both as root mean squares, for weights drawn from a normal distribution.
#   int8  steps of amax / 127, amax about 3 sigma: 3 / 127 / sqrt(12) = 0.7 %
#   fp8   three bits after the leading one: steps of 2^-3 to 2^-4 of the weight, / sqrt(12) = 1.8 to 3.6 %
#   nf4   sixteen quantiles scaled to the largest of 64: 9 % (bitsandbytes gives 9.3 % for the same)
ERROR = {"int8": (0.004, 0.010), "fp8": (0.018, 0.036), "nf4": (0.07, 0.11)}


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def wan():
    shape = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 128, "num_layers": 3}
    return randomized(WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, freq_dim=16, **shape))


def framepack():
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=12,
        pooled_projection_dim=6,
        rope_axes_dim=(8, 12, 12),
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return randomized(transformer)


def prompt(dtype=torch.float32):
    return PromptInputs(
        drawn(1, 7, 12, seed=1, dtype=dtype), torch.ones(1, 7, dtype=torch.int64), drawn(1, 6).to(dtype)
    )


def step(transformer, dtype=torch.float32):
    """One forward of either class."""
    x, timestep = drawn(1, 4, 2, 4, 6, seed=3, dtype=dtype), torch.tensor([500.0])
    if isinstance(transformer, WanTransformer3DModel):
        given = {"encoder_hidden_states": drawn(1, 7, 16, seed=1, dtype=dtype)}
    else:
        told = prompt(dtype)
        given = {
            "encoder_hidden_states": told.text,
            "encoder_attention_mask": told.mask,
            "pooled_projections": told.pooled,
            "guidance": torch.tensor([6000.0]),
            "image_embeds": drawn(1, 3, 8, seed=4, dtype=dtype),
            "indices_latents": torch.arange(2),
            "latents_clean": drawn(1, 4, 2, 4, 6, seed=5, dtype=dtype),
            "indices_latents_clean": torch.arange(2),
            "latents_history_2x": drawn(1, 4, 2, 4, 6, seed=6, dtype=dtype),
            "indices_latents_history_2x": torch.arange(2),
            "latents_history_4x": drawn(1, 4, 4, 4, 6, seed=7, dtype=dtype),
            "indices_latents_history_4x": torch.arange(4),
        }
    with torch.no_grad():
        return transformer(x, timestep, **given, return_dict=False)[0]


def off(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def stored(build, storage):
    transformer = build()
    store_linears(transformer, storage, CPU)
    return transformer


def rounded(build, storage):
    """The network with plain layers whose matrices are what storing makes of them."""
    transformer = build()
    with torch.no_grad():
        for layer in block_linears(transformer).values():
            matrix = STORAGES[storage](layer.weight)
            layer.weight.copy_(matrix.form.unpack(StoredLinear(matrix, None), torch.float32))
    return transformer


def alone(layer):
    """A network that is this layer."""
    network = nn.Module()
    network.blocks = nn.ModuleList([nn.Sequential(layer)])
    return network


def blocks_of(transformer):
    names = ("blocks", "transformer_blocks", "single_transformer_blocks")
    return [block for name in names for block in getattr(transformer, name, ())]


@pytest.mark.parametrize("storage", STORED)
def test_a_stored_matrix_is_off_by_what_its_bits_say(storage):
    weight = drawn(96, 256)
    matrix = STORAGES[storage](weight)
    least, most = ERROR[storage]
    assert least < off(matrix.form.unpack(StoredLinear(matrix, None), torch.float32), weight) < most


@given(st.integers(1, 9), st.integers(1, 70), st.integers(-20, 20), st.sampled_from(STORED))
@settings(max_examples=60, deadline=None)
def test_any_matrix_can_be_stored_at_any_scale(rows, columns, power, storage):
    weight = drawn(rows, columns, seed=rows * 100 + columns) * 2.0**power
    weight[0] = 0
    matrix = STORAGES[storage](weight)
    again = matrix.form.unpack(StoredLinear(matrix, None), torch.float32)
    assert again.shape == weight.shape
    assert torch.equal(again[0], weight[0])
    largest = weight.abs().amax() if storage == "nf4" else weight.abs().amax(1, keepdim=True)
    assert ((again - weight).abs() <= {"int8": 0.5 / 127, "fp8": 2**-4, "nf4": 0.16}[storage] * 1.001 * largest).all()


@pytest.mark.parametrize("storage", STORED)
def test_storing_what_was_stored_changes_nothing_more(storage):
    once = STORAGES[storage](drawn(8, 64))
    full = once.form.unpack(StoredLinear(once, None), torch.float32)
    twice = STORAGES[storage](full)
    torch.testing.assert_close(twice.form.unpack(StoredLinear(twice, None), torch.float32), full, rtol=1e-6, atol=0)


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("build", [wan, framepack])
def test_the_network_computes_with_the_rounded_matrices(build, storage):
    assert torch.equal(step(stored(build, storage)), step(rounded(build, storage)))


@pytest.mark.parametrize(("storage", "bound"), [("int8", 0.015), ("fp8", 0.08), ("nf4", 0.25), ("computed", 0.11)])
@pytest.mark.parametrize("build", [wan, framepack])
def test_the_velocity_is_off_by_the_error_of_a_few_matrices(build, storage, bound):
    """The errors of a residual path's matrices are independent: a few of them add up to 2 to 3 times that of one.

    In fp8 computed, the activations have an error of the same size as the weights: another factor of the root of 2.
    """
    transformer = build()
    exact = step(transformer)
    if storage == "computed":
        compute_in_fp8(transformer, CPU)
    else:
        store_linears(transformer, storage, CPU)
    one = ERROR["fp8" if storage == "computed" else storage][0]
    assert one / 3 < off(step(transformer), exact) < bound


def test_only_the_large_layers_of_the_blocks_are_stored():
    transformer = framepack()
    count = store_linears(transformer, "int8", CPU)
    names = {name for name, module in transformer.named_modules() if isinstance(module, StoredLinear)}
    assert count == len(names) == 2 * 12 + 2 * 5
    assert all("blocks" in name and "norm" not in name and "refiner" not in name for name in names)
    plain = {name.rpartition(".")[0] for name, p in transformer.named_parameters() if p.dtype != torch.int8}
    assert {"proj_out", "norm_out.linear", "clean_x_embedder.proj", "transformer_blocks.0.norm1.linear"} <= plain
    assert "single_transformer_blocks.0.norm.linear" in plain


def test_full_storage_changes_nothing():
    transformer = wan()
    state = dict(transformer.named_parameters())
    assert store_linears(transformer, "full", CPU) == 0
    assert all(value is state[name] for name, value in transformer.named_parameters())


def test_casting_and_moving_leave_what_is_stored_alone():
    transformer = stored(wan, "fp8").to(torch.bfloat16)
    layer = transformer.blocks[0].attn1.to_q
    assert (layer.weight.dtype, layer.scale.dtype, layer.bias.dtype) == (FP8, torch.float32, torch.bfloat16)
    assert transformer.dtype == torch.bfloat16
    assert step(transformer, torch.bfloat16).dtype == torch.bfloat16
    assert transformer.to("meta").blocks[0].attn1.to_q.weight.is_meta
    assert layer.weight.dtype == FP8


def test_what_is_stored_in_fewer_bits_is_not_saved_as_if_it_were_full(tiny_backbone_folder, tmp_path):
    backbone = load_backbone(tiny_backbone_folder)
    store_linears(backbone.transformer, "int8", CPU)
    with pytest.raises(ModelError, match="stored in fewer bits are not saved: load the model in full"):
        backbone.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bias_is_kept_and_may_be_missing():
    layer = nn.Linear(64, 32, bias=False)
    network = alone(layer)
    assert store_linears(network, "int8", CPU) == 1
    assert network.blocks[0][0].bias is None
    assert off(network.blocks[0][0](drawn(3, 64)), layer(drawn(3, 64))) < 0.015


@pytest.mark.parametrize("storage", [*STORED, "computed"])
@pytest.mark.parametrize("build", [wan, framepack])
def test_stored_blocks_are_streamed_at_their_small_size(build, storage):
    transformer = build()
    full = stream_blocks(copy.deepcopy(transformer), CPU).pinned_bytes
    large = sum(layer.weight.numel() for layer in block_linears(transformer).values())
    if storage == "computed":
        compute_in_fp8(transformer, CPU)
    else:
        store_linears(transformer, storage, CPU)
    before = step(transformer)
    streaming = stream_blocks(transformer, CPU)
    assert torch.equal(step(transformer), before)
    saved = {"nf4": 4 - 0.5 - 4 / 64}.get(storage, 3)
    # Each layer has a scale, or a table of 2 KiB, too: of tiny layers these are a large part.
    extra = len(block_linears_of(transformer)) * (4096 if storage == "nf4" else 1024)
    assert full - saved * large - 1 <= streaming.pinned_bytes <= full - saved * large + extra
    streaming.remove()
    assert torch.equal(step(transformer), before)


def block_linears_of(transformer):
    return [module for module in transformer.modules() if isinstance(module, StoredLinear)]


def test_the_plan_is_made_of_a_network_without_weights():
    def built(device):
        with torch.device(device):
            shape = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 128, "num_layers": 3}
            transformer = WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, freq_dim=16, **shape)
        store_linears(transformer, "nf4", CPU)
        return transformer

    (profile,) = [profile for profile in PROFILES if profile.name == "streamed"]
    planned, real = place(built("meta"), 100, profile), place(built("cpu"), 100, profile)
    assert planned == real
    assert stream_blocks(built("cpu"), CPU).pinned_bytes == planned.pinned
    full = place(wan(), 100, profile)
    assert planned.activations == full.activations  # what is computed with is as large as before
    assert planned.pinned < full.pinned / 3


def lora_for(transformer, tmp_path):
    tensors = {}
    for number, (name, layer) in enumerate(block_linears(transformer).items()):
        tensors[f"transformer.{name}.lora_A.weight"] = drawn(3, layer.in_features, seed=number) * 0.1
        tensors[f"transformer.{name}.lora_B.weight"] = drawn(layer.out_features, 3, seed=number + 500) * 0.1
    save_file(tensors, tmp_path / "style.safetensors")
    return read_lora(tmp_path / "style.safetensors")


@pytest.mark.parametrize(("build", "storage"), [(wan, "int8"), (wan, "fp8"), (framepack, "fp8"), (framepack, "nf4")])
def test_loras_lie_over_stored_matrices_and_are_streamed_with_them(build, storage, tmp_path):
    transformer, plain = stored(build, storage), rounded(build, storage)
    lora, without = lora_for(plain, tmp_path), step(plain)
    (report,) = apply_loras(transformer, [(lora, 0.7)])
    assert not report.unmatched
    apply_loras(plain, [(lora, 0.7)])
    assert off(step(plain), without) > 0.05
    assert torch.equal(step(transformer), step(plain))
    streaming = stream_blocks(transformer, CPU)
    assert torch.equal(step(transformer), step(plain))
    streaming.remove()
    remove_loras(transformer)
    assert torch.equal(step(transformer), without)


def test_adapters_over_stored_matrices_compute_in_the_type_of_the_network(tmp_path):
    transformer = stored(wan, "fp8").to(torch.bfloat16)
    apply_loras(transformer, [(lora_for(wan(), tmp_path), 1.0)])
    assert transformer.blocks[0].attn1.to_q.lora_A["lora_0"].weight.dtype == torch.bfloat16
    assert torch.isfinite(step(transformer, torch.bfloat16)).all()


@pytest.mark.parametrize("storage", [*STORED, "computed"])
def test_tables_stand_beside_stored_matrices(storage):
    transformer = framepack()
    if storage == "computed":
        compute_in_fp8(transformer, CPU)
    else:
        store_linears(transformer, storage, CPU)
    before = step(transformer)
    tabulate(transformer, CPU, torch.tensor([500.0]), [prompt()], torch.tensor([6000.0]))
    assert torch.equal(step(transformer), before)
    stream_blocks(transformer, CPU)
    assert torch.equal(step(transformer), before)
    assert not any("norm1.linear" in name for name, _ in live_tensors(transformer))


def test_storage_comes_before_adapters_and_streaming(tmp_path):
    transformer = wan()
    streaming = stream_blocks(transformer, CPU)
    for prepare in (lambda: store_linears(transformer, "int8", CPU), lambda: compute_in_fp8(transformer, CPU)):
        with pytest.raises(ModelError, match="streamed already: choose the storage before"):
            prepare()
    streaming.remove()
    apply_loras(transformer, [(lora_for(wan(), tmp_path), 1.0)])
    with pytest.raises(ModelError, match="has adapters already: choose the storage, then apply LoRAs"):
        store_linears(transformer, "int8", CPU)


def test_computing_in_fp8_is_the_product_of_rounded_numbers():
    x, weight, bias = drawn(5, 64), drawn(32, 64, seed=1), drawn(32, seed=2)
    layer = nn.Linear(64, 32)
    layer.load_state_dict({"weight": weight, "bias": bias})
    network = alone(layer)
    compute_in_fp8(network, CPU)
    s, t = (v.abs().amax(1, keepdim=True) / 448 for v in (x, weight))
    left, right = (x / s).to(FP8).double() * s, (weight / t).to(FP8).double() * t
    ours = network.blocks[0][0](x)
    torch.testing.assert_close(ours.double(), left @ right.t() + bias, rtol=1e-5, atol=1e-5)
    if torch.__version__ >= (2, 13):  # 2.11 has no scale a row on a CPU
        # PyTorch's own kernel for it, which rounds to bfloat16: 2^-9 of the largest term.
        theirs = torch._scaled_mm((x / s).to(FP8), (weight / t).to(FP8).t(), s, t.t(), out_dtype=torch.bfloat16)
        assert off(theirs + bias, ours) < 2**-8


def in_fp8(rows, columns, dtype=torch.float32):
    network = alone(nn.Linear(columns, rows, dtype=dtype))
    compute_in_fp8(network, CPU)
    return network.blocks[0][0]


def rounded_for(layer, x):
    room = room_for([layer], x, x.shape[1])
    for empty, part in zip((room.values, room.scale), rounded_rows(x.flatten(0, 1), FP8), strict=True):
        empty.copy_(part.unflatten(0, x.shape[:2]))
    return room


def test_only_where_all_layers_compute_in_fp8_there_is_room_for_rounded_tokens():
    ours, plain, x = in_fp8(32, 64), nn.Linear(64, 32), drawn(2, 5, 64)
    assert [computes_in_fp8(layer) for layer in (ours, plain, nn.Sequential(ours))] == [True, False, False]
    room = room_for([ours, ours], x, 7)
    assert isinstance(room, Rounded)
    assert (room.shape, room.dtype) == ((2, 7, 64), torch.float32)
    assert room_for([ours, plain], x, 7).shape == (2, 7, 64)
    int8 = alone(nn.Linear(64, 32))
    store_linears(int8, "int8", CPU)
    assert not computes_in_fp8(int8.blocks[0][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_tokens_are_multiplied_as_the_layer_rounds_them(dtype):
    """Also some of them, and also into a part of what there is, with gaps between its rows or without."""
    layer, x = in_fp8(32, 64, dtype), drawn(2, 9, 64, dtype=dtype)
    whole, rounded = layer(x), rounded_for(layer, x)
    assert torch.equal(layer(rounded), whole)
    torch.testing.assert_close(layer(rounded[:, 2:7]), whole[:, 2:7])  # sums of other lengths, in another order
    for part in (torch.empty(2, 9, 32, dtype=dtype), torch.empty(2, 12, 96, dtype=dtype)[:, 3:, 32:64]):
        for tokens in (x, rounded):
            multiply_into(layer, tokens, part.zero_())
            assert torch.equal(part, whole)


def test_layers_that_are_stored_in_fp8_compute_with_the_numbers_they_have():
    first, second = stored(wan, "fp8"), stored(wan, "fp8")
    compute_in_fp8(second, CPU)
    for a, b in zip(block_linears(first).values(), block_linears(second).values(), strict=True):
        assert b.form is COMPUTED
        assert a.weight.float().equal(b.weight.float())
        assert a.scale.equal(b.scale)
    mixed = stored(wan, "int8")
    assert compute_in_fp8(mixed, CPU) == len(block_linears(mixed))
    assert off(step(mixed), step(second)) < 0.08


def test_a_network_without_layers_for_fp8_is_refused():
    odd = WanTransformer3DModel(num_attention_heads=1, attention_head_dim=20, ffn_dim=24, num_layers=1)
    with pytest.raises(ModelError, match="no layers whose sizes are multiples of 16"):
        compute_in_fp8(odd, CPU)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("build", "storage"), [(framepack, "fp8"), (framepack, "nf4"), (framepack, "computed"), (wan, "computed")]
)
def test_stored_blocks_compile_whole_and_once_a_kind(build, storage):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    transformer = build()
    if storage == "computed":
        compute_in_fp8(transformer, CPU)
    else:
        store_linears(transformer, storage, CPU)
    before = step(transformer)
    for block in blocks_of(transformer):
        block.compile(backend="aot_eager", fullgraph=True)
    # A token's number next to the middle of two fp8 numbers may be rounded to the other one.
    assert off(step(transformer), before) < 1e-2
    stream_blocks(transformer, CPU)
    assert off(step(transformer), before) < 1e-2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


@pytest.mark.gpu
def test_the_kernel_of_a_gpu_gives_the_product_of_rounded_numbers():
    device = torch.device("cuda")
    for m, i, o in ((257, 256, 512), (18485, 3072, 3072)):
        network = alone(nn.Linear(i, o, dtype=torch.bfloat16))
        x = drawn(m, i, dtype=torch.bfloat16)
        compute_in_fp8(network, CPU)
        with torch.no_grad():
            exact = network.blocks[0][0](x[:257].float())
            ours = network.to(device).blocks[0][0](x.to(device)).cpu()
        assert off(ours[:257], exact) < 2**-7  # bfloat16, and the fast kernel's sums in fewer bits


@pytest.mark.gpu
@pytest.mark.parametrize(("m", "first"), [(256, 0), (300, 5), (19470, 985)])
def test_a_product_on_a_gpu_fills_its_part_of_a_larger_tensor(m, first):
    """Rows that follow one another, beginning at any token, and rows with gaps; nothing beside them is touched."""
    layer, x = in_fp8(3072, 3072, torch.bfloat16).cuda(), drawn(1, m, 3072, dtype=torch.bfloat16).cuda()
    with torch.no_grad():
        rounded = rounded_for(layer, x)[:, first:]
        count = rounded.shape[1]
        whole = layer(x[:, first:])
        for larger in (torch.zeros(1, count + 9, 3072), torch.zeros(1, count + 9, 3 * 3072)):
            larger = larger.to(x)
            part = larger[:, 4 : count + 4, larger.shape[2] - 3072 :]
            multiply_into(layer, rounded, part)
            assert off(part, whole) < 2**-8  # another kernel may be chosen for another alignment
            assert larger.count_nonzero() == part.count_nonzero()


BACK_ENDS = ["int8:torchao", "fp8:torchao", "int8:bitsandbytes", "nf4:bitsandbytes"]


@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated without:UserWarning")  # adapters are not merged
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("storage", BACK_ENDS)
def test_another_package_stores_the_same_and_takes_loras(storage, tmp_path):
    form, _, package = storage.partition(":")
    pytest.importorskip(package)
    transformer, ours, exact = wan(), stored(wan, form), step(wan())
    assert store(transformer, storage, CPU, CPU) == len(block_linears(ours))
    # The same bits in groups of another shape; their fp8 has a scale a row as ours, their int8 too.
    assert off(step(transformer), exact) < 1.5 * off(step(ours), exact)
    lora = lora_for(wan(), tmp_path)
    for network in (transformer, ours):
        apply_loras(network, [(lora, 0.7)])
    assert off(step(transformer), step(ours)) < 3 * ERROR[form][1]
    with pytest.raises(ModelError, match="only plain tensors can be streamed"):
        stream_blocks(transformer, CPU)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("home", ["cpu", "cuda"])
@pytest.mark.parametrize("storage", BACK_ENDS)
def test_another_package_computes_on_a_gpu(storage, home):
    form, _, package = storage.partition(":")
    pytest.importorskip(package)
    layer, x, gpu = nn.Linear(256, 512), drawn(1, 40, 256, seed=1), torch.device("cuda", 0)
    home = torch.device(home, 0) if home == "cuda" else CPU
    with torch.no_grad():
        layer.weight.copy_(drawn(512, 256))
        exact = layer(x)
        network = alone(layer).to(home, torch.bfloat16)
        assert store(network, storage, home, gpu) == 1
        settle(network, gpu)
        layer = network.blocks[0][0]
        assert off(layer(x.to(gpu, torch.bfloat16)).cpu(), exact) < ERROR[form][1] + 0.01  # the tokens' own rounding


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nf4_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = drawn(32, 128)  # rows of whole groups: on a CPU theirs (0.50) takes others apart wrongly
    theirs = functional.dequantize_4bit(*functional.quantize_4bit(weight, blocksize=64, quant_type="nf4"))
    matrix = STORAGES["nf4"](weight)
    torch.testing.assert_close(matrix.form.unpack(StoredLinear(matrix, None), torch.float32), theirs)


def test_what_a_package_cannot_store_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    with pytest.raises(ModelError, match="stored in fewer bits already: torchao takes those that are not"):
        store(stored(wan, "int8"), "int8:torchao", CPU, CPU)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ModelError, match=r"pip install 'longtake\[bitsandbytes\]', or leave the storage to longtake: nf4"
    ):
        store(wan(), "nf4:bitsandbytes", CPU, CPU)


def twofold(transformer):
    """The network with the matrices of its blocks as tensors of a kind that torch itself tests with."""
    for layer in block_linears(transformer).values():
        weight = layer.weight.detach()
        layer.weight = nn.Parameter(TwoTensor(weight, weight.clone()))
    return transformer


class Traveling(nn.Linear):
    """A layer that knows what belongs to it, as bitsandbytes' do."""

    def to(self, device):
        self.went_to = device
        return super().to(device)


def test_tensors_of_another_kind_are_placed_by_their_layers():
    transformer = wan()
    for name in block_linears(transformer):
        parent, _, own = name.rpartition(".")
        setattr(transformer.get_submodule(parent), own, Traveling(64, 64))
    with torch.inference_mode():
        settle(twofold(transformer), CPU)
    assert {layer.went_to for layer in block_linears(transformer).values()} == {CPU}


def test_tensors_of_another_kind_are_neither_plain_nor_computed_in_fp8():
    layer = nn.Linear(32, 32)
    assert is_plain(layer)
    assert not is_plain(nn.Linear(32, 32, bias=False))
    layer.weight = nn.Parameter(TwoTensor(layer.weight.detach(), layer.weight.detach()))
    assert not is_plain(layer)
    with pytest.raises(ModelError, match="stored by another package, which computes with them: leave out fp8"):
        compute_in_fp8(twofold(framepack()), CPU)
