"""Packed HunyuanVideo, from plan to velocity, against diffusers' own FramePack class and the official tables."""

import math

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import (
    HunyuanVideoFramepackTransformer3DModel,
    _center_down_sample_3d,
    _pad_for_3d_conv,
)
from peft import LoraConfig
from torch import nn

from longtake.backbones.hunyuan.conditioning import HunyuanConditioning, concatenate
from longtake.backbones.hunyuan.network import (
    OWN_KERNELS,
    add_image_projection,
    as_told,
    begin_history,
    history_patchify,
    install,
    project_in_float32,
    rope_axes,
    velocity,
)
from longtake.errors import ModelError
from longtake.flow import FRAMEPACK_SHIFT, SOLVERS, guide, shift_for, sigmas
from longtake.packing import History, pack, phases
from longtake.plan import Look, Section, make_plan
from longtake.schedule import Kernel, parse

K1, K2, K4 = OWN_KERNELS
HEIGHT, WIDTH = 6, 10  # latents; an odd grid of 3 x 5 patches, so that every kernel above the base needs padding
GENERATED = 9
INVERTED, F1 = "f1k1_x_g9_f1k1f2k2f16k4", "f1k1_x_f16k4f2k2f1k1_g9"

PLAIN = {  # two heads of 16 channels: axes of 4, 6 and 6
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}
IMAGES = {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 12}

# How many sections lie between the start image and the one that is made -> indices (official-walk 1.6).
INVERTED_TABLE = {
    3: ((0, 1), (28, 37), (37, 38), (38, 40), (40, 56)),  # start, new, post, 2x, 4x, half-open
    2: ((0, 1), (19, 28), (28, 29), (29, 31), (31, 47)),
    1: ((0, 1), (10, 19), (19, 20), (20, 22), (22, 38)),
    0: ((0, 1), (1, 10), (10, 11), (11, 13), (13, 29)),
}
F1_TABLE = ((0, 1), (20, 29), (19, 20), (17, 19), (1, 17))  # start, new, 1x, 2x, 4x


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.fixture
def framepack(randomize):
    return randomize(HunyuanVideoFramepackTransformer3DModel(**PLAIN, **IMAGES))


@pytest.fixture
def plain(randomize):
    return randomize(HunyuanVideoTransformer3DModel(**PLAIN))


def told(lengths=(7,), image=True, seed=10):
    """Prompts of so many real tokens, each."""
    return concatenate(
        [
            HunyuanConditioning(
                text=drawn(1, length, 16, seed=seed + k),
                mask=torch.ones(1, length, dtype=torch.bool),
                pooled=drawn(1, 8, seed=seed + 20 + k),
                image=drawn(1, 5, 12, seed=seed + 40 + k) if image else None,
                guidance=6.0,
            )
            for k, length in enumerate(lengths)
        ]
    )


def plan_of(schedule, order, sections):
    frames = GENERATED * sections + 1
    return make_plan(parse(schedule), frames, order, gaps="clamped", missing="zeros")


def started(batch=1):
    history = History(missing="zeros")
    history.remember([0], drawn(batch, 4, 1, HEIGHT, WIDTH, seed=3))
    return history


def remember(history, section):
    """What stands for the frames of a section once it is made: every frame is another one."""
    for frame in section.frames:
        history.remember([frame], drawn(history.shape[0], 4, 1, HEIGHT, WIDTH, seed=100 + frame))


class Official:
    """The official program's own bookkeeping of one video: a buffer of latents, and the tables of indices."""

    def __init__(self, order, start):
        self.order, self.start = order, start
        zeros = start.new_zeros(*start.shape[:2], 19, *start.shape[3:])
        self.buffer = zeros if order == "inverted" else torch.cat([zeros, start], dim=2)

    def arguments(self, padding):
        if self.order == "inverted":
            table = INVERTED_TABLE[padding]
            near, middle, far = self.buffer[:, :, :19].split([1, 2, 16], dim=2)
        else:
            table = F1_TABLE
            far, middle, near = self.buffer[:, :, -19:].split([16, 2, 1], dim=2)
        first, new, one, two, four = (torch.arange(*ends) for ends in table)
        return {
            "indices_latents": new,
            "latents_clean": torch.cat([self.start, near], dim=2),
            "indices_latents_clean": torch.cat([first, one]),
            "latents_history_2x": middle,
            "indices_latents_history_2x": two,
            "latents_history_4x": far,
            "indices_latents_history_4x": four,
        }

    def remember(self, made, padding):
        if self.order == "inverted":
            made = torch.cat([self.start, made], dim=2) if padding == 0 else made
            self.buffer = torch.cat([made, self.buffer], dim=2)
        else:
            self.buffer = torch.cat([self.buffer, made], dim=2)


