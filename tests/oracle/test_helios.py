"""Packed Helios, from plan to video, against diffusers' own class and its pipelines."""

from dataclasses import replace

import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosPipeline, HeliosPyramidPipeline, HeliosScheduler
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel

from longtake.backbones.architecture import CodecShape, new_codec
from longtake.backbones.codec import Codec
from longtake.backbones.helios.anchor import SCHEDULE, Start, start_of
from longtake.backbones.helios.network import (
    OWN_KERNELS,
    begin_history,
    check_settings,
    history_patchify,
    install,
    rope_axes,
    velocity,
)
from longtake.backbones.helios.sampling import SAMPLINGS
from longtake.backbones.settings import BackboneSettings
from longtake.errors import ModelError
from longtake.flow import GUIDES, climb, interpolate
from longtake.packing import History, pack, phases, resized
from longtake.plan import ANCHOR, Look, Section, anchored, make_plan
from longtake.schedule import Kernel, parse

# diffusers' Helios schedulers hand tensors to NumPy, in a way that NumPy means to end.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

K1, K2, K4 = OWN_KERNELS
HEIGHT, WIDTH = 6, 10  # latents; an odd grid of 3 x 5 patches, so that every kernel above the base needs padding
SHAPE = {  # two heads of 20 channels: axes of 8, 6 and 6
    "num_attention_heads": 2,
    "attention_head_dim": 20,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 2,
    "rope_dim": (8, 6, 6),
}
# (16, 2, 1) frames and the first one, as the published pipelines have it: half-open indices.
LAYOUT = {"short": (0, 19), "mid": (17, 18), "long": tuple(range(1, 17)), "made": tuple(range(20, 29))}
KINDS = {
    "released": {},
    "amplified": {"is_amplify_history": True},
    "amplified as one": {"is_amplify_history": True, "history_scale_mode": "scalar"},
    "history told the section's time": {"zero_history_timestep": False},
    "history that hears the text": {"guidance_cross_attn": False},
}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.fixture
def helios(randomize):
    return randomize(HeliosTransformer3DModel(**SHAPE))


def inputs(batch=2, frames=9):
    x, text = drawn(batch, 4, frames, HEIGHT, WIDTH, seed=1), drawn(batch, 7, 16, seed=2)
    return x, torch.linspace(0.3, 0.9, batch), text


def known(batch=2, frames=28, missing="zeros"):
    history = History(missing)
    history.remember((ANCHOR,), drawn(batch, 4, 1, HEIGHT, WIDTH, seed=4))
    history.remember(range(frames), drawn(batch, 4, frames, HEIGHT, WIDTH, seed=3))
    return history


def their_arguments(section, history):
    """What diffusers' own forward wants for a section: frames and indices of each kernel."""
    looks = {"short": [], "mid": [], "long": []}
    for look in section.sees:
        looks[{K1: "short", K2: "mid", K4: "long"}[look.kernel]].append(look)
    arguments = {"indices_hidden_states": torch.tensor(section.positions)[None]}
    for name, of in looks.items():
        if of:
            arguments[f"latents_history_{name}"] = history.read([f for look in of for f in look.frames])
            arguments[f"indices_latents_history_{name}"] = torch.tensor([[p for look in of for p in look.positions]])
    return arguments


def theirs(transformer, x, sigma, text, section, history):
    with torch.no_grad():
        return transformer(x, 1000 * sigma, text, **their_arguments(section, history), return_dict=False)[0]


def ours(transformer, x, sigma, text, section, history):
    seams = install(transformer)
    with torch.no_grad():
        packed = pack(section, history, history_patchify(transformer), rope_axes(transformer))
        v = velocity(transformer, seams, x, sigma, text, packed)
    seams.remove()
    return v


def plan_of(sections, first=0):
    return anchored(make_plan(parse(SCHEDULE), 9 * sections + first, gaps="clamped", missing="zeros", first=first))


# Partial history, which diffusers' forward takes too, with short history among it: the others are counted by its grid.
RAGGED = Section(
    index=1,
    frames=tuple(range(10, 19)),
    positions=tuple(range(31, 40)),
    sees=(Look((0,), K1, (0,)), Look(tuple(range(1, 7)), K4, tuple(range(11, 17))), Look((7, 8, 9), K2, (17, 18, 19))),
)
SHORT = Section(0, tuple(range(2, 11)), tuple(range(5, 14)), (Look((0, 1), K1, (0, 4)),))
NOTHING = Section(0, tuple(range(9)), tuple(range(9)), ())


