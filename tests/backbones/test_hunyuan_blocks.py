"""Fused blocks: the function of diffusers' blocks, whatever is put around them."""

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from peft import LoraConfig
from torch.nn.functional import gelu

from longtake.backbones import fused
from longtake.backbones.hunyuan import blocks
from longtake.backbones.hunyuan.blocks import _together, fuse_blocks
from longtake.backbones.hunyuan.network import install
from longtake.backbones.placement import PromptInputs, compute_in_fp8, stream_blocks, tabulate
from longtake.backbones.placement.storage import FP8, block_linears
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
        "hidden_states": torch.randn(batch, 4, 2, 6, 8, dtype=torch.float64).to(dtype),
        "timestep": torch.full((batch,), 600.0),
        "encoder_hidden_states": torch.randn(batch, 5, 12, dtype=torch.float64).to(dtype),
        "encoder_attention_mask": torch.ones(batch, 5, dtype=torch.bool),
        "pooled_projections": torch.randn(batch, 8, dtype=torch.float64).to(dtype),
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


def rounded_room(b, n, d, device="cpu"):
    values, scale = torch.empty(b, n, d, dtype=FP8, device=device), torch.empty(b, n, 1, device=device)
    return fused.Rounded(values, scale, torch.float32)


def behind(module):
    """The layer as part of another module, which takes no rounded tokens, as one with adapters takes none."""
    return torch.nn.Sequential(module)


@torch.no_grad()
def step_behind(transformer, history, fusing=False, device=CPU, dtype=torch.float64):
    """One step with so many tokens of history before the noisy ones, which the last block leaves out if it is fused."""
    seams = install(transformer)
    given = {name: value.to(device) for name, value in inputs(dtype=dtype).items()}
    if fusing:
        fuse_blocks(transformer, seams)
    if not history:
        return transformer(**given, return_dict=False)[0]
    cos, sin = transformer.rope(given["hidden_states"])
    tokens = torch.randn(1, history, 32, dtype=torch.float64).to(device, dtype)
    phases = cos[:history].flip(0), sin[:history].flip(0), cos, sin
    with seams.use(Packed(tokens, *phases, torch.zeros(1, history, device=device))):
        return transformer(**given, return_dict=False)[0]


@pytest.mark.parametrize("history", [0, 3])
def test_kernels_are_given_tokens_whose_numbers_lie_together(monkeypatch, history):
    """A patch embedding's do not, and without history nothing is joined to them: kernels would refuse."""
    norm, steps = blocks.modulated_norm, []

    def watched(x, *rest):
        steps.append(x.stride(2))
        norm(x, *rest)

    monkeypatch.setattr(blocks, "modulated_norm", watched)
    with torch.no_grad():
        step_behind(new_transformer(), history, fusing=True)
    assert set(steps) == {1}


@pytest.mark.parametrize("history", [0, 3])
def test_tokens_rounded_once_are_those_that_each_layer_rounds(history):
    """In float32 they are the same to the bit, whichever of the layers take them rounded."""
    made = []
    for names in (
        (),
        ("to_q",),
        ("proj_mlp",),
        ("proj_out", "net.2"),
        ("to_k", "add_v_proj", "proj", "net.2", "proj_out"),
    ):
        transformer = new_transformer(torch.float32)
        compute_in_fp8(transformer, CPU)
        for name in list(block_linears(transformer)):
            if name.endswith(names):
                transformer.set_submodule(name, behind(transformer.get_submodule(name)))
        made.append(step_behind(transformer, history, fusing=True, dtype=torch.float32))
    assert all(torch.equal(other, made[0]) for other in made[1:])
    exact = step_behind(new_transformer(), history)
    assert 0.01 < (made[0] - exact).norm() / exact.norm() < 0.11  # rounded: as in test_placement_storage.py


@pytest.mark.parametrize("batch", [1, 2])
def test_fused_blocks_compute_in_fp8_as_those_of_diffusers(batch):
    transformer = new_transformer(torch.float32)
    compute_in_fp8(transformer, CPU)
    before = step(transformer, batch=batch, dtype=torch.float32)
    fuse(transformer)
    after = step(transformer, batch=batch, dtype=torch.float32)
    # A number that lies next to the middle of two of eight bits may be rounded to the other one.
    assert (after - before).norm() < 1e-2 * before.norm()


