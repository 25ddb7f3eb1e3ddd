"""Tables of modulation, against the untouched network of diffusers' own classes."""

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.hooks.hooks import HookRegistry, ModelHook
from peft import LoraConfig

from longtake.backbones import load_backbone
from longtake.backbones.hunyuan import network as hunyuan
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.placement import PromptInputs, stream_blocks, tabulate
from longtake.backbones.placement.layout import live_tensors
from longtake.backbones.running import Demand, Runtime, running
from longtake.errors import ModelError
from longtake.packing import History, pack
from longtake.plan import make_plan
from longtake.schedule import parse

CPU = torch.device("cpu")
WIDTH, TEXT, POOLED = 20, 12, 6
SHAPE = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "text_embed_dim": TEXT,
    "pooled_projection_dim": POOLED,
    "rope_axes_dim": (2, 4, 4),
}
TIMESTEPS = torch.tensor([1000.0, 873.25, 512.5, 31.0])
GUIDANCE = torch.tensor([6000.0])


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def framepack():
    return randomized(
        HunyuanVideoFramepackTransformer3DModel(
            **SHAPE, has_image_proj=True, image_proj_dim=8, has_clean_x_embedder=True
        )
    )


def base():
    return randomized(HunyuanVideoTransformer3DModel(**SHAPE))


def prompt(seed, valid=5, dtype=torch.float32):
    mask = torch.tensor([[1] * valid + [0] * (7 - valid)])
    return PromptInputs(drawn(1, 7, TEXT, seed=seed, dtype=dtype), mask, drawn(1, POOLED, seed=seed + 50, dtype=dtype))


RED, BLUE = prompt(1), prompt(2, valid=7)


def run(transformer, timestep, prompts=(RED,), guidance=GUIDANCE):
    """One step of a batch, a sample a prompt."""
    dtype, b = prompts[0].text.dtype, len(prompts)
    given = {
        "hidden_states": drawn(b, 4, 2, 4, 6, seed=3, dtype=dtype),
        "timestep": timestep.expand(b),
        "encoder_hidden_states": torch.cat([p.text for p in prompts]),
        "encoder_attention_mask": torch.cat([p.mask for p in prompts]),
        "pooled_projections": torch.cat([p.pooled for p in prompts]),
        "guidance": guidance.expand(b),
    }
    if isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        given |= {
            "image_embeds": drawn(b, 3, 8, seed=4, dtype=dtype),
            "indices_latents": torch.arange(2),
            "latents_clean": drawn(b, 4, 2, 4, 6, seed=5, dtype=dtype),
            "indices_latents_clean": torch.arange(2),
            "latents_history_2x": drawn(b, 4, 2, 4, 6, seed=6, dtype=dtype),
            "indices_latents_history_2x": torch.arange(2),
            "latents_history_4x": drawn(b, 4, 4, 4, 6, seed=7, dtype=dtype),
            "indices_latents_history_4x": torch.arange(4),
        }
    with torch.no_grad():
        return transformer(**given, return_dict=False)[0]


def sizes(module):
    return sum(tensor.numel() for _, tensor in live_tensors(module))


@pytest.mark.parametrize("build", [framepack, base])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_is_the_same_to_the_last_bit_at_every_step_and_prompt(build, dtype):
    transformer = build().to(dtype)
    prompts = [prompt(1, dtype=dtype), prompt(2, valid=7, dtype=dtype)]
    before = [run(transformer, t, [p]) for p in prompts for t in TIMESTEPS.split(1)]
    tabulate(transformer, CPU, TIMESTEPS, prompts, GUIDANCE)
    after = [run(transformer, t, [p]) for p in prompts for t in TIMESTEPS.split(1)]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert len({out.float().sum().item() for out in before}) == len(before)  # each step and prompt has its own


@pytest.mark.parametrize("build", [framepack, base])
def test_a_batch_may_mix_prompts(build):
    transformer = build()
    before = run(transformer, TIMESTEPS[:1], [RED, BLUE])
    tabulate(transformer, CPU, TIMESTEPS, [RED, BLUE], GUIDANCE)
    run(transformer, TIMESTEPS[1:2], [BLUE])
    # The untouched network multiplies both rows at once, which may sum in another order.
    assert torch.allclose(run(transformer, TIMESTEPS[:1], [RED, BLUE]), before, atol=1e-5)


@pytest.mark.parametrize("build", [framepack, base])
def test_modulation_and_refiner_leave_the_device(build):
    transformer = build()
    before = sizes(transformer)
    tables = tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    rows = 2 * 12 + 2 * 3 + 2  # vectors that modulate: double blocks, single blocks, output
    embedders = sizes_of(transformer, "context_embedder", "time_text_embed")
    assert before - sizes(transformer) == rows * WIDTH * (WIDTH + 1) + embedders
    assert tables.bytes == 4 * len(TIMESTEPS) * ((rows + 1) * WIDTH + 7 * WIDTH)


