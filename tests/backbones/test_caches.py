"""Step caches in the real classes at tiny size, on scripted steps: what enters one does not depend on the cache."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy
import pytest
import torch
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from longtake.backbones.caches import CACHES, StepCache, install_cache
from longtake.backbones.teacache import install_teacache
from longtake.errors import InputError, ModelError

STEPS = 12
SCRIPTS = {"positive": 1, "negative": 2}  # a seed each: another prompt, another path


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
            num_layers=3,
        )
    )


def predicted(model, step, script="positive", section=0):
    """The network's answer to one step of a script: latents that move at a pace that changes on the way."""
    seed = SCRIPTS[script]
    pace = (1 + torch.sin(1.7 * seed * torch.arange(STEPS))).cumsum(0)[step] / STEPS
    x = drawn(1, 4, 2, 4, 4, seed=10 * seed + section) + 0.2 * pace * drawn(1, 4, 2, 4, 4, seed=7 + seed)
    timestep = torch.tensor([1000.0 - 4.0 * pace])
    text = drawn(1, 7, 16, seed=20 + seed)
    with torch.no_grad():
        if isinstance(model, WanTransformer3DModel):
            return model(x, timestep, text, return_dict=False)[0]
        return model(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=text,
            encoder_attention_mask=torch.ones(1, 7, dtype=torch.bool),
            pooled_projections=drawn(1, 8, seed=30 + seed),
            image_embeds=drawn(1, 5, 12, seed=4),
            indices_latents=torch.tensor([1, 2]),
            guidance=torch.tensor([6000.0]),
            latents_clean=drawn(1, 4, 2, 4, 4, seed=5),
            indices_latents_clean=torch.tensor([0, 4]),
            latents_history_2x=drawn(1, 4, 2, 4, 4, seed=6),
            indices_latents_history_2x=torch.tensor([5, 6]),
            latents_history_4x=drawn(1, 4, 4, 4, 4, seed=7),
            indices_latents_history_4x=torch.tensor([7, 8, 9, 10]),
            return_dict=False,
        )[0]


@dataclass
class Heard:
    """What passed one step."""

    modulated: Tensor | None = None
    entered: Tensor | None = None
    left: Tensor | None = None  # the last block
    projected: Tensor | None = None  # what the last modulation was given
    ran: int = 0  # blocks behind the first


def feedforward(block):
    """A layer that runs once each time its block does."""
    return next(getattr(block, name) for name in ("ff", "ffn", "proj_mlp") if hasattr(block, name))


@contextmanager
def listening(model):
    """Torch's own hooks on modules that caches leave alone; gives a step's `Heard`, to be filled."""
    heard = Heard()
    blocks = [*getattr(model, "transformer_blocks", ()), *getattr(model, "single_transformer_blocks", ())]
    blocks = blocks or list(model.blocks)
    attention = getattr(blocks[0], "attn", None) or blocks[0].attn1

    def first(module, args, kwargs):
        heard.modulated = args[0] if args else kwargs["hidden_states"]

    def ran(module, args):
        heard.ran += 1

    handles = [
        attention.register_forward_pre_hook(first, with_kwargs=True),
        blocks[0].register_forward_pre_hook(lambda module, args: setattr(heard, "entered", args[0])),
        blocks[-1].register_forward_hook(
            lambda module, args, out: setattr(heard, "left", out[0] if isinstance(out, tuple) else out)
        ),
        model.norm_out.register_forward_pre_hook(lambda module, args: setattr(heard, "projected", args[0])),
        *(feedforward(block).register_forward_pre_hook(ran) for block in blocks[1:]),
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def passed(model, step, script="positive", section=0):
    with listening(model) as heard:
        output = predicted(model, step, script, section)
    return heard, output


def decided(modulated, threshold, polynomial):
    """The steps that TeaCache computes, written from its description."""
    rescale = numpy.poly1d(polynomial)
    gathered, steps = 0.0, []
    for step, now in enumerate(modulated):
        if step in (0, len(modulated) - 1):
            gathered = 0.0
            steps.append(step)
            continue
        before = modulated[step - 1]
        gathered += float(rescale(float((now - before).abs().mean() / before.abs().mean())))
        if gathered >= threshold:
            gathered = 0.0
            steps.append(step)
    return steps


def computed(model, cache, scripts=("positive",), section=0):
    """Which steps ran, by script, and every output."""
    ran, outputs = {script: [] for script in scripts}, {script: [] for script in scripts}
    cache.section()
    for step in range(STEPS):
        for script in scripts:
            with cache.branch(script):
                heard, output = passed(model, step, script, section)
            assert heard.ran in (0, 3 if isinstance(model, HunyuanVideoFramepackTransformer3DModel) else 2)
            ran[script] += [step] if heard.ran else []
            outputs[script].append(output)
    return ran, outputs


THRESHOLDS = (0.1, 0.15, 0.4)
PUBLISHED = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)  # FramePack's program, highest power first


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_teacache_computes_the_steps_that_its_description_names(threshold):
    plain = [passed(hunyuan(), step)[0] for step in range(STEPS)]
    model = hunyuan()
    ran, _ = computed(model, install_cache(model, "teacache", threshold, STEPS))
    expected = decided([heard.modulated for heard in plain], threshold, PUBLISHED)
    assert ran["positive"] == expected
    assert 2 < len(expected) < STEPS
    assert expected[0] == 0
    assert expected[-1] == STEPS - 1