def test_the_layout_is_that_of_the_published_pipelines():
    for first in (0, 1):
        for section in plan_of(4, first).sections:
            arguments = their_arguments(section, known(1, 40))
            for name in ("short", "mid", "long"):
                assert tuple(arguments[f"indices_latents_history_{name}"][0].tolist()) == LAYOUT[name]
            assert section.positions == LAYOUT["made"]
            seen = [frame for look in section.sees for frame in look.frames]
            assert seen == [ANCHOR, *range(section.frames[0] - 19, section.frames[0])]


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_packed_helios_is_its_own_forward(randomize, config, batch):
    transformer = randomize(HeliosTransformer3DModel(**SHAPE, **config))
    x, sigma, text = inputs(batch)
    section, history = plan_of(3).sections[1], known(batch, 9)
    expected = theirs(transformer, x, sigma, text, section, history)
    assert expected.std() > 0.1
    assert difference(ours(transformer, x, sigma, text, section, history), expected) < 1e-5  # float32 phases there


@pytest.mark.parametrize("section", [RAGGED, SHORT, NOTHING], ids=["ragged", "short alone", "nothing"])
def test_partial_history_is_that_of_its_own_forward(helios, section):
    x, sigma, text = inputs()
    history = known(missing="absent")
    expected = theirs(helios, x, sigma, text, section, history)
    assert difference(ours(helios, x, sigma, text, section, history), expected) < 1e-5


def test_history_changes_what_is_made_and_so_does_its_time(helios):
    x, sigma, text = inputs()
    section, history = plan_of(3).sections[1], known(2, 9)
    seen = ours(helios, x, sigma, text, section, history)
    assert difference(seen, ours(helios, x, sigma, text, NOTHING, history)) > 1e-2
    helios.zero_history_timestep = False
    assert difference(seen, ours(helios, x, sigma, text, section, history)) > 1e-3


def test_one_history_serves_a_batch(helios):
    x, sigma, text = inputs()
    section, one = plan_of(3).sections[1], known(1, 9)
    both = History("zeros")
    for frame in sorted(one.known):
        both.remember([frame], one.read([frame]).expand(2, -1, -1, -1, -1))
    a = ours(helios, x, sigma, text, section, one)
    b = ours(helios, x, sigma, text, section, both)
    assert difference(a, b) < 1e-5  # a convolution of two samples adds in another order than one of one


def test_in_bfloat16_the_numbers_are_those_of_its_own_forward(helios):
    helios.to(torch.bfloat16)
    x, sigma, text = inputs()
    section, history = plan_of(3).sections[1], known(2, 9)
    low = History("zeros")
    for frame in sorted(history.known):
        low.remember([frame], history.read([frame]).to(torch.bfloat16))
    expected = theirs(helios, x.bfloat16(), sigma, text.bfloat16(), section, low)
    mine = ours(helios, x, sigma, text, section, history)
    assert mine.dtype == torch.float32
    assert difference(mine, expected.float()) <= 0.05 * expected.float().std()  # tokens stand in another order of sums


def test_idle_and_removed_seams_change_nothing(helios):
    x, sigma, text = inputs()
    section, history = plan_of(3).sections[1], known(2, 9)
    names, before = list(helios.state_dict()), theirs(helios, x, sigma, text, section, history)
    forwards = {name: m.forward for name, m in helios.named_modules()}
    seams = install(helios)
    assert list(helios.state_dict()) == names
    assert difference(theirs(helios, x, sigma, text, section, history), before) == 0.0
    seams.remove()
    assert {name: m.forward for name, m in helios.named_modules()} == forwards


def test_the_released_kernels_are_shared_and_others_begun(helios):
    wide = Kernel(1, 8, 8)
    begin_history(helios, [K2, wide])
    patchify = history_patchify(helios)
    assert patchify.proj["k4h8w8"] is helios.patch_long
    assert set(patchify.proj) == {"k1h2w2", "k2h4w4", "k4h8w8", "k1h8w8"}
    assert [name for name in helios.state_dict() if "history_patch_embed" in name] == [
        "history_patch_embed.proj.k1h8w8.weight",
        "history_patch_embed.proj.k1h8w8.bias",
    ]
    x, sigma, text = inputs()
    section = Section(0, tuple(range(9)), tuple(range(9)), (Look((3, 4), wide, (3, 4)),))
    assert ours(helios, x, sigma, text, section, known()).isfinite().all()