def sizes_of(transformer, *names):
    return sum(p.numel() for name in names for p in transformer.get_submodule(name).parameters())


@pytest.mark.parametrize("build", [framepack, base])
def test_removing_the_tables_restores_the_network(build):
    transformer = build()
    before, keys = run(transformer, TIMESTEPS[:1]), list(transformer.state_dict())
    modules = dict(transformer.named_modules())
    tables = tabulate(transformer, CPU, TIMESTEPS[1:], [RED], GUIDANCE)
    assert list(transformer.state_dict()) == keys
    tables.remove()
    assert dict(transformer.named_modules()) == modules
    assert sizes(transformer) == sum(p.numel() for p in transformer.parameters())
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before)


def test_an_unknown_step_guidance_or_prompt_is_refused():
    transformer = framepack()
    tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    with pytest.raises(ModelError, match=r"timestep 500\.0 \(they hold 1000\.0, 873\.25"):
        run(transformer, torch.tensor([500.0]))
    with pytest.raises(ModelError, match=r"guidance 1000\.0 \(they hold 6000\.0\)"):
        run(transformer, TIMESTEPS[:1], guidance=torch.tensor([1000.0]))
    with pytest.raises(ModelError, match="pooled prompt"):
        run(transformer, TIMESTEPS[:1], [BLUE])
    same_start = PromptInputs(BLUE.text, BLUE.mask, RED.pooled)  # CLIP saw the first words only
    with pytest.raises(ModelError, match="do not know this prompt"):
        run(transformer, TIMESTEPS[:1], [same_start])
    shorter = PromptInputs(RED.text, prompt(1, valid=4).mask, RED.pooled)
    with pytest.raises(ModelError, match="do not know this prompt"):
        run(transformer, TIMESTEPS[:1], [shorter])


def test_prompts_that_share_their_pooled_vector_keep_their_texts():
    transformer = framepack()
    other = PromptInputs(BLUE.text, BLUE.mask, RED.pooled)
    before = [run(transformer, TIMESTEPS[:1], [p]) for p in (RED, other)]
    tabulate(transformer, CPU, TIMESTEPS, [RED, other], GUIDANCE)
    assert all(torch.equal(run(transformer, TIMESTEPS[:1], [p]), b) for p, b in zip((RED, other), before, strict=True))


def test_tables_are_filled_again_for_another_video():
    transformer = framepack()
    before = run(transformer, torch.tensor([250.0]), [BLUE])
    tables = tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    tables.fill(torch.tensor([250.0]), [BLUE], GUIDANCE)
    assert torch.equal(run(transformer, torch.tensor([250.0]), [BLUE]), before)
    with pytest.raises(ModelError, match="do not know timestep"):
        run(transformer, TIMESTEPS[:1])


def test_a_step_can_be_taken_inside_and_outside_of_inference_mode():
    transformer = framepack()
    before = run(transformer, TIMESTEPS[:1])
    with torch.inference_mode():
        tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
        run(transformer, TIMESTEPS[1:2])
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before)


def test_tables_keep_no_graph():
    transformer = framepack()
    with torch.enable_grad():
        tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
        embedding, _ = transformer.time_text_embed(TIMESTEPS[:1], RED.pooled, GUIDANCE)
        text = transformer.context_embedder(RED.text, TIMESTEPS[:1], RED.mask)
    assert not embedding.requires_grad
    assert not text.requires_grad


class Doubled(ModelHook):
    def post_forward(self, module, output):
        return 2 * output


@pytest.mark.parametrize("first", [True, False])
def test_hooks_of_the_embedder_stay_around_the_tables(first):
    transformer, plain = framepack(), framepack()
    HookRegistry.check_if_exists_or_initialize(plain.context_embedder).register_hook(Doubled(), "doubled")
    before = run(plain, TIMESTEPS[:1])
    registry = HookRegistry.check_if_exists_or_initialize(transformer.context_embedder)
    untouched = run(transformer, TIMESTEPS[:1])
    if first:
        registry.register_hook(Doubled(), "doubled")
    tables = tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    if not first:
        registry.register_hook(Doubled(), "doubled")
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before)
    tables.remove()
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before)
    registry.remove_hook("doubled")
    assert torch.equal(run(transformer, TIMESTEPS[:1]), untouched)