def test_fused_blocks_in_fp8_are_streamed():
    transformer = new_transformer(torch.float32)
    compute_in_fp8(transformer, CPU)
    fuse(transformer)
    before = step(transformer, dtype=torch.float32)
    streaming = stream_blocks(transformer, CPU)
    assert torch.equal(step(transformer, dtype=torch.float32), before)
    assert streaming.fetches >= 4
    streaming.remove()


def test_adapters_over_layers_in_fp8_take_tokens_as_they_are():
    transformer, plain = (new_transformer(torch.float32) for _ in range(2))
    for network in (transformer, plain):
        compute_in_fp8(network, CPU)
        torch.manual_seed(2)
        names = ["to_k", "add_q_proj", "proj_out", "net.0.proj"]
        network.add_adapter(LoraConfig(r=2, target_modules=names, init_lora_weights=False))
        network.to(torch.float32)
    fuse(transformer)
    ours, theirs = (step(network, dtype=torch.float32) for network in (transformer, plain))
    assert (ours - theirs).norm() < 1e-2 * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ahead", [0, 16])
def test_rounded_gelu_is_gelu_rounded(dtype, ahead):
    torch.manual_seed(0)
    hidden, beside = torch.randn(2, 7, 48, dtype=dtype) * 3, torch.randn(2, 7, ahead, dtype=dtype)
    made = fused.rounded_gelu(hidden, FP8, beside if ahead else None)
    exact = torch.cat([beside.double(), gelu(hidden.double(), approximate="tanh")], dim=2)
    off = (made.values.double() * made.scale - exact).abs()
    # Half a step: 2^-4 of a number with three bits after the first one, 2^-10 beneath 2^-6; and float32 before that.
    assert (off <= (2**-4 * exact.abs()).maximum(2**-10 * made.scale.double()) * 1.001 + 1e-6).all()
    # Rounded to the tensor's type in between, as the formula of a layer after the other has it, it is not more exact.
    between = torch.cat([beside, gelu(hidden, approximate="tanh")], dim=2).flatten(0, 1)
    values, scale = (part.unflatten(0, (2, 7)) for part in fused.rounded_rows(between, FP8))
    assert off.square().mean() < 1.01 * (values.double() * scale - exact).square().mean()
    assert dtype != torch.float32 or torch.equal(values.float(), made.values.float())


def test_norms_write_rounded_tokens_into_a_part():
    torch.manual_seed(0)
    x, y = (torch.randn(2, 5, 32) for _ in range(2))
    gate, scale, shift = torch.randn(3, 2, 32)
    out, plain = rounded_room(2, 9, 32), torch.empty(2, 5, 32)
    fused.modulated_norm(x, scale, shift, 1e-6, out[:, 3:8])
    fused.modulated_norm(x, scale, shift, 1e-6, plain)
    for _ in range(2):
        values, by = fused.rounded_rows(plain.flatten(0, 1), FP8)
        assert torch.equal(out.values[:, 3:8].float(), values.unflatten(0, (2, 5)).float())
        assert torch.equal(out.scale[:, 3:8], by.unflatten(0, (2, 5)))
        fused.gated_sum_norm(x, y, gate, scale, shift, 1e-6, out[:, 3:8])
        fused.gated_sum_norm(x, y, gate, scale, shift, 1e-6, plain)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_are_the_formulas(dtype):
    """Each kernel against the formula in float64, on parts of larger tensors."""
    torch.manual_seed(0)
    near = {torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    x, y = (torch.randn(2, 9, 96, device="cuda", dtype=dtype)[:, 1:8] for _ in range(2))
    gate, scale, shift = torch.randn(2, 3 * 96, device="cuda", dtype=dtype).chunk(3, dim=1)
    exact = [part.cpu().double() for part in (x, y, gate, scale, shift)]
    normed, exactly = torch.empty_like(x), torch.empty_like(exact[0])
    total = fused.gated_sum_norm(x, y, gate, scale, shift, 1e-6, normed)
    assert difference(total.cpu().double(), fused.gated_sum_norm(*exact, 1e-6, exactly)) < near * 4
    assert difference(normed.cpu().double(), exactly) < near * 4
    assert difference(fused.gated_sum(x, y, gate).cpu().double(), fused.gated_sum(*exact[:3])) < near
    heads, phases = torch.randn(2, 9, 3, 16, device="cuda", dtype=dtype), torch.randn(2, 5, 16, device="cuda")
    weight, double = torch.randn(16, device="cuda", dtype=dtype), heads.cpu().double()
    fused.rotate_normed(heads, weight, 1e-6, *phases)
    fused.rotate_normed(double, weight.cpu().double(), 1e-6, *phases.cpu().double())
    assert difference(heads.cpu().double(), double) < near * 4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [96, 3072, 5120, 8192, 12288, 13824, 15360])