def paddings_of(sections):
    """The official rule (official-walk 1.6)."""
    return list(range(sections))[::-1] if sections <= 4 else [3] + [2] * (sections - 3) + [1, 0]


def natively(framepack, x, sigma, conditioning, arguments, image=None):
    c = conditioning
    with torch.no_grad():
        return framepack(
            x,
            1000 * sigma,
            c.text,
            c.mask,
            c.pooled,
            c.image if image is None else image,
            guidance=torch.full_like(sigma, 1000 * c.guidance),
            return_dict=False,
            **arguments,
        )[0]


def indices(section):
    """Positions by what they are of: the section, and its looks by kernel."""
    looks = {K1: [], K2: [], K4: []}
    for look in section.sees:
        looks[look.kernel] += look.positions
    return {"new": list(section.positions)} | looks


@pytest.mark.parametrize("sections", [1, 2, 3, 4, 5, 6, 8, 25])
def test_inverted_plans_have_the_official_indices(sections):
    plan = plan_of(INVERTED, "inverted", sections)
    assert len(plan.sections) == sections
    for section, padding in zip(plan.sections, paddings_of(sections), strict=True):
        start, new, post, two, four = (list(range(*ends)) for ends in INVERTED_TABLE[padding])
        assert indices(section) == {"new": new, K1: start + post, K2: two, K4: four}


def test_six_sections_pad_as_the_notes_say():
    assert paddings_of(6) == [3, 2, 2, 2, 1, 0]
    assert paddings_of(8) == [3, 2, 2, 2, 2, 2, 1, 0]
    assert paddings_of(4) == [3, 2, 1, 0]


@pytest.mark.parametrize("sections", [1, 2, 7])
def test_vanilla_plans_have_the_indices_of_f1(sections):
    for section in plan_of(F1, "vanilla", sections).sections:
        start, new, one, two, four = (list(range(*ends)) for ends in F1_TABLE)
        assert indices(section) == {"new": new, K1: start + one, K2: two, K4: four}


@pytest.mark.parametrize("lengths", [(7,), (7, 4)], ids=["alone", "ragged batch"])
@pytest.mark.parametrize(("schedule", "order"), [(INVERTED, "inverted"), (F1, "vanilla")], ids=["inverted", "f1"])
def test_every_section_of_a_video_is_that_of_the_framepack_class(framepack, schedule, order, lengths):
    batch, c = len(lengths), told(lengths)
    plan, history = plan_of(schedule, order, sections=5), started(batch)
    official = Official(order, history.read([0]))
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    sigma = torch.linspace(0.9, 0.4, batch)
    for section, padding in zip(plan.sections, paddings_of(5), strict=True):
        x = drawn(batch, 4, GENERATED, HEIGHT, WIDTH, seed=50 + section.index)
        with torch.no_grad():
            ours = velocity(framepack, seams, x, sigma, c, pack(section, history, patchify, axes))
        theirs = natively(framepack, x, sigma, c, official.arguments(padding))
        assert theirs.std() > 0.1
        assert difference(ours, theirs) < 2e-5  # float32: another order of tokens, phases made in float64 here
        remember(history, section)
        official.remember(history.read(section.frames), padding)