def test_adapters_of_the_modulation_are_in_the_tables():
    transformer = framepack()
    transformer.add_adapter(LoraConfig(r=2, target_modules=["norm1.linear", "to_q"], init_lora_weights=False))
    randomized(transformer, seed=8)
    before, keys = run(transformer, TIMESTEPS[:1]), list(transformer.state_dict())
    tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before)
    assert list(transformer.state_dict()) == keys


def test_tabulated_matrices_are_not_streamed():
    transformer = framepack()
    before = [run(transformer, t) for t in TIMESTEPS.split(1)]
    tables = tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    streaming = stream_blocks(transformer, CPU)
    assert all(torch.equal(run(transformer, t), b) for t, b in zip(TIMESTEPS.split(1), before, strict=True))
    tables.fill(TIMESTEPS.flip(0), [RED], GUIDANCE)
    assert torch.equal(run(transformer, TIMESTEPS[:1]), before[0])
    slots = streaming.device_bytes
    streaming.remove()
    tables.remove()
    saved = slots - stream_blocks(transformer, CPU).device_bytes
    assert saved < 0
    assert abs(-saved - 2 * 4 * 12 * WIDTH * (WIDTH + 1)) <= 2 * 4 * 256  # two slots; four tensors, each aligned to 256


def test_networks_without_such_tables_are_refused():
    wan = WanTransformer3DModel(num_attention_heads=1, attention_head_dim=64, ffn_dim=8, num_layers=0)
    with pytest.raises(ModelError, match="WanTransformer3DModel has no modulation matrices"):
        tabulate(wan, CPU, TIMESTEPS, [RED], GUIDANCE)
    replacing = HunyuanVideoTransformer3DModel(**SHAPE, image_condition_type="token_replace")
    with pytest.raises(ModelError, match="two timesteps"):
        tabulate(replacing, CPU, TIMESTEPS, [RED], GUIDANCE)
    transformer = framepack()
    tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)
    with pytest.raises(ModelError, match="has tables already"):
        tabulate(transformer, CPU, TIMESTEPS, [RED], GUIDANCE)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_waits_for_nothing_that_the_device_does():
    """What tables stand for is told on the host, so that the next step is queued while this one is computed."""
    device, transformer = torch.device("cuda"), framepack().cuda()
    seams = hunyuan.install(transformer)
    told = HunyuanConditioning(RED.text, RED.mask.bool(), RED.pooled, drawn(1, 3, 8, seed=4), guidance=6.0)
    tabulate(transformer, device, TIMESTEPS, [PromptInputs(told.text, told.mask, told.pooled)], GUIDANCE)
    brought = hunyuan.bring(transformer, told, device)
    assert brought.text.device == CPU
    assert brought.image.device.type == "cuda"
    history = History()
    history.remember(range(19), drawn(1, 4, 19, 4, 6, seed=5).cuda())
    section = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g2"), 21).sections[-1]
    packed = pack(section, history, hunyuan.history_patchify(transformer), hunyuan.rope_axes(transformer))
    x, sigma = drawn(1, 4, 2, 4, 6, seed=3).cuda(), TIMESTEPS[1:2] / 1000
    with torch.inference_mode():
        first = hunyuan.velocity(transformer, seams, x, sigma, brought, packed)
        torch.cuda.set_sync_debug_mode("error")
        try:
            again = hunyuan.velocity(transformer, seams, x, sigma, brought, packed)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)


@pytest.mark.gpu
def test_a_video_can_be_made_with_tables_and_streaming_on_a_gpu(framepack_folder):
    """Loaded, tabulated, streamed and asked in inference mode, as `generate` does it."""
    device = torch.device("cuda")
    with torch.inference_mode():
        backbone = load_backbone(framepack_folder, device)
        text = drawn(1, 7, backbone.transformer.config["text_embed_dim"])
        pooled = drawn(1, backbone.transformer.config["pooled_projection_dim"])
        told = HunyuanConditioning(text, torch.ones(1, 7, dtype=torch.bool), pooled, guidance=10.0)
        demand = Demand(tokens=100, levels=torch.tensor([1.0, 0.5]), told=(told,))
        x = drawn(1, backbone.codec.channels, 2, 4, 6, seed=3).to(device, backbone.dtype)
        section = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g2"), 21).sections[0]
        made = []
        for profile in ("resident", "resident-tables", "streamed-tables", "staged-tables"):
            with running(backbone, device, Runtime("cuda", profile), demand) as ready:
                history = History()
                history.remember([0], x[:, :, :1])
                packed = pack(section, history, ready.patchify, ready.axes)
                made += [ready.velocity(x, sigma, ready.bring(told), packed) for sigma in (1.0, 0.5)]
    for k, velocity in enumerate(made):  # streamed, queries, keys and values are three products
        assert (velocity - made[k % 2]).norm() < 0.02 * velocity.norm()