def test_the_kernel_rounds_rows_as_the_formula(dtype, width):
    rows = torch.randn(5, 2 * width, device="cuda", dtype=dtype)[:, :width]
    rows *= torch.tensor([[1.0], [100.0], [1e-3], [0.0], [3.0]], device="cuda")
    ours, by = fused.rounded_rows(rows, FP8)
    theirs, divisor = fused.rounded_rows(rows.cpu(), FP8)
    assert torch.equal(by.cpu(), divisor)
    assert torch.equal(ours.cpu().float(), theirs.float())


def nearly_all_equal(ours, theirs):
    """Exponentials, roots and sums differ in the last bits: so may scales, and numbers next to the middle of two."""
    torch.testing.assert_close(ours.scale.cpu(), theirs.scale, rtol=1e-5, atol=0)
    a, b = ours.values.cpu().float(), theirs.values.float()
    return (a != b).float().mean() < 2e-3 and ((a - b).abs() <= 2**-2.9 * b.abs() + 2**-8.9).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "ahead"), [(96, 0), (96, 48), (12288, 0), (12288, 3072), (13824, 5120)])
def test_the_kernel_rounds_gelu_as_the_formula(dtype, width, ahead):
    hidden = torch.randn(1, 9, width, device="cuda", dtype=dtype) * 3
    hidden[:, 0], hidden[:, 1] = 1e4, -1e4  # beyond what an exponential holds
    beside = torch.randn(1, 9, 2 * ahead, device="cuda", dtype=dtype)[..., :ahead] if ahead else None
    ours = fused.rounded_gelu(hidden, FP8, beside)
    assert ours.shape == (1, 9, ahead + width)
    assert nearly_all_equal(ours, fused.rounded_gelu(hidden.cpu(), FP8, None if beside is None else beside.cpu()))


@pytest.mark.gpu
@pytest.mark.parametrize("width", [96, 3072])
def test_the_kernels_of_norms_round_as_the_formula(width):
    x, y = (torch.randn(2, 9, width, device="cuda")[:, 1:8] for _ in range(2))
    gate, scale, shift = torch.randn(2, 3 * width, device="cuda").chunk(3, dim=1)
    given = [part.cpu() for part in (x, y, gate, scale, shift)]
    ours, theirs = (rounded_room(2, 9, width, device)[:, 2:] for device in ("cuda", "cpu"))
    fused.modulated_norm(x, scale, shift, 1e-6, ours)
    fused.modulated_norm(given[0], *given[3:], 1e-6, theirs)
    assert nearly_all_equal(ours, theirs)
    total = fused.gated_sum_norm(x, y, gate, scale, shift, 1e-6, ours)
    assert difference(total.cpu(), fused.gated_sum_norm(*given, 1e-6, theirs)) < 1e-5
    assert nearly_all_equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("history", [0, 3])
def test_fused_blocks_in_fp8_are_not_less_exact_on_a_gpu(history):
    device = torch.device("cuda")
    exact = step_behind(new_transformer(), history)
    errors = []
    for fusing in (False, True):
        transformer = new_transformer(torch.bfloat16).to(device)
        compute_in_fp8(transformer, device)
        ours = step_behind(transformer, history, fusing, device=device, dtype=torch.bfloat16)
        errors.append((ours.cpu() - exact).square().mean().sqrt().item())
    assert errors[1] < 1.2 * errors[0]  # two draws of the same rounding
