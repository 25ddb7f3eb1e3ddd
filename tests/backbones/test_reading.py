from dataclasses import replace

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from longtake.backbones import load_backbone
from longtake.backbones.reading import Draft, Reading, read
from longtake.backbones.rollout import roll_out
from longtake.errors import ModelError
from longtake.flow import noise
from longtake.packing import History, Importance, pack, rank
from longtake.plan import make_plan
from longtake.schedule import Kernel, parse

K1 = Kernel(1, 2, 2)
SCHEDULE = parse("td_f1k1_x_f4k4f2k2f1k1_g3")
PLAN = make_plan(SCHEDULE, 16)


@pytest.fixture(scope="module")
def backbone(tiny_backbone_folder):
    return load_backbone(tiny_backbone_folder)


@pytest.fixture
def history():
    """Sixteen known frames, all different."""
    known = History()
    known.remember([0], noise((1, 4, 1, 4, 6), seed=1, section=0), exact=True)
    known.remember(range(1, 16), noise((1, 4, 15, 4, 6), seed=1, section=1))
    return known


def reading_by(by, **more):
    return Reading(Importance(by, **more))


def context(backbone, history, reading, section=PLAN.sections[4], seed=0):
    x = noise((1, 4, 3, 4, 6), seed=0, section=4)
    text = backbone.prompts.encode(["a red ball"])
    known = History()
    frames = [f for f in sorted(history.known) if f < section.frames[0]]
    known.remember(frames, history.read(frames))
    known.remember([0], history.read([0]), exact=True)
    return read(backbone, PLAN, section, known, reading, Draft(x, text, [seed]))


def packed(backbone, history, reading):
    return context(backbone, history, reading).packed


def tokens_of(backbone, history, section):
    return pack(section, history, backbone.patchify, backbone.axes).tokens


def test_by_default_a_section_reads_what_is_planned(backbone, history):
    with torch.no_grad():
        expected = tokens_of(backbone, history, PLAN.sections[4])
    assert torch.equal(packed(backbone, history, Reading()).tokens, expected)


def test_a_copy_of_the_nearest_frame_is_read_through_the_finest_kernel(backbone, history):
    """A view from long ago comes back: frame 12 looks just as frame 5 did."""
    history.remember([5], 3 * history.read([12]))  # a cosine knows no length
    found = packed(backbone, history, reading_by("similarity"))
    scores = {f: -float(f) for f in range(13)} | {12: 9.0, 5: 8.0}
    with torch.no_grad():
        for first, frames in ((12, (5,)), (5, (12,))):  # equal scores but for the last bit
            section = rank(PLAN.sections[4], PLAN, {**scores, first: 7.0})
            assert section.sees[-1].frames == frames
        finest = [
            tokens_of(backbone, history, rank(PLAN.sections[4], PLAN, {**scores, f: 7.0}))[:, -6:] for f in (5, 12)
        ]
    assert any(torch.equal(found.tokens[:, -6:], tokens) for tokens in finest)
    assert found.tokens.shape == packed(backbone, history, Reading()).tokens.shape


def test_hybrid_lies_between_similarity_and_time(backbone, history):
    far, near, similar = (
        packed(backbone, history, reading)
        for reading in (
            reading_by("hybrid", time_weight=1e6),
            reading_by("time"),
            reading_by("hybrid", time_weight=0.0),
        )
    )
    assert torch.equal(similar.tokens, packed(backbone, history, reading_by("similarity")).tokens)
    assert not torch.equal(similar.tokens, near.tokens)
    # Frames more than a few seconds away are all at 0 in time; here all are nearer.
    assert torch.equal(far.tokens, near.tokens)
    assert torch.equal(far.cos, near.cos)


@pytest.mark.parametrize("compare", ["first", "best", "mean"])
def test_the_models_first_step_can_be_the_estimate(backbone, history, compare):
    nearest = packed(backbone, history, reading_by("similarity", compare=compare))
    own = packed(backbone, history, reading_by("similarity", estimate="first_step", compare=compare))
    assert own.tokens.shape == nearest.tokens.shape
    assert not torch.equal(own.tokens, nearest.tokens)


def rolled(backbone, reading, count=2, **more):
    start = noise((count, 4, 1, 4, 6), seed=5, section=0)
    prompts = [["a red ball"] * 5] * count
    return roll_out(backbone, PLAN, start, prompts, seed=3, reading=reading, **more)


def test_videos_made_side_by_side_rank_their_own_history(backbone):
    reading = reading_by("similarity")
    both = rolled(backbone, reading)
    start = noise((2, 4, 1, 4, 6), seed=5, section=0)
    second = roll_out(backbone, PLAN, start[1:], [["a red ball"] * 5], seed=4, reading=reading)
    assert torch.equal(both[1:], second)


