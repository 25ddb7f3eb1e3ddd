"""The seams of Wan, against Wan itself and against Helios, which is Wan with the same packing built in."""

import pytest
import torch
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanTransformer3DModel
from torch import nn

from longtake.backbones.rotation import RotatingProcessor, rotate_whole_tensors
from longtake.backbones.seams import install_seams
from longtake.backbones.wan import SEAMS, rope_axes, velocity
from longtake.packing import History, Patchify, pack, phases
from longtake.plan import Look, Section
from longtake.schedule import Kernel

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)
HEIGHT, WIDTH = 6, 10  # latents; an odd grid of 3 x 5 patches, so that every kernel above the base needs padding


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(frames=3, batch=2):
    x, text = drawn(batch, 4, frames, HEIGHT, WIDTH, seed=1), drawn(batch, 7, 16, seed=2)
    return x, torch.linspace(0.3, 0.9, batch), text


def history(batch=2, frames=20):
    known = History()
    known.remember(range(frames), drawn(batch, 4, frames, HEIGHT, WIDTH, seed=3))
    return known


# FramePack-F1's layout, and one with spans that their kernels do not divide, at positions of their own.
FULL = Section(
    index=2,
    frames=(20, 21, 22),
    positions=(20, 21, 22),
    sees=(
        Look((0,), K1, (0,)),
        Look(tuple(range(1, 17)), K4, tuple(range(1, 17))),
        Look((17, 18), K2, (17, 18)),
        Look((19,), K1, (19,)),
    ),
)
RAGGED = Section(
    index=1,
    frames=(10, 11, 12),
    positions=(31, 32, 33),
    sees=(
        Look((0,), K1, (0,)),
        Look((1, 2, 3, 4, 5, 6), K4, (11, 12, 13, 14, 15, 16)),
        Look((7, 8, 9), K2, (17, 18, 19)),
    ),
)
BARE = Section(index=0, frames=(0, 1, 2), positions=(0, 1, 2), sees=())


def plain(transformer, x, sigma, text):
    with torch.no_grad():
        return transformer(x, 1000 * sigma, text, return_dict=False)[0]


def difference(a, b):
    return (a - b).abs().max().item()


def test_idle_seams_change_nothing(transformer):
    x, sigma, text = inputs()
    before = plain(transformer, x, sigma, text)
    install_seams(transformer, SEAMS)
    assert difference(plain(transformer, x, sigma, text), before) == 0.0


def test_a_section_that_sees_nothing_is_the_plain_model(transformer, patchify):
    x, sigma, text = inputs()
    before = plain(transformer, x, sigma, text)
    seams = install_seams(transformer, SEAMS)
    with torch.no_grad():
        packed = pack(BARE, history(), patchify, rope_axes(transformer))
        assert packed.tokens.shape == (2, 0, 40)
        for history_time in ("same", "clean"):
            after = velocity(transformer, seams, x, sigma, text, packed, history_time)
            assert difference(after, before) <= (0.0 if history_time == "same" else 1e-5)  # clean: time by token


def test_leaving_the_context_or_removing_the_seams_gives_the_network_back(transformer, patchify):
    x, sigma, text = inputs()
    before = plain(transformer, x, sigma, text)
    forwards = {name: m.forward for name, m in transformer.named_modules()}
    seams = install_seams(transformer, SEAMS)
    with torch.no_grad():
        packed = pack(FULL, history(), patchify, rope_axes(transformer))
        assert difference(velocity(transformer, seams, x, sigma, text, packed), before) > 0.01
        assert difference(plain(transformer, x, sigma, text), before) == 0.0
        with pytest.raises(RuntimeError, match="size"), seams.use(packed):
            transformer(x[:, :, :2], 1000 * sigma, text)  # phases of three frames
        assert difference(plain(transformer, x, sigma, text), before) == 0.0
    seams.remove()
    assert {name: m.forward for name, m in transformer.named_modules()} == forwards
    assert not transformer.proj_out._forward_hooks
    assert difference(plain(transformer, x, sigma, text), before) == 0.0
    again = install_seams(transformer, SEAMS)
    with torch.no_grad():
        assert difference(velocity(transformer, again, x, sigma, text, packed), before) > 0.01


