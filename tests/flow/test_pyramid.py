"""Sampling from coarse to fine, against diffusers' schedulers for it."""

import math

import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler
from torch import nn

from longtake.errors import InputError
from longtake.flow import (
    HELIOS_DISTILLED_SHIFT,
    HELIOS_SHIFT,
    Pyramid,
    block_noise,
    climb,
    coarse,
    dmd,
    shift_for,
)

# diffusers' Helios schedulers hand tensors to NumPy, in a way that NumPy means to end.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

TOKENS = 9 * 24 * 40  # of a section at 384 x 640
RULES = {"exponential": HELIOS_SHIFT, "linear": HELIOS_DISTILLED_SHIFT}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def field(x, sigma):
    """A smooth velocity that is curved in both of its arguments, at any size."""
    return x - 0.8 * torch.tanh(1.7 * x) + 0.3 * math.sin(4 * sigma)


def seen_tokens(tokens, stage):
    """By which a published pipeline shifts a stage: it counts before it enlarges."""
    return tokens // 4 ** (2 - max(0, stage - 1))


def schedule(scheduler, steps, stage, tokens):
    mu = 0.5 + 0.65 * (seen_tokens(tokens, stage) - 256) / 3840
    scheduler.set_timesteps(steps, stage, mu=mu)
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("shift", ["exponential", "linear", 1.0, 3.0])
@pytest.mark.parametrize(("solver", "kind"), [("unipc_flow", HeliosScheduler), ("dmd", HeliosDMDScheduler)])
def test_the_levels_of_each_stage_are_those_of_the_scheduler(steps, shift, solver, kind):
    dynamic = isinstance(shift, str)
    config = {"use_dynamic_shifting": True, "time_shift_type": shift} if dynamic else {"shift": shift}
    scheduler, pyramid = kind(**config), Pyramid((steps,) * 3, solver, RULES[shift] if dynamic else shift)
    for number, stage in enumerate(pyramid.stages(TOKENS)):
        schedule(scheduler, steps, number, TOKENS)
        torch.testing.assert_close(torch.tensor(stage.sigmas).double(), scheduler.sigmas, atol=1e-6, rtol=0)
        assert [round(1000 * told) for told in stage.told] == [int(t) for t in scheduler.timesteps]


@pytest.mark.parametrize("gamma", [1 / 3, 0.2])
def test_stages_meet_where_enlarged_noise_is_white_again(gamma):
    """What is kept of the noise has the covariance of four equal pixels; with block noise it has that of none."""
    scheduler = HeliosScheduler(gamma=gamma)
    for number, stage in enumerate(Pyramid((2, 2, 2), "unipc_flow", 1.0, gamma).stages(TOKENS)):
        if number:
            sigma = scheduler.ori_start_sigmas[number]
            equal, opposed = torch.ones(4, 4), (1 + gamma) * torch.eye(4) - gamma
            noise = (stage.keep * sigma) ** 2 * equal + stage.renoise**2 * opposed
            level = scheduler.start_sigmas[number]
            torch.testing.assert_close(noise, level**2 * torch.eye(4), atol=1e-6, rtol=0)
            assert stage.keep * (1 - sigma) == pytest.approx(1 - level)


def stock(scheduler, x, steps, renoise, distilled):
    """The loop of the published pipeline, with diffusers' own steps."""
    tokens, results = x[0, 0].numel() // 4, []
    x = coarse(x, 2)
    for number in range(3):
        schedule(scheduler, steps, number, tokens)
        if number:
            sigma = scheduler.ori_start_sigmas[number]
            gamma = scheduler.config.gamma
            alpha = 1 / (math.sqrt(1 + 1 / gamma) * sigma + 1 - sigma)
            x = nn.functional.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
            x = alpha * x + alpha * sigma / math.sqrt(gamma) * renoise(x.shape, number)
        begun = x
        for k, t in enumerate(scheduler.timesteps):
            more = {
                "cur_sampling_step": k,
                "dmd_noisy_tensor": begun,
                "dmd_sigmas": scheduler.sigmas,
                "dmd_timesteps": scheduler.timesteps,
                "all_timesteps": scheduler.timesteps,
            }
            v = field(x, int(t) / 1000)
            x = scheduler.step(v, t, x, return_dict=False, **(more if distilled else {}))[0].float()
            results.append(x)
    return results


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("solver", ["unipc_flow", "euler", "dmd"])
def test_every_step_is_the_schedulers(solver, steps):
    distilled = solver == "dmd"
    config = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
    scheduler = (
        HeliosDMDScheduler(**config)
        if distilled
        else HeliosScheduler(**config, scheduler_type=solver.partition("_")[0])
    )
    x = drawn(2, 3, 5, 16, 24)

    def renoise(shape, stage):
        return block_noise(drawn(*shape, seed=stage), 1 / 3)

    theirs = stock(scheduler, x, steps, renoise, distilled)
    mine = list(climb(field, x, Pyramid((steps,) * 3, solver, HELIOS_DISTILLED_SHIFT), renoise))
    assert [m.shape for m in mine] == [t.shape for t in theirs]
    for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        # UniPC's last level is 1e-8 there and 0 here, which is 1e-5 of the noise at a level of 0.001.
        torch.testing.assert_close(a, b, atol=5e-5, rtol=0, msg=lambda text, k=k: f"step {k}: {text}")