def test_a_roll_out_by_time_is_the_one_without_a_reading(backbone):
    assert torch.equal(rolled(backbone, reading_by("time")), rolled(backbone, None))
    assert not torch.equal(rolled(backbone, reading_by("similarity")), rolled(backbone, None))


# Noise and guidance


def test_noise_in_history_is_told_and_spares_the_start_image(backbone, history):
    clean, noisy = (context(backbone, history, Reading(sigma=sigma)).packed for sigma in (0.0, 0.4))
    start, rest = slice(0, 6), slice(6, None)  # the anchor is the first look
    assert torch.equal(noisy.tokens[:, start], clean.tokens[:, start])
    assert torch.equal(noisy.sigma[:, start], torch.zeros(1, 6))
    torch.testing.assert_close(noisy.sigma[:, rest], torch.full_like(noisy.sigma[:, rest], 0.4))
    assert not torch.equal(noisy.tokens[:, rest], clean.tokens[:, rest])
    assert torch.equal(clean.sigma, torch.zeros_like(clean.sigma))


def test_noise_in_history_belongs_to_seed_and_section(backbone, history):
    def tokens(seed, section):
        return context(backbone, history, Reading(sigma=1.0), PLAN.sections[section], seed).packed.tokens

    assert torch.equal(tokens(0, 4), tokens(0, 4))
    assert not torch.equal(tokens(0, 4), tokens(1, 4))
    assert not torch.equal(tokens(0, 4)[:, -6:], tokens(0, 3)[:, -6:])


def test_noise_in_history_is_not_that_of_the_section(backbone, history):
    """Pure noise in the place of the nearest frame, packed, against the section's own noise through the same kernel."""
    tokens = context(backbone, history, Reading(sigma=1.0)).packed.tokens[:, -6:]
    own = noise((1, 4, 3, 4, 6), seed=0, section=4)
    with torch.no_grad():
        assert all(not torch.allclose(tokens, backbone.patchify(own[:, :, f : f + 1], K1)) for f in range(3))


@pytest.mark.parametrize(("without", "told"), [("drop", 1.0), (1.0, 1.0), (0.5, 0.5)])
def test_history_guidance_leads_away_from_noise_or_nothing(backbone, history, without, told):
    found = context(backbone, history, Reading(guidance=1.5, without=without))
    assert torch.equal(found.packed.tokens, packed(backbone, history, Reading()).tokens)
    assert torch.equal(found.without.tokens[:, :6], found.packed.tokens[:, :6])
    torch.testing.assert_close(found.without.sigma[:, 6:], torch.full_like(found.without.sigma[:, 6:], told))
    nothing = backbone.patchify.proj["k1h2w2"].bias.expand(1, 6, -1)
    assert torch.allclose(found.without.tokens[:, -6:], nothing, atol=1e-6) == (without == "drop")


def test_where_only_the_start_image_is_seen_nothing_is_noised_or_guided(backbone, history):
    found = context(backbone, history, Reading(sigma=0.5, guidance=2.0), PLAN.sections[0])
    assert found.without is None
    assert torch.equal(found.packed.sigma, torch.zeros_like(found.packed.sigma))


def test_roll_outs_read_history_as_the_model_wants_it(backbone):
    told = {"history_sigma": 0.3, "history_guidance": 1.5, "history_without": 0.8}
    noisy = replace(backbone, settings=backbone.settings.model_copy(update=told))
    reading = Reading(sigma=0.3, guidance=1.5, without=0.8)
    assert torch.equal(rolled(noisy, None), rolled(backbone, reading))
    assert not torch.equal(rolled(backbone, reading), rolled(backbone, None))


def test_history_guidance_is_what_it_says(backbone):
    """Twice as far from nothing is twice the difference that history makes: one step of Euler is linear in it."""
    section_1, one, two, three = slice(4, 7), *(rolled(backbone, Reading(guidance=g), steps=1) for g in (1.0, 2.0, 3.0))
    once, twice = ((b - a)[:, :, section_1] for a, b in ((one, two), (one, three)))
    assert once.abs().max() > 1e-3
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-4)


def test_a_causal_model_refuses_processors_that_do_not_know_it(tiny_backbone_folder):
    backbone = load_backbone(tiny_backbone_folder)
    causal = backbone.settings.model_copy(update={"attention": "causal"})
    assert replace(backbone, settings=causal).settings.attention == "causal"
    backbone.transformer.blocks[0].attn1.set_processor(WanAttnProcessor())
    with pytest.raises(ModelError, match="causal"):
        replace(backbone, settings=causal)