def test_gradients_reach_the_weights_of_every_kernel(helios):
    x, sigma, text = inputs()
    seams, patchify = install(helios), history_patchify(helios)
    helios.train()
    helios.enable_gradient_checkpointing()
    packed = pack(plan_of(3).sections[1], known(2, 9), patchify, rope_axes(helios))
    velocity(helios, seams, x, sigma, text, packed).square().mean().backward()
    for name in OWN_KERNELS.values():
        assert getattr(helios, name).weight.grad.abs().max() > 0


def test_phases_of_the_base_kernel_are_those_of_helios(helios):
    positions = (20, 21, 22)
    theirs = helios.rope(torch.tensor([positions]), 3, 5, torch.device("cpu")).flatten(2).transpose(1, 2)[0]
    mine = phases(positions, HEIGHT, WIDTH, K1, rope_axes(helios))
    assert difference(torch.cat([mine.cos, mine.sin], dim=1), theirs) < 1e-5  # float32 frequencies there


def test_a_helios_without_history_is_refused():
    transformer = HeliosTransformer3DModel(**SHAPE, has_multi_term_memory_patch=False)
    for use in (install, history_patchify):
        with pytest.raises(ModelError, match="has_multi_term_memory_patch"):
            use(transformer)


def test_settings_that_the_network_does_not_have_are_refused(helios):
    check_settings(helios, BackboneSettings(history_time="clean"))
    with pytest.raises(ModelError, match=r"history_time is 'same'.*expected 'clean'"):
        check_settings(helios, BackboneSettings())
    with pytest.raises(ModelError, match="expected attention 'full'"):
        check_settings(helios, BackboneSettings(history_time="clean", attention="causal"))


def test_at_full_size_nothing_is_renamed_and_the_kernels_are_as_wide_as_the_model():
    with torch.device("meta"):
        transformer = HeliosTransformer3DModel()
        install(transformer)
        patchify = history_patchify(transformer)
    state = transformer.state_dict()
    assert len(state) == 1101  # Wan 2.1 14B's 1095 and three convolutions
    assert sum(p.numel() for p in transformer.parameters()) == 14_312_427_584
    assert {name: tuple(conv.weight.shape) for name, conv in patchify.proj.items()} == {
        "k1h2w2": (5120, 16, 1, 2, 2),
        "k2h4w4": (5120, 16, 2, 4, 4),
        "k4h8w8": (5120, 16, 4, 8, 8),
    }
    assert not any("history_patch_embed" in name for name in state)


# Whole videos, section by section: published pipelines against plan, pack, climb.

GAMMA = 0.33  # at the published 1/3 four neighbors cancel, and the pipeline's Cholesky root fails in float32 on a CPU
SHIFTED = {"use_dynamic_shifting": True, "gamma": GAMMA}
PIPELINES = {
    "base": (HeliosPipeline, HeliosScheduler, {"stages": 1, **SHIFTED}, {}),
    "mid": (HeliosPyramidPipeline, HeliosScheduler, SHIFTED, {"is_cfg_zero_star": True}),
    "distilled": (HeliosPyramidPipeline, HeliosDMDScheduler, SHIFTED, {"is_distilled": True}),
}
STEPS = {"base": (4,), "mid": (3, 3, 4), "distilled": (2, 2, 2)}
CALLS = {
    "base": {"num_inference_steps": 4, "guidance_scale": 5.0},
    "mid": {"pyramid_num_inference_steps_list": [3, 3, 4], "guidance_scale": 5.0},
    "distilled": {
        "pyramid_num_inference_steps_list": [2, 2, 2],
        "guidance_scale": 1.0,
        "is_amplify_first_chunk": True,
    },
}
SIZE = {"base": (HEIGHT, WIDTH), "mid": (8, 16), "distilled": (8, 16)}
TINY = CodecShape(encoder_width=4, decoder_width=4, channels=4)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return new_codec(TINY).eval()