def test_what_differs_is_seen(framepack):
    """The comparison above can fail: another place of the start image, or other zeros, change the velocity."""
    section, history = plan_of(INVERTED, "inverted", sections=2).sections[0], started()
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    x, sigma, c = drawn(1, 4, GENERATED, HEIGHT, WIDTH, seed=1), torch.tensor([0.7]), told()
    arguments = Official("inverted", history.read([0])).arguments(1)
    with torch.no_grad():
        ours = velocity(framepack, seams, x, sigma, c, pack(section, history, patchify, axes))
    shifted = arguments | {"indices_latents": arguments["indices_latents"] + 9}
    assert difference(ours, natively(framepack, x, sigma, c, arguments)) < 2e-5
    assert difference(ours, natively(framepack, x, sigma, c, shifted)) > 1e-3
    without = arguments | {"latents_history_4x": torch.ones_like(arguments["latents_history_4x"])}
    assert difference(ours, natively(framepack, x, sigma, c, without)) > 1e-3
    other = natively(framepack, x, sigma, c, arguments, image=torch.zeros_like(c.image))
    assert difference(ours, other) > 1e-3


def section_of(sees, frames=(20, 21, 22)):
    return Section(index=0, frames=frames, positions=frames, sees=sees)


BARE = section_of(())
# Kernels that no released model has, beside one that it has, and spans that they do not divide.
FREE = section_of(
    (
        Look((0, 1, 2, 3), Kernel(8, 8, 8), (0, 1, 2, 3)),
        Look((4, 5, 6), Kernel(1, 4, 4), (14, 15, 16)),
        Look((7, 8, 9), K2, (17, 18, 19)),
    )
)


def known(batch=1, frames=20):
    history = History()
    history.remember(range(frames), drawn(batch, 4, frames, HEIGHT, WIDTH, seed=3))
    return history


def twin(framepack):
    """A plain HunyuanVideo with the same weights, image projection and history of its own."""
    model = HunyuanVideoTransformer3DModel(**PLAIN)
    add_image_projection(model, width=12)
    state = {n: w for n, w in framepack.state_dict().items() if not n.startswith(("clean_x", "history_patch"))}
    model.load_state_dict(state)
    return model.eval()


def asked(transformer, section, c, batch=1, kernels=(K1, K2, K4), weights=None):
    begin_history(transformer, kernels)
    seams, patchify = install(transformer), history_patchify(transformer)
    if weights is not None:
        patchify.load_state_dict(weights.state_dict())
    x, sigma = drawn(batch, 4, len(section.frames), HEIGHT, WIDTH, seed=1), torch.linspace(0.9, 0.4, batch)
    with torch.no_grad():
        packed = pack(section, known(batch), patchify, rope_axes(transformer))
        made = velocity(transformer, seams, x, sigma, c, packed)
    seams.remove()
    return made


@pytest.mark.parametrize("image", [True, False], ids=["image", "no image"])
@pytest.mark.parametrize("lengths", [(7,), (7, 4)], ids=["alone", "ragged batch"])
@pytest.mark.parametrize("section", [BARE, FREE], ids=["no history", "free schedule"])
def test_the_plain_class_and_the_framepack_class_agree_on_any_schedule(framepack, section, lengths, image, randomize):
    kernels = (Kernel(8, 8, 8), Kernel(1, 4, 4), K2, K1, K4)
    c, batch = told(lengths, image=image), len(lengths)
    begin_history(framepack, kernels)
    weights = randomize(history_patchify(framepack), seed=2)
    theirs = asked(framepack, section, c, batch, kernels, weights)
    ours = asked(twin(framepack), section, c, batch, kernels, weights)
    assert theirs.std() > 0.1
    assert difference(ours, theirs) < 2e-5  # with a mask and without: other kernels of attention


@pytest.mark.parametrize("lengths", [(7,), (7, 4)], ids=["alone", "ragged batch"])
def test_without_history_and_image_the_plain_class_is_itself(plain, lengths):
    c, batch = told(lengths, image=False), len(lengths)
    x, sigma = drawn(batch, 4, 3, HEIGHT, WIDTH, seed=1), torch.linspace(0.9, 0.4, batch)
    guidance = torch.full_like(sigma, 6000.0)
    with torch.no_grad():
        before = plain(x, 1000 * sigma, c.text, c.mask, c.pooled, guidance, return_dict=False)[0]
        seams = install(plain)
        idle = plain(x, 1000 * sigma, c.text, c.mask, c.pooled, guidance, return_dict=False)[0]
    assert difference(idle, before) == 0.0
    seams.remove()
    after = asked(plain, section_of((), frames=(0, 1, 2)), c, batch)
    assert difference(after, before) < 1e-5  # phases in float32 there, in float64 here


