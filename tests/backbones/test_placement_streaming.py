"""Streamed blocks, against the same networks of diffusers' own classes at rest."""

import copy
import itertools

import pytest
import torch
from diffusers import FirstBlockCacheConfig, HunyuanVideoFramepackTransformer3DModel, WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn

from longtake.backbones.placement import PromptInputs, stream_blocks, tabulate
from longtake.backbones.placement.layout import ALIGNMENT, lay_out
from longtake.errors import ModelError

CPU = torch.device("cpu")
STEPS = torch.tensor([900.0, 500.0, 100.0])


def drawn(*shape, seed=0, device="cpu", dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def wan(layers=4, heads=2, size=20):
    shape = {"num_attention_heads": heads, "attention_head_dim": size, "ffn_dim": 48, "num_layers": layers}
    return randomized(WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, freq_dim=16, **shape))


def framepack(heads=2, size=10, axes=(2, 4, 4), double=2, single=3):
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=heads,
        attention_head_dim=size,
        num_layers=double,
        num_single_layers=single,
        num_refiner_layers=1,
        text_embed_dim=12,
        pooled_projection_dim=6,
        rope_axes_dim=axes,
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return randomized(transformer)


def prompt(device="cpu", dtype=torch.float32):
    drawing = {"device": device, "dtype": dtype}
    return PromptInputs(
        drawn(1, 7, 12, seed=1, **drawing), torch.ones(1, 7, dtype=torch.int64, device=device), drawn(1, 6, **drawing)
    )


def step(transformer, timestep=STEPS[:1], device="cpu", dtype=torch.float32):
    """One forward of either class."""
    drawing = {"device": device, "dtype": dtype}
    x, timestep = drawn(1, 4, 2, 4, 6, seed=3, **drawing), timestep.to(device)
    if isinstance(transformer, WanTransformer3DModel):
        given = {"encoder_hidden_states": drawn(1, 7, 16, seed=1, **drawing)}
    else:
        told = prompt(device, dtype)
        given = {
            "encoder_hidden_states": told.text,
            "encoder_attention_mask": told.mask,
            "pooled_projections": told.pooled,
            "guidance": torch.tensor([6000.0], device=device),
            "image_embeds": drawn(1, 3, 8, seed=4, **drawing),
            "indices_latents": torch.arange(2),
            "latents_clean": drawn(1, 4, 2, 4, 6, seed=5, **drawing),
            "indices_latents_clean": torch.arange(2),
            "latents_history_2x": drawn(1, 4, 2, 4, 6, seed=6, **drawing),
            "indices_latents_history_2x": torch.arange(2),
            "latents_history_4x": drawn(1, 4, 4, 4, 6, seed=7, **drawing),
            "indices_latents_history_4x": torch.arange(4),
        }
    with torch.no_grad():
        return transformer(x, timestep, **given, return_dict=False)[0]


def steps(transformer, **kind):
    return [step(transformer, timestep, **kind) for timestep in STEPS.split(1)]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def blocks_of(transformer):
    if isinstance(transformer, WanTransformer3DModel):
        return list(transformer.blocks)
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


@pytest.mark.parametrize("host", ["pinned", "staged"])
@pytest.mark.parametrize("slots", [2, 3, 9])
@pytest.mark.parametrize("build", [wan, framepack])
def test_streamed_is_equal_to_resident(build, slots, host):
    transformer = build()
    before = steps(transformer)
    streaming = stream_blocks(transformer, CPU, slots=slots, host=host)
    assert equal(steps(transformer), before)
    count = len(blocks_of(transformer))
    assert streaming.misses == 1  # the very first block; from then on each is there before its turn
    if slots < count:
        assert streaming.fetches == len(STEPS) * count + slots - 1  # and those ahead, for the next step
    else:
        assert streaming.fetches == count  # all of them have room, and stay


def test_the_weights_are_in_the_state_dict_while_streaming_and_are_saved(tmp_path):
    transformer = framepack()
    before = copy.deepcopy(transformer.state_dict())
    stream_blocks(transformer, CPU)
    step(transformer)
    state = transformer.state_dict()
    assert list(state) == list(before)
    assert equal(state.values(), before.values())
    transformer.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in before.items())