def test_a_skipped_step_adds_what_the_blocks_added_when_they_last_ran():
    plain = [passed(hunyuan(), step) for step in range(STEPS)]
    model = hunyuan()
    cache = install_cache(model, "teacache", 0.15, STEPS)
    cache.section()
    last = None
    skipped = 0
    for step, (heard, output) in enumerate(plain):
        with cache.branch("positive"):
            seen, ours = passed(model, step)
        if seen.ran:
            last = heard.left - heard.entered
            assert torch.equal(ours, output)
        else:
            skipped += 1
            noisy = heard.projected.shape[1]
            assert torch.equal(seen.projected, (heard.entered + last)[:, -noisy:])
    assert skipped > 2


def test_with_more_threshold_fewer_steps_run_down_to_the_first_and_the_last():
    counts = []
    for threshold in (*THRESHOLDS, 1e9):
        model = hunyuan()
        ran, _ = computed(model, install_cache(model, "teacache", threshold, STEPS))
        counts.append(len(ran["positive"]))
    assert counts == sorted(counts, reverse=True)
    assert ran["positive"] == [0, STEPS - 1]


def test_branches_of_guidance_do_not_see_each_other():
    alone, outputs = {}, {}
    for script in SCRIPTS:
        model = hunyuan()
        ran, made = computed(model, install_cache(model, "teacache", 0.15, STEPS), (script,))
        alone |= ran
        outputs |= made
    assert alone["positive"] != alone["negative"]
    model = hunyuan()
    together, made = computed(model, install_cache(model, "teacache", 0.15, STEPS), tuple(SCRIPTS))
    assert together == alone
    for script in SCRIPTS:
        assert all(torch.equal(a, b) for a, b in zip(made[script], outputs[script], strict=True))


@pytest.mark.parametrize("name", CACHES)
def test_a_section_knows_nothing_of_the_one_before(name):
    model = hunyuan()
    threshold = 0.5 if name != "taylorseer" else 3  # high enough that every one of them skips
    cache = install_cache(model, name, threshold, STEPS)
    computed(model, cache, section=1)
    again, after = computed(model, cache)
    fresh = hunyuan()
    expected, first = computed(fresh, install_cache(fresh, name, threshold, STEPS))
    assert again == expected
    assert all(torch.equal(a, b) for a, b in zip(after["positive"], first["positive"], strict=True))
    assert expected["positive"][0] == 0
    assert len(expected["positive"]) < STEPS


FITTING = [*((hunyuan, name) for name in CACHES), (wan, "first_block"), (wan, "taylorseer")]


@pytest.mark.parametrize(("kind", "name"), FITTING)
def test_without_tolerance_every_step_is_as_without_a_cache(kind, name):
    model = kind()
    cache = install_cache(model, name, 0.0, STEPS)
    ran, outputs = computed(model, cache, tuple(SCRIPTS))
    for script in SCRIPTS:
        assert ran[script] == list(range(STEPS))
        assert all(torch.equal(out, predicted(kind(), step, script)) for step, out in enumerate(outputs[script]))


@pytest.mark.parametrize("name", CACHES)
def test_a_removed_cache_leaves_nothing_behind(name):
    model = hunyuan()
    cache = install_cache(model, name, 1e9 if name != "taylorseer" else 5, STEPS)
    computed(model, cache)
    cache.remove()
    for step in range(STEPS):
        heard, output = passed(model, step)
        assert heard.ran == 3
        assert torch.equal(output, predicted(hunyuan(), step))
    computed(model, install_cache(model, name, 0.1, STEPS))


@pytest.mark.parametrize("name", ["first_block", "taylorseer"])
def test_caches_for_any_model_skip_on_wan_too(name):
    model = wan()
    ran, _ = computed(model, install_cache(model, name, 3.0, STEPS))
    assert 0 < len(ran["positive"]) < STEPS
    assert ran["positive"][0] == 0


def test_teacache_takes_a_polynomial_of_another_model():
    plain = [passed(wan(), step)[0] for step in range(STEPS)]
    model = wan()
    polynomial = (2.0, 0.1)
    cache = StepCache(model, install_teacache(model, 0.3, STEPS, polynomial))
    ran, _ = computed(model, cache)
    expected = decided([heard.modulated for heard in plain], 0.3, polynomial)
    assert ran["positive"] == expected
    assert 2 < len(expected) < STEPS


def test_a_cache_that_does_not_fit_the_model_is_refused():
    with pytest.raises(InputError, match="unknown step cache 'pab'; there are teacache, first_block, magcache, tay"):
        install_cache(hunyuan(), "pab", 0.1, STEPS)
    for name in ("teacache", "magcache"):
        with pytest.raises(
            ModelError, match=rf"{name} was fitted to HunyuanVideo .* WanTransf.*use one of first_block"
        ):
            install_cache(wan(), name, 0.1, STEPS)
    helios = HeliosTransformer3DModel(num_attention_heads=2, attention_head_dim=20, ffn_dim=24, num_layers=2)
    with pytest.raises(ModelError, match="HeliosTransformer3DModel: FirstBlockCacheConfig does not know it"):
        install_cache(helios, "first_block", 0.1, STEPS)


@pytest.mark.parametrize("name", CACHES)
def test_the_table_says_what_each_cache_is(name):
    kind = CACHES[name]
    assert kind.quality in ("draft", "rough")
    assert kind.threshold > 0
    assert kind.says.endswith(".")