def helios(transformer, patchify, zero_history_timestep):
    """diffusers' packed Wan with the same weights."""
    axes = rope_axes(transformer)
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    for absent in ("image_dim", "rope_max_seq_len", "pos_embed_seq_len"):
        config.pop(absent)
    model = HeliosTransformer3DModel(
        **config,
        rope_dim=(axes.t, axes.h, axes.w),
        guidance_cross_attn=False,
        zero_history_timestep=zero_history_timestep,
        is_amplify_history=False,
    )
    state = {k: v for k, v in transformer.state_dict().items() if not k.startswith("history_patch_embed")}
    state["norm_out.scale_shift_table"] = state.pop("scale_shift_table")
    for ours, theirs in {"k1h2w2": "patch_short", "k2h4w4": "patch_mid", "k4h8w8": "patch_long"}.items():
        state[f"{theirs}.weight"] = patchify.proj[ours].weight
        state[f"{theirs}.bias"] = patchify.proj[ours].bias
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("section", [FULL, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("history_time", ["same", "clean"])
def test_packed_wan_is_helios(transformer, patchify, section, history_time):
    x, sigma, text = inputs()
    known = history()
    looks = {"short": [], "mid": [], "long": []}
    for look in section.sees:
        looks[{K1: "short", K2: "mid", K4: "long"}[look.kernel]].append(look)
    arguments = {}
    for name, of in looks.items():
        frames = [f for look in of for f in look.frames]
        arguments[f"latents_history_{name}"] = known.read(frames)
        positions = torch.tensor([p for look in of for p in look.positions])
        arguments[f"indices_latents_history_{name}"] = positions.expand(2, -1)
    with torch.no_grad():
        theirs = helios(transformer, patchify, history_time == "clean")(
            x,
            1000 * sigma,
            text,
            indices_hidden_states=torch.tensor(section.positions).expand(2, -1),
            **arguments,
            return_dict=False,
        )[0]
        seams = install_seams(transformer, SEAMS)
        packed = pack(section, known, patchify, rope_axes(transformer))
        ours = velocity(transformer, seams, x, sigma, text, packed, history_time)
    assert theirs.std() > 0.1
    assert difference(ours, theirs) < 1e-5  # float32 phases there, float64 here


def test_clean_history_is_not_noisy_history(transformer, patchify):
    x, sigma, text = inputs()
    seams = install_seams(transformer, SEAMS)
    with torch.no_grad():
        packed = pack(FULL, history(), patchify, rope_axes(transformer))
        same, clean = (velocity(transformer, seams, x, sigma, text, packed, t) for t in ("same", "clean"))
    assert difference(same, clean) > 1e-3


def leveled(levels, frames=20):
    """The same frames, told to be at these noise levels, one a sample."""
    known = History()
    sigma = levels[:, None].expand(-1, frames)
    known.remember(range(frames), history().read(range(frames)), sigma=sigma)
    return known


def test_history_told_its_own_level_is_told_clean_at_0_and_the_same_at_the_sections(transformer, patchify):
    x, sigma, text = inputs()
    seams, axes = install_seams(transformer, SEAMS), rope_axes(transformer)
    with torch.no_grad():
        for time, levels in (("clean", torch.zeros(2)), ("same", sigma)):
            expected = velocity(transformer, seams, x, sigma, text, pack(FULL, history(), patchify, axes), time)
            told = velocity(transformer, seams, x, sigma, text, pack(FULL, leveled(levels), patchify, axes), "noisy")
            assert difference(told, expected) < 1e-5  # one time for all tokens and one by token: other shapes of sums
        half = velocity(transformer, seams, x, sigma, text, pack(FULL, leveled(sigma / 2), patchify, axes), "noisy")
    assert difference(half, expected) > 1e-3


def causal(transformer, patchify):
    """Its seams, rotated whole tensors that know them, and a packed history."""
    seams = install_seams(transformer, SEAMS)
    rotate_whole_tensors(transformer, seams)
    return seams, pack(FULL, history(), patchify, rope_axes(transformer))


class Masked(WanAttnProcessor):
    """diffusers' own attention under a mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        mask = self.mask if encoder_hidden_states is None else None
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, rotary_emb)


@pytest.mark.parametrize("fused", [False, True])
def test_causal_attention_is_full_attention_under_a_mask(transformer, patchify, fused):
    x, sigma, text = inputs()
    if fused:
        for block in transformer.blocks:
            block.attn1.fuse_projections()
    with torch.no_grad():
        seams, packed = causal(transformer, patchify)
        ours = velocity(transformer, seams, x, sigma, text, packed, attention="causal")
        full = velocity(transformer, seams, x, sigma, text, packed)
        n = packed.tokens.shape[1]
        mask = torch.ones(n + len(packed.target_cos), n + len(packed.target_cos), dtype=torch.bool)
        mask[:n, n:] = False
        for block in transformer.blocks:
            block.attn1.set_processor(Masked(mask[None, None]))
        theirs = velocity(transformer, seams, x, sigma, text, packed)
    assert difference(ours, theirs) < 1e-5  # softmax over the tokens that are seen, or over all with zeros
    assert difference(ours, full) > 1e-3


def test_causal_history_is_the_same_whatever_is_made_of_it(transformer, patchify):
    x, sigma, text = inputs()
    seen = []
    transformer.blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        seams, packed = causal(transformer, patchify)
        for noisy, level in ((x, sigma), (-x, sigma / 2)):
            for attention in ("causal", "full"):
                velocity(transformer, seams, noisy, level, text, packed, "clean", attention)
    history_of = [tokens[:, : packed.tokens.shape[1]] for tokens in seen]
    assert difference(history_of[0], history_of[2]) == 0.0
    assert difference(history_of[1], history_of[3]) > 1e-3


def test_causal_attention_without_history_is_full_attention(transformer, patchify):
    x, sigma, text = inputs()
    with torch.no_grad():
        seams, _ = causal(transformer, patchify)
        bare = pack(BARE, history(), patchify, rope_axes(transformer))
        full, blind = (velocity(transformer, seams, x, sigma, text, bare, attention=a) for a in ("full", "causal"))
    assert difference(full, blind) == 0.0


def test_one_history_serves_a_batch(transformer, patchify):
    """Guidance asks twice with one history; a history of one broadcasts."""
    x, sigma, text = inputs()
    seams = install_seams(transformer, SEAMS)
    axes = rope_axes(transformer)
    one = history(batch=1)
    two = History()
    two.remember(sorted(one.known), one.read(sorted(one.known)).expand(2, -1, -1, -1, -1))
    with torch.no_grad():
        a = velocity(transformer, seams, x, sigma, text, pack(FULL, one, patchify, axes))
        b = velocity(transformer, seams, x, sigma, text, pack(FULL, two, patchify, axes))
    assert difference(a, b) < 1e-5  # a convolution of two samples adds in another order than one of one


def test_a_sample_does_not_depend_on_its_batch(transformer, patchify):
    x, sigma, text = inputs(batch=3)
    known = history(batch=3)
    seams = install_seams(transformer, SEAMS)
    axes = rope_axes(transformer)
    with torch.no_grad():
        whole = velocity(transformer, seams, x, sigma, text, pack(FULL, known, patchify, axes))
        for k in range(3):
            alone = History()
            alone.remember(range(20), known.read(range(20))[k : k + 1])
            packed = pack(FULL, alone, patchify, axes)
            mine = velocity(transformer, seams, x[k : k + 1], sigma[k : k + 1], text[k : k + 1], packed)
            assert difference(mine, whole[k : k + 1]) < 1e-5  # other matrix shapes, other order of sums


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_weights_of_every_kernel(transformer, patchify, checkpointing):
    x, sigma, text = inputs()
    seams = install_seams(transformer, SEAMS)
    transformer.train()
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    packed = pack(FULL, history(), patchify, rope_axes(transformer))
    velocity(transformer, seams, x, sigma, text, packed).square().mean().backward()
    for name, parameter in patchify.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_phases_of_the_base_kernel_are_those_of_wan(transformer):
    axes = rope_axes(transformer)
    cos, sin = transformer.rope(torch.zeros(1, 4, 9, HEIGHT, WIDTH))
    ours = phases(tuple(range(9)), HEIGHT, WIDTH, axes.patch, axes)
    assert difference(ours.cos, cos[0, :, 0]) == 0.0
    assert difference(ours.sin, sin[0, :, 0]) == 0.0


def test_fresh_history_weights_see_the_pooled_latents(transformer):
    fresh = Patchify(transformer.patch_embedding, [K1, K2, K4])
    frames = drawn(2, 4, 8, 16, 24)
    for kernel, pool in ((K1, 1), (K2, 2), (K4, 4)):
        with torch.no_grad():
            expected = transformer.patch_embedding(nn.functional.avg_pool3d(frames, pool)).flatten(2).transpose(1, 2)
            assert difference(fresh(frames, kernel), expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotating_whole_tensors_changes_nothing(transformer, dtype):
    transformer.to(dtype)
    x, sigma, text = inputs()
    before = plain(transformer, x.to(dtype), sigma, text.to(dtype))
    rotate_whole_tensors(transformer)
    assert type(transformer.blocks[0].attn1.processor) is RotatingProcessor
    assert difference(plain(transformer, x.to(dtype), sigma, text.to(dtype)), before) == 0.0


def test_a_processor_of_the_users_own_is_left_alone(transformer):
    class Mine(WanAttnProcessor):
        pass

    transformer.blocks[0].attn1.set_processor(Mine())
    rotate_whole_tensors(transformer)
    kinds = [type(block.attn1.processor) for block in transformer.blocks]
    assert kinds == [Mine] + [RotatingProcessor] * (len(kinds) - 1)
    assert all(type(block.attn2.processor) is WanAttnProcessor for block in transformer.blocks)


def test_history_weights_travel_with_the_checkpoint(transformer, patchify, tmp_path):
    install_seams(transformer, SEAMS)
    transformer.save_pretrained(tmp_path)
    stock = WanTransformer3DModel.from_pretrained(tmp_path)
    x, sigma, text = inputs()
    assert difference(plain(stock.eval(), x, sigma, text), plain(transformer, x, sigma, text)) == 0.0
    assert not hasattr(stock, "history_patch_embed")
    state = transformer.state_dict()
    assert {k for k in state if k not in stock.state_dict()} == {
        f"history_patch_embed.proj.{k}.{w}" for k in ("k1h2w2", "k2h4w4", "k4h8w8") for w in ("weight", "bias")
    }


@pytest.mark.compile
@pytest.mark.parametrize("attention", ["full", "causal"])
def test_compiled_blocks_agree_and_the_whole_traces_without_a_break(transformer, patchify, attention):
    x, sigma, text = inputs()
    axes = rope_axes(transformer)
    seams = install_seams(transformer, SEAMS)
    rotate_whole_tensors(transformer, seams)
    with torch.no_grad():
        packed = pack(FULL, history(), patchify, axes)
        before = velocity(transformer, seams, x, sigma, text, packed, attention=attention)
        for block in transformer.blocks:
            block.compile(backend="eager", fullgraph=True)
        assert difference(velocity(transformer, seams, x, sigma, text, packed, attention=attention), before) == 0.0
        with seams.use(packed, causal=attention == "causal"):
            whole = torch.compile(transformer, backend="eager", fullgraph=True)
            assert difference(whole(x, 1000 * sigma, text, return_dict=False)[0], before) == 0.0