@pytest.mark.parametrize("host", ["pinned", "staged"])
@pytest.mark.parametrize("build", [wan, framepack])
def test_removing_gives_the_network_back(build, host):
    transformer = build()
    before, state = steps(transformer), copy.deepcopy(transformer.state_dict())
    parameters = dict(transformer.named_parameters())
    streaming = stream_blocks(transformer, CPU, host=host)
    step(transformer)
    streaming.remove()
    assert all(parameters[name] is parameter for name, parameter in transformer.named_parameters())
    assert equal(transformer.state_dict().values(), state.values())
    assert equal(steps(transformer), before)
    assert not {"forward", "_apply", "compile"} & set().union(*(vars(block) for block in blocks_of(transformer)))
    transformer.to(torch.float64)
    stream_blocks(transformer.to(torch.float32), CPU)
    assert equal(steps(transformer), before)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_any_order_of_calls_is_right(order, slots):
    layers = [randomized(nn.Linear(3 + i % 2, 4 - i % 2), seed=i) for i in range(5)]
    inputs = [drawn(2, layer.in_features, seed=10 + i) for i, layer in enumerate(layers)]
    with torch.no_grad():
        before = [layers[i](inputs[i]) for i in order]
        streaming = stream_blocks(nn.ModuleList(layers), CPU, blocks=layers, slots=slots)
        assert equal([layers[i](inputs[i]) for i in order], before)
    assert len(set(order)) <= streaming.fetches


def test_a_call_that_fails_leaves_the_network_usable():
    transformer = wan()
    before = step(transformer)
    stream_blocks(transformer, CPU)
    with pytest.raises(AttributeError), torch.no_grad():
        transformer.blocks[2](None, None, None, None)
    assert torch.equal(step(transformer), before)


def test_the_blocks_of_a_network_lie_in_the_slots_not_in_its_parameters():
    transformer = framepack()
    streaming = stream_blocks(transformer, CPU)
    where = []
    for block in blocks_of(transformer):
        weight = block.attn.to_q.weight
        block.attn.to_q.register_forward_hook(lambda *_, w=weight: where.append(w.untyped_storage().data_ptr()))
    step(transformer)
    home = {block.attn.to_q.weight.untyped_storage().data_ptr() for block in blocks_of(transformer)}
    assert len(set(where)) == 2
    assert all(a != b for a, b in itertools.pairwise(where))
    assert not home & set(where)
    assert len(home) == len(where)
    largest = max(lay_out(dict(block.named_parameters())).used_bytes for block in blocks_of(transformer))
    assert streaming.device_bytes == 2 * largest


def test_a_pinned_host_holds_each_weight_once_and_a_staged_one_two_blocks():
    transformer = wan(heads=4, size=64)
    parameters = [p for block in transformer.blocks for p in block.parameters()]
    size = sum(p.numel() * p.itemsize for p in parameters)
    streaming = stream_blocks(transformer, CPU)
    assert size <= streaming.pinned_bytes <= size + len(parameters) * ALIGNMENT
    streaming.remove()
    assert stream_blocks(transformer, CPU, host="staged").pinned_bytes * 2 == streaming.pinned_bytes  # 2 blocks of 4


def test_staged_weights_stay_where_they_are():
    transformer = wan()
    before = [p.data_ptr() for block in transformer.blocks for p in block.parameters()]
    stream_blocks(transformer, CPU, host="staged")
    step(transformer)
    assert [p.data_ptr() for block in transformer.blocks for p in block.parameters()] == before