def test_one_stage_is_the_plain_solver_at_levels_below_one():
    pyramid = Pyramid((6,), "unipc_flow", HELIOS_SHIFT)
    (stage,) = pyramid.stages(TOKENS)
    shift = shift_for(TOKENS, HELIOS_SHIFT)
    assert stage.told == stage.sigmas[:-1]
    assert stage.sigmas[0] == pytest.approx(shift * 0.999 / (1 + (shift - 1) * 0.999))
    scheduler = HeliosScheduler(stages=1, use_dynamic_shifting=True)
    levels = torch.linspace(0.999, 0, 7, dtype=torch.float64)[:-1].numpy()
    tokens = 5 * 8 * 12
    scheduler.set_timesteps(6, sigmas=levels, mu=math.log(shift_for(tokens, HELIOS_SHIFT)))
    x = theirs = drawn(2, 3, 5, 16, 24)
    for t in scheduler.timesteps:
        theirs = scheduler.step(field(theirs, float(t) / 1000), t, theirs, return_dict=False)[0].float()
    *_, mine = climb(field, x, pyramid, lambda shape, stage: pytest.fail("there is nothing to enlarge"))
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


def test_noise_is_made_coarse_as_bilinear_interpolation_makes_it():
    x = drawn(2, 3, 4, 16, 24)
    theirs = x.transpose(1, 2).flatten(0, 1)
    for size in ((8, 12), (4, 6)):
        theirs = 2 * nn.functional.interpolate(theirs, size=size, mode="bilinear")
    torch.testing.assert_close(coarse(x, 2), theirs.unflatten(0, (2, 4)).transpose(1, 2))
    assert coarse(drawn(1, 4, 9, 64, 64), 2).std() == pytest.approx(1.0, abs=0.03)  # of 9216 numbers


@pytest.mark.parametrize("gamma", [1 / 3, 0.2])
def test_block_noise_has_the_covariance_that_it_says(gamma):
    """It is linear in white noise, so its covariance is its matrix times that matrix's transpose."""
    matrix = block_noise(torch.eye(16).view(16, 1, 1, 4, 4), gamma).flatten(1).T
    place = [(row // 2, column // 2) for row in range(4) for column in range(4)]
    block = torch.tensor([[a == b for b in place] for a in place]).float()
    torch.testing.assert_close(matrix @ matrix.T, (1 + gamma) * torch.eye(16) - gamma * block)


def test_steps_that_guidance_would_lead_astray_ask_for_nothing_and_change_nothing():
    asked = []

    def velocity(x, sigma):
        asked.append((x.shape[-1], sigma))
        return field(x, sigma)

    x = drawn(1, 2, 3, 16, 16)
    pyramid = Pyramid((4, 1, 1), "euler", 1.0, still=2)
    made = list(climb(velocity, x, pyramid, lambda shape, stage: torch.zeros(shape)))
    assert len(made) == 6
    assert [width for width, _ in asked] == [4, 4, 8, 16]
    torch.testing.assert_close(made[1], coarse(x, 2))
    told = [told for stage in pyramid.stages(3 * 8 * 8) for told in stage.told]
    assert [sigma for _, sigma in asked] == told[2:]


@pytest.mark.parametrize(("size", "fits"), [((12, 16), "16 x 16"), ((16, 20), "16 x 24")])
def test_sides_that_cannot_be_halved_are_refused_with_those_that_can(size, fits):
    pyramid = Pyramid((2, 2, 2), "dmd", 1.0)
    assert pyramid.multiple == 8
    with pytest.raises(InputError, match=f"in 3 sizes: expected multiples of 8, such as {fits}"):
        list(climb(field, drawn(1, 1, 1, *size), pyramid, lambda shape, stage: torch.zeros(shape)))


def test_a_distilled_model_that_knows_the_clean_sample_goes_straight_to_it():
    clean, x = drawn(1, 4, seed=1), drawn(1, 4, seed=2)
    levels = torch.tensor([1.0, 0.6, 0.2, 0.0])
    steps = list(dmd(lambda x, sigma: (x - clean) / sigma, x, levels))
    for step, sigma in zip(steps, levels[1:], strict=True):
        torch.testing.assert_close(step, (1 - sigma) * clean + sigma * x)
