"""Fused blocks: the function of diffusers' blocks, whatever is put around them."""

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from peft import LoraConfig

from longtake.backbones import fused
from longtake.backbones.hunyuan.blocks import _together, fuse_blocks
from longtake.backbones.hunyuan.network import install
from longtake.backbones.placement import PromptInputs, stream_blocks, tabulate
from longtake.packing import Packed

ROUNDING = 1e-6  # of outputs near one: diffusers norms and turns queries and keys in float32, whatever their type
CPU = torch.device("cpu")


def new_transformer(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
            num_single_layers=2, num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=12, pooled_projection_dim=8,
            rope_axes_dim=(4, 6, 6), guidance_embeds=True,
        )  # fmt: skip
        for name, parameter in transformer.named_parameters():
            if "norm" in name and parameter.ndim == 1:  # norms that do something
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return transformer.eval().to(dtype)


def fuse(transformer):
    fuse_blocks(transformer, install(transformer))


def inputs(batch=1, dtype=torch.float64):
    torch.manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, 4, 2, 6, 8, dtype=dtype),
        "timestep": torch.full((batch,), 600.0),
        "encoder_hidden_states": torch.randn(batch, 5, 12, dtype=dtype),
        "encoder_attention_mask": torch.ones(batch, 5, dtype=torch.bool),
        "pooled_projections": torch.randn(batch, 8, dtype=dtype),
        "guidance": torch.full((batch,), 6000.0),
    }


@torch.no_grad()
def step(transformer, **options):
    return transformer(**inputs(**options), return_dict=False)[0]


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("batch", [1, 2])
def test_fused_blocks_are_the_blocks(batch):
    transformer = new_transformer()
    before = step(transformer, batch=batch)
    fuse(transformer)
    assert 0.0 < difference(step(transformer, batch=batch), before) < ROUNDING


def test_a_mask_still_hides_words():
    transformer, given = new_transformer(), inputs()
    given["encoder_attention_mask"][:, 3:] = False
    with torch.no_grad():
        (before,) = transformer(**given, return_dict=False)
        fuse(transformer)
        (after,) = transformer(**given, return_dict=False)
    assert difference(after, before) < ROUNDING
    assert difference(after, step(transformer)) > 1e-3


def test_twice_is_once():
    transformer = new_transformer()
    seams = install(transformer)
    fuse_blocks(transformer, seams)
    once = transformer.transformer_blocks[0].forward
    fuse_blocks(transformer, seams)
    assert transformer.transformer_blocks[0].forward is once


def test_bfloat16_is_not_less_exact_fused():
    exact = step(new_transformer())
    transformer = new_transformer(torch.bfloat16)
    errors = [(step(transformer, dtype=torch.bfloat16) - exact).square().mean().sqrt().item()]
    fuse(transformer)
    errors.append((step(transformer, dtype=torch.bfloat16) - exact).square().mean().sqrt().item())
    assert errors[1] < 1.1 * errors[0]  # two draws of the same rounding: they differ by some percent


def test_weights_lie_together_until_they_are_moved():
    transformer = new_transformer()
    fuse(transformer)
    attn = transformer.transformer_blocks[1].attn
    linears = [attn.to_q, attn.to_k, attn.to_v]
    assert torch.equal(_together(linears), torch.cat([linear.weight for linear in linears]))
    before = step(transformer)
    attn.to_k.weight.data = attn.to_k.weight.data.clone()
    assert _together(linears) is None
    assert difference(step(transformer), before) < ROUNDING


def test_weights_that_will_be_streamed_stay_where_they_are():
    transformer = new_transformer()
    before = {name: parameter.data_ptr() for name, parameter in transformer.named_parameters()}
    fuse_blocks(transformer, install(transformer), together=False)
    assert {name: parameter.data_ptr() for name, parameter in transformer.named_parameters()} == before


@pytest.mark.parametrize("batch", [1, 2])
def test_what_nothing_sees_after_the_last_block_is_not_computed(batch):
    """Three tokens of history: the noisy ones are as before, and the last block's products are of them alone."""
    transformer = new_transformer()
    seams, given = install(transformer), inputs(batch)
    cos, sin = transformer.rope(given["hidden_states"])
    tokens = torch.randn(batch, 3, 32, dtype=torch.float64)
    packed = Packed(tokens, cos[:3].flip(0), sin[:3].flip(0), cos, sin, torch.zeros(batch, 3))
    with torch.no_grad(), seams.use(packed):
        (before,) = transformer(**given, return_dict=False)
        fuse_blocks(transformer, seams)
        rows = []
        handle = transformer.single_transformer_blocks[-1].proj_mlp.register_forward_hook(
            lambda module, inputs, output: rows.append(output.shape[1])
        )
        (after,) = transformer(**given, return_dict=False)
        handle.remove()
    assert rows == [len(cos)]
    assert difference(after, before) < ROUNDING