def pipeline(kind, transformer, codec):
    pipe, scheduler, config, more = PIPELINES[kind]
    built = pipe(None, None, codec, scheduler(**config), transformer, **more)
    built.set_progress_bar_config(disable=True)
    return built


def rolled(kind, transformer, sections, start, texts, generator, pipe):
    """A video of so many sections by this package, its noise drawn as the pipeline draws it."""
    height, width = SIZE[kind]
    sampling = SAMPLINGS[kind].guided(CALLS[kind]["guidance_scale"]).spread(sum(STEPS[kind]))
    assert sampling.usual.steps == STEPS[kind]
    history, patchify, axes = History("zeros"), history_patchify(transformer), rope_axes(transformer)
    if start is None:
        history.remember((ANCHOR,), torch.zeros(1, 4, 1, height, width))
    else:
        history.remember((ANCHOR, 0), torch.cat([start.anchor, start.still], dim=2), exact=True)
    seams, frames = install(transformer), []
    for section in plan_of(sections, first=int(start is not None)).sections:
        packed = pack(section, history, patchify, axes)

        def told(x, sigma, section=section, packed=packed):
            at = resized(packed, section, *x.shape[3:], axes)
            both = [velocity(transformer, seams, x, torch.full((1,), sigma), text, at) for text in texts]
            return both[0] if len(both) == 1 else GUIDES[sampling.guide](*both, 5.0, 0.0)

        def renoise(shape, stage):
            return pipe.sample_block_noise(*shape, generator=generator)

        x = torch.randn(1, 4, 9, height, width, generator=generator)
        *_, made = climb(told, x, replace(sampling.pyramid(section.index), gamma=GAMMA), renoise)
        history.remember(section.frames, made)
        if start is None and section.index == 0:
            history.remember((ANCHOR,), made[:, :, :1])
        frames.append(made)
    seams.remove()
    return torch.cat(frames, dim=2)


@pytest.mark.parametrize("image", [False, True], ids=["text", "image"])
@pytest.mark.parametrize("kind", PIPELINES)
@torch.no_grad()
def test_a_video_of_three_sections_is_the_published_pipelines(helios, codec, kind, image):
    height, width = SIZE[kind]
    texts = [drawn(1, 7, 16, seed=30 + k) for k in range(2 if kind != "distilled" else 1)]
    start = Start(drawn(1, 4, 1, height, width, seed=5), drawn(1, 4, 1, height, width, seed=6)) if image else None
    given = {"image_latents": start.anchor, "fake_image_latents": start.still} if start else {}
    pipe = pipeline(kind, helios, codec)
    theirs = pipe(
        prompt_embeds=texts[0],
        negative_prompt_embeds=texts[-1],
        height=8 * height,
        width=8 * width,
        num_frames=3 * 33,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
        add_noise_to_image_latents=False,
        **given,
        **CALLS[kind],
    ).frames
    mine = rolled(kind, helios, 3, start, texts, torch.Generator().manual_seed(9), pipe)
    theirs = theirs[:, :, -27:]
    assert theirs.std() > 0.3
    # Float round-off of three sections under guidance 5; UniPC's last level is 1e-8 there and 0 here.
    assert difference(mine, theirs) < 5e-5 * theirs.abs().max()


@torch.no_grad()
def test_a_start_image_is_encoded_as_the_published_pipeline_encodes_it(codec):
    """Alone, and as the last frame of a still video."""
    image = drawn(1, 3, 1, 32, 48, seed=8).clamp(-1, 1)
    start = start_of(Codec(codec), image, generated=9)
    mean = [codec.encode(video).latent_dist.mean for video in (image, image.repeat(1, 1, 33, 1, 1))]
    assert difference(start.anchor, mean[0]) < 1e-5  # many images pass the encoder together here
    assert difference(start.still, mean[1][:, :, -1:]) < 1e-5
    assert difference(start.still, start.anchor) > 1e-3


def test_noise_in_given_images_is_a_straight_line_to_noise():
    """What `noised` relies on, in the pipeline's own words: sigma noise + (1 - sigma) clean."""
    clean, noise = drawn(1, 4, 1, 2, 2, seed=1), drawn(1, 4, 1, 2, 2, seed=2)
    sigma = torch.tensor([0.12])
    torch.testing.assert_close(interpolate(clean, noise, sigma), sigma * noise + (1 - sigma) * clean)
