import pytest
import torch

from longtake.backbones import load_backbone
from longtake.backbones.reading import Reading, read
from longtake.backbones.rollout import roll_out
from longtake.flow import noise
from longtake.packing import History, Importance, pack, rank
from longtake.plan import make_plan
from longtake.schedule import parse

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


def packed(backbone, history, reading, section=PLAN.sections[4]):
    x = noise((1, 4, 3, 4, 6), seed=0, section=4)
    text = backbone.prompts.encode(["a red ball"])
    known = History()
    frames = [f for f in sorted(history.known) if f < section.frames[0]]
    known.remember(frames, history.read(frames))
    return read(backbone, PLAN, section, known, reading, x, text)


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