def test_idle_or_removed_seams_give_the_framepack_class_back(framepack):
    x, sigma, c = drawn(1, 4, GENERATED, HEIGHT, WIDTH, seed=1), torch.tensor([0.7]), told()
    arguments = Official("vanilla", started().read([0])).arguments(0)
    before = natively(framepack, x, sigma, c, arguments)
    forwards = {name: m.forward for name, m in framepack.named_modules()}
    seams = install(framepack)
    assert difference(natively(framepack, x, sigma, c, arguments), before) == 0.0
    seams.remove()
    assert {name: m.forward for name, m in framepack.named_modules()} == forwards
    assert difference(natively(framepack, x, sigma, c, arguments), before) == 0.0


def masks_of(transformer, c, batch):
    """The attention masks that the blocks of a network are given."""
    seen = []
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        )
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    ]
    asked(transformer, FREE, c, batch, (Kernel(8, 8, 8), Kernel(1, 4, 4), K2))
    for hook in hooks:
        hook.remove()
    return seen


def test_a_lone_sample_needs_no_mask_and_padding_is_masked_in_a_batch(framepack):
    padded = concatenate([told((4,)), told((7,))])
    lone = HunyuanConditioning(padded.text[:1], padded.mask[:1], padded.pooled[:1], padded.image[:1], 6.0)
    assert all(mask is None for mask in masks_of(framepack, lone, batch=1))
    masks = masks_of(framepack, padded, batch=2)
    assert len(masks) == 4
    for mask in masks:
        assert mask.sum(-1).flatten().tolist() == [mask.shape[-1] - 3, mask.shape[-1]]


def test_a_sample_depends_neither_on_its_batch_nor_on_its_padding(framepack):
    texts = [told((length,), seed=10 * length) for length in (7, 4, 5)]
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    section, frames = section_of((Look((7, 8, 9), K2, (17, 18, 19)),)), known(3).read(range(20))
    x, sigma = drawn(3, 4, 3, HEIGHT, WIDTH, seed=1), torch.tensor([0.9, 0.6, 0.3])
    with torch.no_grad():
        whole = velocity(framepack, seams, x, sigma, concatenate(texts), pack(section, known(3), patchify, axes))
        for k, text in enumerate(texts):
            alone = History()
            alone.remember(range(20), frames[k : k + 1])
            one = slice(k, k + 1)
            mine = velocity(framepack, seams, x[one], sigma[one], text, pack(section, alone, patchify, axes))
            assert difference(mine, whole[one]) < 2e-5  # with a mask and without; other shapes, other order of sums


def test_one_prompt_and_one_history_serve_a_batch(framepack):
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    packed = pack(section_of((Look((9,), K1, (19,)),)), known(), patchify, axes)
    x, sigma = drawn(2, 4, 3, HEIGHT, WIDTH, seed=1), torch.tensor([0.9, 0.3])
    with torch.no_grad():
        both = velocity(framepack, seams, x, sigma, told(), packed)
        each = [velocity(framepack, seams, x[k : k + 1], sigma[k : k + 1], told(), packed) for k in range(2)]
    assert difference(both, torch.cat(each)) < 2e-5  # as above


def test_image_tokens_need_weights(plain):
    with pytest.raises(ModelError, match="plain HunyuanVideo"):
        asked(plain, BARE, told())


def test_a_framepack_class_without_its_weights_is_refused():
    for lacks in ("has_clean_x_embedder", "has_image_proj"):
        model = HunyuanVideoFramepackTransformer3DModel(**PLAIN, **IMAGES | {lacks: False})
        with pytest.raises(ModelError, match="has_clean_x_embedder and has_image_proj"):
            install(model)
        with pytest.raises(ModelError, match="has_clean_x_embedder and has_image_proj"):
            begin_history(model, (K1,))