def test_moving_or_compiling_the_whole_is_refused():
    transformer = wan()
    streaming = stream_blocks(transformer, CPU)
    for misuse in (
        lambda: transformer.to(torch.float64),
        lambda: transformer.half(),
        lambda: transformer.blocks[0].to("meta"),
        lambda: nn.ModuleList([transformer]).to("cpu"),
    ):
        with pytest.raises(ModelError, match="remove"):
            misuse()
    with pytest.raises(ModelError, match="compile them one by one"):
        transformer.blocks[1].compile()
    with pytest.raises(ModelError, match="streamed already"):
        stream_blocks(transformer, CPU)
    with pytest.raises(ModelError, match="no gradients"):
        transformer.blocks[0](drawn(1, 2, 40))
    streaming.remove()


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ModelError, match="2 is the least"):
        stream_blocks(wan(), CPU, slots=1)
    with pytest.raises(ModelError, match="cannot be streamed to meta"):
        stream_blocks(wan(), torch.device("meta"))
    with pytest.raises(ModelError, match=r"torch\.int8 is no floating-point type"):
        stream_blocks(wan(), CPU, storage=torch.int8)
    with pytest.raises(ModelError, match="name its blocks yourself"):
        stream_blocks(nn.Linear(2, 2), CPU)
    with torch.device("meta"):
        empty = WanTransformer3DModel(num_attention_heads=1, attention_head_dim=64, ffn_dim=8, num_layers=1)
    with pytest.raises(ModelError, match=r"block 0: .* has no weights yet"):
        stream_blocks(empty, CPU)
    tied = wan()
    tied.blocks[1].ffn = tied.blocks[0].ffn
    with pytest.raises(ModelError, match=r"block 1: ffn\.\S+ is also ffn\.\S+ of block 0"):
        stream_blocks(tied, CPU)


def test_weights_changed_in_place_are_seen_after_a_refresh():
    transformer, other = wan(), randomized(wan(), seed=9)
    streaming = stream_blocks(transformer, CPU)
    step(transformer)
    transformer.load_state_dict(other.state_dict())
    streaming.refresh()
    assert torch.equal(step(transformer), step(other))


def test_adapters_are_streamed_and_can_be_weighed():
    transformer = framepack()
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "proj_mlp"], init_lora_weights=False))
    randomized(transformer, seed=5)
    outputs = {}
    for streamed in (False, True):
        if streamed:
            stream_blocks(transformer, CPU)
        for weight in (1.0, 0.3):
            transformer.set_adapters("default", weight)
            outputs[streamed, weight] = step(transformer)
    assert equal([outputs[True, w] for w in (1.0, 0.3)], [outputs[False, w] for w in (1.0, 0.3)])
    assert not torch.equal(outputs[True, 1.0], outputs[True, 0.3])


@pytest.mark.parametrize("cached_first", [True, False])
def test_blocks_that_a_step_cache_skips_are_not_fetched(cached_first):
    transformer = wan()
    config = FirstBlockCacheConfig(threshold=1e9)  # skips whenever it can
    if cached_first:
        transformer.enable_cache(config)
    streaming = stream_blocks(transformer, CPU)
    if not cached_first:
        transformer.enable_cache(config)
    with transformer.cache_context("cond"):
        steps(transformer)
    # The first step calls all and fetches the first again; with the second behind it, the others find what they call.
    assert streaming.fetches == len(transformer.blocks) + 2


@pytest.mark.parametrize("host", ["pinned", "staged"])
def test_eight_bit_storage_is_close_and_halves_what_is_transferred(host):
    transformer = wan(heads=4, size=64)
    before, state = step(transformer), copy.deepcopy(transformer.state_dict())
    pinned = stream_blocks(copy.deepcopy(transformer), CPU, host=host).pinned_bytes
    streaming = stream_blocks(transformer, CPU, host=host, storage=torch.float8_e4m3fn)
    after = step(transformer)
    assert streaming.pinned_bytes < 0.28 * pinned  # of float32: a quarter, and vectors that stay
    kept = transformer.state_dict()
    streaming.remove()
    for name, value in state.items():
        assert kept[name].dtype == transformer.state_dict()[name].dtype == value.dtype
        assert torch.equal(kept[name], transformer.state_dict()[name])
        if value.ndim < 2 or not name.startswith("blocks."):
            assert torch.equal(kept[name], value)
        else:
            # Three bits after the leading one; below 2^-6 of a range that ends at 448, steps of 2^-9.
            bound = torch.maximum(value.abs() * 2**-4, value.abs().max() * 2**-10 / 224)
            assert ((kept[name] - value).abs() <= bound).all()
    assert torch.equal(step(transformer), after)
    assert (after - before).norm() < 0.1 * before.norm()  # 2^-4 / sqrt(3) a weight, averaged over many


