"""How a Helios wants to be sampled, and the frame that it always sees."""

import itertools
import json

import pytest
import torch

from longtake.backbones.helios.anchor import IMAGE_SIGMAS, SCHEDULE, noised
from longtake.backbones.helios.sampling import SAMPLINGS, read_sampling
from longtake.errors import InputError, ModelError
from longtake.flow import HELIOS_DISTILLED_SHIFT, HELIOS_SHIFT, Pyramid, renoising
from longtake.plan import ANCHOR, anchored, images_of, make_plan
from longtake.schedule import parse

PYRAMID = {"_class_name": "HeliosPyramidPipeline"}
SHIFTED = {"use_dynamic_shifting": True}
FOLDERS = {  # what model_index.json and the scheduler's config say, and the sampling that it means
    "base": ({"_class_name": "HeliosPipeline"}, {"stages": 1, **SHIFTED}, SAMPLINGS["base"]),
    "mid": ({**PYRAMID, "is_cfg_zero_star": True}, SHIFTED, SAMPLINGS["mid"]),
    "distilled": (
        {**PYRAMID, "is_distilled": True},
        {"_class_name": "HeliosDMDScheduler", **SHIFTED},
        SAMPLINGS["distilled"],
    ),
}


@pytest.fixture
def folder(tmp_path):
    """A function (index, scheduler) that gives a model folder which says so."""

    def write(index, scheduler):
        (tmp_path / "scheduler").mkdir(exist_ok=True)
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
        return tmp_path

    return write


@pytest.mark.parametrize(("index", "scheduler", "sampling"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_says_which_of_the_three_it_is(folder, index, scheduler, sampling):
    assert read_sampling(folder(index, scheduler)) == sampling


def test_the_scheduler_of_a_folder_is_believed(folder):
    config = {
        "scheduler_type": "euler",
        "gamma": 0.25,
        "shift": 3.0,
        "stages": 3,
        "stage_range": [0, 0.3333333333333333, 0.6666666666666666, 1],
    }
    sampling = read_sampling(folder(PYRAMID, config))
    assert sampling.usual == Pyramid((20, 20, 20), "euler", 3.0, gamma=0.25)
    assert sampling.guide == "plain"
    for kind, shift in (("linear", HELIOS_DISTILLED_SHIFT), ("exponential", HELIOS_SHIFT)):
        assert read_sampling(folder(PYRAMID, {**SHIFTED, "time_shift_type": kind})).usual.shift == shift
    plain = read_sampling(folder({"_class_name": "HeliosPipeline"}, {"stages": 1, "shift": 3.0}))
    assert plain.usual.shift == 1.0  # the pipeline names its levels itself


@pytest.mark.parametrize(
    ("index", "scheduler", "message"),
    [
        ({"_class_name": "WanPipeline"}, {}, "says WanPipeline; a Helios says"),
        (PYRAMID, {"scheduler_type": "heun"}, "scheduler_type 'heun'"),
        (PYRAMID, {"scheduler_type": "dmd"}, "scheduler_type 'dmd': a Helios that is not distilled"),
        (PYRAMID, {"stages": 2}, "in 3 stages of equal parts"),
        (PYRAMID, {"stage_range": [0, 0.5, 0.8, 1]}, "in 3 stages of equal parts"),
        (PYRAMID, {**SHIFTED, "time_shift_type": "cubic"}, "time_shift_type 'cubic': expected 'exponential' or"),
    ],
)
def test_what_is_not_known_is_refused(folder, index, scheduler, message):
    with pytest.raises(ModelError, match=message):
        read_sampling(folder(index, scheduler))


def test_a_missing_scheduler_is_named(folder):
    path = folder(PYRAMID, {})
    (path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match=r"scheduler_config\.json is missing"):
        read_sampling(path)


def test_steps_are_shared_out_and_the_first_section_of_a_distilled_model_takes_twice_as_many():
    distilled = SAMPLINGS["distilled"]
    assert [distilled.pyramid(index).steps for index in (0, 1, 2)] == [(4, 4, 4), (2, 2, 2), (2, 2, 2)]
    assert distilled.spread(3).pyramid(0).steps == (2, 2, 2)
    assert SAMPLINGS["mid"].spread(50).pyramid(0).steps == (16, 17, 17)
    assert SAMPLINGS["base"].spread(30).pyramid(0).steps == (30,)
    with pytest.raises(InputError, match="2 steps for a model that samples in 3 sizes: expected 3 or more"):
        SAMPLINGS["mid"].spread(2)
    assert SAMPLINGS["mid"].solved("euler").usual.solver == "euler"
    with pytest.raises(InputError, match=r"solver 'euler'.*expected dmd"):
        distilled.solved("euler")
    with pytest.raises(InputError, match="expected euler or unipc_flow"):
        SAMPLINGS["base"].solved("unipc")


def test_only_guidance_by_zero_star_leaves_steps_out():
    still = {(kind, scale): SAMPLINGS[kind].guided(scale).usual.still for kind in SAMPLINGS for scale in (1.0, 5.0)}
    assert {which for which, steps in still.items() if steps} == {("mid", 5.0)}
    assert still["mid", 5.0] == 2


def test_block_noise_belongs_to_seed_section_and_stage():
    def drawn(seeds, index, stage):
        renoise = renoising(SAMPLINGS["mid"].usual, index, seeds, torch.zeros(1))
        return renoise(torch.Size((len(seeds), 2, 2, 4, 4)), stage)

    alone = [drawn([seed], index, stage) for seed in (5, 6) for index in (0, 1) for stage in (1, 2)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(alone, 2))
    assert torch.equal(drawn([5, 6], 1, 2), torch.cat([drawn([5], 1, 2), drawn([6], 1, 2)]))
    assert alone[0].unflatten(3, (2, 2)).unflatten(5, (2, 2)).sum((4, 6)).abs().max() < 1e-5


@pytest.mark.parametrize("first", [0, 1])
def test_the_anchor_is_seen_by_every_section_and_is_no_frame_of_the_sequence(first):
    plan = make_plan(parse(SCHEDULE), first + 27, gaps="clamped", missing="zeros", first=first)
    for before, after in zip(plan.sections, anchored(plan).sections, strict=True):
        assert after.sees[0].frames == (ANCHOR,)
        assert after.sees[0].positions == (0,)
        assert after.sees[1:] == before.sees[-3:]
        assert (after.frames, after.positions) == (before.frames, before.positions)


def test_plans_without_one_frame_beyond_a_gap_have_no_anchor():
    for name in ("f16k4f2k2f1k1_g9", "f2k1_x_f16k4f2k2f1k1_g9"):
        plan = make_plan(parse(name), 19, missing="zeros")
        assert anchored(plan) == plan


def test_given_images_get_a_little_noise_of_their_own():
    clean = torch.zeros(2, 16, 6, 32, 32)
    shown = noised(clean, seeds=[3, 4], stream=-7)
    levels = shown.std(dim=(1, 3, 4))  # of 16,384 numbers each: half a percent
    assert levels.min() > 0.98 * IMAGE_SIGMAS[0]
    assert levels.max() < 1.02 * IMAGE_SIGMAS[1]
    assert levels.std() > 0.002
    assert torch.equal(shown[1:], noised(clean[1:], seeds=[4], stream=-7))
    assert not torch.equal(shown[:1], noised(clean[:1], seeds=[3], stream=-8))


def test_a_section_is_decoded_by_itself():
    assert [images_of(n, ratio, "anchored") for n, ratio in ((9, 4), (1, 4), (9, 8))] == [33, 1, 65]