def test_prompts_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="all or none"):
        concatenate([told(), told(image=False)])
    other = HunyuanConditioning(*(drawn(1, 2, 16), torch.ones(1, 2).bool(), drawn(1, 8)), guidance=10.0)
    with pytest.raises(ValueError, match="guided by 6, 10"):
        concatenate([told(image=False), other])


def test_released_history_weights_are_shared_and_others_are_begun_from_the_patch_embedding(framepack):
    own = framepack.clean_x_embedder
    before = set(framepack.state_dict())
    begin_history(framepack, (K1, K2, K4))
    released = history_patchify(framepack)
    assert [released.proj[n] for n in ("k1h2w2", "k2h4w4", "k4h8w8")] == [own.proj, own.proj_2x, own.proj_4x]
    assert set(framepack.state_dict()) == before
    begin_history(framepack, (K1, Kernel(8, 8, 8)))
    more = history_patchify(framepack)
    assert more.proj["k1h2w2"] is own.proj
    assert set(framepack.state_dict()) - before == {
        f"history_patch_embed.proj.k8h8w8.{kind}" for kind in ("weight", "bias")
    }
    framepack.double()
    assert {p.dtype for p in more.parameters()} == {torch.float64}


def test_adapters_of_history_weights_are_seen(framepack, randomize):
    begin_history(framepack, (Kernel(8, 8, 8),))
    framepack.add_adapter(
        LoraConfig(r=2, target_modules=["clean_x_embedder.proj_2x", "history_patch_embed.proj.k8h8w8"])
    )
    randomize(framepack)
    with torch.no_grad():
        for kernel in (K2, Kernel(8, 8, 8)):
            adapted = history_patchify(framepack)(known().read(range(8)), kernel)
            framepack.disable_adapters()
            assert difference(history_patchify(framepack)(known().read(range(8)), kernel), adapted) > 1e-3
            framepack.enable_adapters()


def test_fresh_history_weights_see_the_pooled_latents(plain):
    """Point (h)."""
    with pytest.raises(ModelError, match="until they are begun"):
        history_patchify(plain)
    begin_history(plain, (K1, K2, K4))
    fresh, frames = history_patchify(plain), drawn(2, 4, 8, 16, 24)
    assert plain.history_patch_embed is fresh
    for kernel, pool in ((K1, 1), (K2, 2), (K4, 4)):
        with torch.no_grad():
            expected = plain.x_embedder(nn.functional.avg_pool3d(frames, pool))
            assert difference(fresh(frames, kernel), expected) < 2e-6  # sums of up to 1,024 products


def test_trained_weights_and_gradients_go_through_every_kernel_and_projection(framepack):
    seams, patchify = install(framepack), history_patchify(framepack)
    framepack.train()
    framepack.enable_gradient_checkpointing()
    section, history = plan_of(F1, "vanilla", 4).sections[3], started(2)
    for frame in section.seen - {0}:
        history.remember([frame], drawn(2, 4, 1, HEIGHT, WIDTH, seed=frame))
    packed = pack(section, history, patchify, rope_axes(framepack))
    x, sigma = drawn(2, 4, GENERATED, HEIGHT, WIDTH, seed=1), torch.tensor([0.9, 0.3])
    velocity(framepack, seams, x, sigma, told((7, 4)), packed).square().mean().backward()
    of_history = {n: p for n, p in framepack.named_parameters() if n.startswith(("clean_x_embedder", "image_proj"))}
    assert len(of_history) == 10
    for name, parameter in of_history.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("kernel", "pool"), [(K1, (1, 1, 1)), (K2, (2, 2, 2)), (K4, (4, 4, 4))])