def test_gradients_come_from_the_blocks_of_diffusers():
    transformer, plain = new_transformer(), new_transformer()
    fuse(transformer)
    for network in (transformer, plain):
        network(**inputs(), return_dict=False)[0].square().mean().backward()
    for ours, theirs in zip(transformer.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("first", [True, False], ids=["fused-first", "adapter-first"])
def test_adapters_reach_every_layer(first):
    transformer, plain = new_transformer(), new_transformer()
    names = ["to_q", "to_k", "add_v_proj", "to_out.0", "proj_mlp", "proj_out", "net.0.proj", "net.2", "norm.linear"]
    seams = install(transformer)
    if first:
        fuse_blocks(transformer, seams)
    for network in (transformer, plain):
        torch.manual_seed(2)
        network.add_adapter(LoraConfig(r=2, target_modules=names, init_lora_weights=False))
        network.to(torch.float64)
    fuse_blocks(transformer, seams)
    assert difference(step(transformer), step(plain)) < ROUNDING
    plain.disable_adapters()
    assert difference(step(transformer), step(plain)) > 1e-4


def test_tables_and_streaming_lie_around_fused_blocks():
    transformer = new_transformer()
    before = step(transformer)
    fuse(transformer)
    given = inputs()
    told = PromptInputs(given["encoder_hidden_states"], given["encoder_attention_mask"], given["pooled_projections"])
    tables = tabulate(transformer, CPU, given["timestep"], [told], given["guidance"])
    streaming = stream_blocks(transformer, CPU)
    assert difference(step(transformer), before) < ROUNDING
    assert streaming.fetches >= 4
    streaming.remove()
    tables.remove()
    assert difference(step(transformer), before) < ROUNDING


def test_a_step_cache_skips_fused_blocks():
    transformer = new_transformer()
    fuse(transformer)
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with transformer.cache_context("cond"):
        first, again = step(transformer), step(transformer)
    assert difference(first, again) < ROUNDING


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_are_the_formulas(dtype):
    """Each kernel against the formula in float64, on parts of larger tensors."""
    torch.manual_seed(0)
    near = {torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    x, y = (torch.randn(2, 9, 96, device="cuda", dtype=dtype)[:, 1:8] for _ in range(2))
    gate, scale, shift = torch.randn(2, 3 * 96, device="cuda", dtype=dtype).chunk(3, dim=1)
    exact = [part.cpu().double() for part in (x, y, gate, scale, shift)]
    made = fused.gated_sum_norm(x, y, gate, scale, shift, 1e-6)
    for ours, theirs in zip(made, fused.gated_sum_norm(*exact, 1e-6), strict=True):
        assert difference(ours.cpu().double(), theirs) < near * 4
    assert difference(fused.gated_sum(x, y, gate).cpu().double(), fused.gated_sum(*exact[:3])) < near
    heads, phases = torch.randn(2, 9, 3, 16, device="cuda", dtype=dtype), torch.randn(2, 5, 16, device="cuda")
    weight, double = torch.randn(16, device="cuda", dtype=dtype), heads.cpu().double()
    fused.rotate_normed(heads, weight, 1e-6, *phases)
    fused.rotate_normed(double, weight.cpu().double(), 1e-6, *phases.cpu().double())
    assert difference(heads.cpu().double(), double) < near * 4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [96, 3072, 15360])
def test_the_kernel_rounds_rows_as_the_formula(dtype, width):
    rows = torch.randn(5, 2 * width, device="cuda", dtype=dtype)[:, :width]
    rows *= torch.tensor([[1.0], [100.0], [1e-3], [0.0], [3.0]], device="cuda")
    ours, by = fused.rounded_rows(rows, 448.0, torch.float8_e4m3fn)
    theirs, divisor = fused.rounded_rows(rows.cpu(), 448.0, torch.float8_e4m3fn)
    assert torch.equal(by.cpu(), divisor)
    assert torch.equal(ours.cpu().float(), theirs.float())