@pytest.mark.compile
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("tables", [False, True])
def test_compiled_blocks_are_not_compiled_again_by_another_slot_step_or_block(backend, tables):
    def compiled(streamed):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        transformer = framepack(double=3, single=10)
        if tables:
            tabulate(transformer, CPU, STEPS, [prompt()], torch.tensor([6000.0]))
        for block in blocks_of(transformer):
            block.compile(backend=backend, fullgraph=True)
        if streamed:
            streaming = stream_blocks(transformer, CPU)
        out = steps(transformer)
        assert not streamed or streaming.misses == 1
        if streamed:
            streaming.remove()
            assert equal(steps(transformer), out)
        return out, torch._dynamo.utils.counters["stats"]["unique_graphs"]

    resident, graphs = compiled(False)
    streamed, again = compiled(True)
    assert equal(streamed, resident)
    assert graphs == again <= 4  # two kinds of blocks, the first of a kind with inputs of other strides


@pytest.mark.gpu
@pytest.mark.parametrize("host", ["pinned", "staged"])
@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("build", [wan, framepack])
def test_streamed_on_a_gpu_is_equal_to_resident_in_less_memory(build, slots, host):
    device, kind = torch.device("cuda"), {"device": "cuda", "dtype": torch.bfloat16}
    sizes = {"heads": 8, "size": 128} | ({"layers": 12} if build is wan else {"axes": (16, 56, 56), "single": 12})
    transformer = build(**sizes).to(torch.bfloat16)
    transformer.to(device)
    before = steps(transformer, **kind)
    transformer.to("cpu")
    largest = max(lay_out(dict(block.named_parameters())).used_bytes for block in blocks_of(transformer))
    in_blocks = {id(p) for block in blocks_of(transformer) for p in block.parameters()}
    rest = sum(p.numel() * p.itemsize for p in transformer.parameters() if id(p) not in in_blocks)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    streaming = stream_blocks(transformer, device, slots=slots, host=host)
    for _ in range(5):  # a race would show up in some of them
        assert equal(steps(transformer, **kind), before)
    assert streaming.misses == 1
    activations = 64 * 2**20  # of a handful of tokens, and the workspace of the matrix products
    assert torch.cuda.max_memory_allocated() - held < slots * largest + rest + activations
    assert all(p.data.is_pinned() == (host == "pinned") for p in transformer.parameters() if id(p) in in_blocks)
    streaming.remove()
    assert {p.device.type for p in transformer.parameters()} == {"cpu"}
    assert not any(p.data.is_pinned() for p in transformer.parameters())
    assert torch.cuda.memory_allocated() - held < activations
    assert equal(steps(transformer.to(device), **kind), before)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [None, torch.float8_e4m3fn])
def test_a_gpu_gives_what_a_cpu_gives_from_the_same_storage(storage):
    transformer, same = framepack(), framepack()
    stream_blocks(transformer, torch.device("cuda"), storage=storage)
    stream_blocks(same, CPU, storage=storage)
    ours, theirs = step(transformer, device="cuda").cpu(), step(same)
    # Sums of float32 in another order, and matrix products that may use TF32 (ten bits).
    assert (ours - theirs).norm() < 1e-2 * theirs.norm()


@pytest.mark.gpu
def test_tables_on_a_gpu_are_equal_to_the_last_bit_and_compose_with_streaming():
    device, kind = torch.device("cuda"), {"device": "cuda", "dtype": torch.bfloat16}
    transformer = framepack(heads=8, size=128, axes=(16, 56, 56)).to(torch.bfloat16)
    before = steps(transformer.to(device), **kind)
    told = prompt(device="cuda", dtype=torch.bfloat16)
    tables = tabulate(transformer, device, STEPS, [told], torch.tensor([6000.0]))
    assert equal(steps(transformer, **kind), before)
    assert transformer.single_transformer_blocks[0].norm.linear.weight.device.type == "cpu"
    streaming = stream_blocks(transformer, device)
    assert equal(steps(transformer, **kind), before)
    streaming.remove()
    tables.remove()
    assert equal(steps(transformer.to(device), **kind), before)