def test_phases_are_those_of_the_framepack_class(kernel, pool):
    """Point (g), at the full head size: 16, 56 and 56 channels, and a grid that no pool divides."""
    with torch.device("meta"):
        shape = {"num_layers": 0, "num_single_layers": 0, "num_refiner_layers": 0, "num_attention_heads": 1}
        model = HunyuanVideoFramepackTransformer3DModel(**shape)
    axes = rope_axes(model)
    assert (axes.t, axes.h, axes.w, axes.theta, axes.head_size) == (16, 56, 56, 256.0, 128)
    positions, height, width = (37, 38, 39, 40, 41, 42), 10, 14
    cos, sin = model.rope(torch.tensor(positions), height, width, torch.device("cpu"))
    ours = phases(positions, height, width, kernel, axes)
    for mine, full in ((ours.cos, cos), (ours.sin, sin)):
        grid = full.T.unflatten(1, (len(positions), height // 2, width // 2))[None]
        theirs = _center_down_sample_3d(_pad_for_3d_conv(grid, pool), pool)[0].flatten(1).T
        assert mine.shape == theirs.shape
        assert difference(mine, theirs) < 1e-5  # float32 angles of up to 42 there


def test_the_full_size_has_the_tensors_of_the_release():
    with torch.device("meta"):
        released = HunyuanVideoFramepackTransformer3DModel(has_clean_x_embedder=True, has_image_proj=True)
        base = HunyuanVideoTransformer3DModel()
    shapes = {name: tuple(w.shape) for name, w in released.state_dict().items()}
    of_base = {name: tuple(w.shape) for name, w in base.state_dict().items()}
    assert len(shapes) == 1274
    assert len(of_base) == 1264
    assert round(sum(map(math.prod, shapes.values())) / 1e9, 3) == 12.874
    assert {name: shape for name, shape in shapes.items() if name not in of_base} == {
        "clean_x_embedder.proj.weight": (3072, 16, 1, 2, 2),
        "clean_x_embedder.proj.bias": (3072,),
        "clean_x_embedder.proj_2x.weight": (3072, 16, 2, 4, 4),
        "clean_x_embedder.proj_2x.bias": (3072,),
        "clean_x_embedder.proj_4x.weight": (3072, 16, 4, 8, 8),
        "clean_x_embedder.proj_4x.bias": (3072,),
        "image_projection.up.weight": (9216, 1152),
        "image_projection.up.bias": (9216,),
        "image_projection.down.weight": (3072, 9216),
        "image_projection.down.bias": (3072,),
    }
    assert {name: shapes[name] for name in of_base} == of_base
    install(released)
    assert {name for name, _ in history_patchify(released).named_parameters()} == {
        f"proj.{kernel}.{kind}" for kernel in ("k1h2w2", "k2h4w4", "k4h8w8") for kind in ("weight", "bias")
    }
    assert len(released.state_dict()) == 1274
    add_image_projection(base)
    added = {name: tuple(w.shape) for name, w in base.state_dict().items() if name not in of_base}
    assert added == {name: shapes[name] for name in shapes if name.startswith("image_projection")}


# What the official program tells the network in 25 steps at shift 7, as bfloat16 has it (official-walk 1.7).
OFFICIAL_TIMESTEPS = [
    1000, 996, 988, 980, 972, 964, 956, 948, 936, 924, 912, 900, 884, 864, 848, 824, 796, 768, 732, 688, 636, 572, 488,
    378, 226,
]  # fmt: skip


def test_the_official_timesteps_and_guidances_are_rounded_to_bfloat16():
    """Point (i)."""
    levels = sigmas(25, shift_for(9 * 1520, FRAMEPACK_SHIFT))[:-1]
    assert as_told(levels, "official").tolist() == OFFICIAL_TIMESTEPS
    assert torch.equal(as_told(levels), 1000 * levels)
    assert as_told(torch.tensor([10.0, 9.0, 6.0]), "official").tolist() == [9984, 9024, 6016]


def test_the_official_velocity_is_told_rounded_numbers(framepack):
    x, sigma, c = drawn(1, 4, GENERATED, HEIGHT, WIDTH, seed=1), torch.tensor([0.9941]), told()
    arguments = Official("vanilla", started().read([0])).arguments(0)
    section = plan_of(F1, "vanilla", 1).sections[0]
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    with torch.no_grad():
        packed = pack(section, started(), patchify, axes)
        ours = velocity(framepack, seams, x, sigma, c, packed, compat="official")
        exact = velocity(framepack, seams, x, sigma, c, packed)
    rounded = HunyuanConditioning(c.text, c.mask, c.pooled, c.image, guidance=6.016)
    assert difference(ours, natively(framepack, x, torch.tensor([0.996]), rounded, arguments)) < 2e-5  # as above
    assert difference(ours, exact) > 1e-4


def test_the_last_layer_can_compute_in_float32(framepack):
    x, sigma, c = drawn(1, 4, GENERATED, HEIGHT, WIDTH, seed=1), torch.tensor([0.7]), told()
    framepack.bfloat16()
    section = plan_of(F1, "vanilla", 1).sections[0]
    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    hidden = []
    framepack.norm_out.register_forward_hook(lambda module, args, output: hidden.append(output))
    with torch.no_grad():
        packed = pack(section, started(), patchify, axes)
        assert packed.tokens.dtype == torch.bfloat16
        half = velocity(framepack, seams, x, sigma, c, packed)
        project_in_float32(framepack)
        full = velocity(framepack, seams, x, sigma, c, packed)
        assert torch.equal(hidden[0], hidden[1])
        tokens = nn.functional.linear(hidden[0].float(), framepack.proj_out.weight, framepack.proj_out.bias)
    assert full.dtype == x.dtype
    assert torch.equal(half, half.bfloat16().float())
    assert not torch.equal(full, full.bfloat16().float())
    assert torch.equal(full.flatten().sort().values, tokens.flatten().sort().values)
    assert 0 < difference(full, half) <= 2**-8 * full.abs().max().item()  # half a step of bfloat16's eight digits


@pytest.mark.compile
@pytest.mark.parametrize("lengths", [(7,), (7, 4)], ids=["alone", "ragged batch"])
def test_compiled_blocks_agree(framepack, lengths):
    c, batch, kernels = told(lengths), len(lengths), (Kernel(8, 8, 8), Kernel(1, 4, 4), K2)
    before = asked(framepack, FREE, c, batch, kernels)
    for block in (*framepack.transformer_blocks, *framepack.single_transformer_blocks):
        block.compile(backend="eager", fullgraph=True)
    assert difference(asked(framepack, FREE, c, batch, kernels), before) == 0.0


def section_of_diffusers(framepack, scheduler, x, arguments, prompts):
    """One section by the parts of diffusers: class, guider, scheduler."""
    guider = ClassifierFreeGuidance(guidance_scale=2.0, guidance_rescale=0.5)
    for step, t in enumerate(scheduler.timesteps):
        guider.set_state(step=step, num_inference_steps=len(scheduler.timesteps), timestep=t)
        sigma = t[None] / 1000
        seen, unseen = (natively(framepack, x, sigma, c, arguments) for c in prompts)
        x = scheduler.step(guider.forward(seen, unseen).pred, t, x, return_dict=False)[0]
    return x


def test_a_guided_section_is_the_one_that_parts_of_diffusers_make(framepack, flow_unipc):
    steps, prompts = 6, (told((7,)), told((4,), seed=70))
    with torch.no_grad():
        framepack.proj_out.weight.mul_(0.3)  # velocities of about unit spread; wilder ones magnify round-off
    plan, history = plan_of(INVERTED, "inverted", sections=3), started()
    official = Official("inverted", history.read([0]))
    first, section, _ = plan.sections
    remember(history, first)
    official.remember(history.read(first.frames), padding=2)
    x = drawn(1, 4, GENERATED, HEIGHT, WIDTH, seed=8)

    seams, patchify, axes = install(framepack), history_patchify(framepack), rope_axes(framepack)
    with torch.no_grad():
        packed = pack(section, history, patchify, axes)

        def guided(x, sigma):
            level = torch.tensor([sigma])
            seen, unseen = (velocity(framepack, seams, x, level, c, packed) for c in prompts)
            return guide(seen, unseen, 2.0, rescale=0.5)

        tokens = len(packed.target_cos)
        *_, ours = SOLVERS["unipc"](guided, x, sigmas(steps, shift_for(tokens, FRAMEPACK_SHIFT)))
    mu = min(0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256), math.log(7.0))
    theirs = section_of_diffusers(framepack, flow_unipc(steps, mu), x, official.arguments(padding=1), prompts)
    assert theirs.std() > 0.5
    assert difference(ours, theirs) < 1e-4  # float32: six steps of two evaluations, each equal to about 1e-6
