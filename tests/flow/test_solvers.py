import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from longtake.flow import SOLVERS, euler, sigmas, unipc, unipc_flow, unipc_official

START = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))


def field(x, sigma):
    """A smooth velocity that is curved in both of its arguments."""
    tanh, sin = (torch.tanh, math.sin) if isinstance(x, torch.Tensor) else (np.tanh, math.sin)
    return x - 0.8 * tanh(1.7 * x) + 0.3 * sin(4 * sigma)


def last(solve):
    *_, result = solve
    return result


def unipc_of_the_paper(velocity, x, levels, variant, seen=lambda x: x):
    """The recurrence in float64 NumPy, written from the paper's formulas and not from the package."""
    steps = len(levels) - 1
    order_most = min(3, steps - 1)
    m, lam = [], []
    corrected = x
    for k in range(steps):
        x0 = seen(x) - levels[k] * velocity(seen(x), levels[k])
        if k > 0:
            p = min(order_most, k)
            h = -math.log(levels[k]) - lam[-1]
            r = [(lam[-1 - i] - lam[-1]) / h for i in range(1, p)] + [1.0]
            d = [(m[-1 - i] - m[-1]) / r[i - 1] for i in range(1, p)] + [x0 - m[-1]]
            rho = [0.5] if p == 1 else np.linalg.solve(*system(r, h, variant))
            corrected = base - b_of(h, variant) * sum(a * e for a, e in zip(rho, d, strict=True))
        m.append(x0)
        lam.append(-math.log(levels[k]))
        if k == steps - 1:
            return x0
        p = min(order_most, k + 1)
        h = -math.log(levels[k + 1]) - lam[-1]
        r = [(lam[-1 - i] - lam[-1]) / h for i in range(1, p)] + [1.0]
        d = [(m[-1 - i] - m[-1]) / r[i - 1] for i in range(1, p)]
        R, b = system(r, h, variant)
        rho = [0.5] if p == 2 else np.linalg.solve(R[:-1, :-1], b[:-1])
        base = math.exp(-h) * corrected - math.expm1(-h) * x0
        x = base - b_of(h, variant) * sum((a * e for a, e in zip(rho, d, strict=True)), np.zeros_like(x))
    raise AssertionError


def b_of(h, variant):
    return -h if variant == "bh1" else math.expm1(-h)


def system(r, h, variant):
    p = len(r)
    R = np.array([[x**i for x in r] for i in range(p)])
    phi, b = math.expm1(-h) / -h - 1, []
    for i in range(1, p + 1):
        b.append(phi * math.factorial(i) / b_of(h, variant))
        phi = phi / -h - 1 / math.factorial(i + 1)
    return R, np.array(b)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 12, 25])
def test_unipc_follows_the_recurrence_of_its_paper(steps, variant):
    levels = sigmas(steps, shift=7.0)
    asked = {"ours": [], "paper": []}

    def asks(who):
        return lambda x, sigma: asked[who].append(sigma) or field(x, sigma)

    expected = unipc_of_the_paper(asks("paper"), START.double().numpy(), levels.double().tolist(), variant)
    result = last(unipc(asks("ours"), START.double(), levels, variant))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)  # both are float64
    assert asked["ours"] == asked["paper"] == levels.tolist()[:-1]


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_the_official_unipc_predicts_from_what_bfloat16_keeps_of_x(steps):
    def seen(x):
        return torch.from_numpy(x).bfloat16().double().numpy()

    levels = sigmas(steps, shift=7.0)
    expected = unipc_of_the_paper(field, START.double().numpy(), levels.double().tolist(), "bh1", seen)
    result = last(unipc_official(field, START.double(), levels))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)  # both are float64 but for the rounding


@pytest.mark.parametrize("steps", [2, 3, 5, 10, 25])
def test_unipc_equals_the_scheduler_of_diffusers(steps, flow_unipc):
    shift = 7.0
    scheduler = flow_unipc(steps, math.log(shift))
    levels = sigmas(steps, shift)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), levels.numpy(), atol=1e-6)
    x = START
    for t in scheduler.timesteps:
        x = scheduler.step(field(x, float(t) / 1000), t, x, return_dict=False)[0]
    torch.testing.assert_close(last(unipc(field, START, levels)), x, atol=1e-5, rtol=0)  # float32 against float32


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 12, 30])
def test_unipc_of_flows_is_the_scheduler_that_wan_is_published_with(steps, shift):
    """But for its times, which are whole numbers there: the levels are its own here."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps)
    x = START.float()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = scheduler.step(field(x, float(sigma)), t, x, return_dict=False)[0]
    # Steps and their weights are float32 there, and lambda of the first one is the logarithm of a millionth.
    torch.testing.assert_close(last(unipc_flow(field, START, scheduler.sigmas)), x, atol=2e-5, rtol=0)


def test_euler_is_the_sum_of_its_steps():
    levels = sigmas(9, shift=3.0).tolist()
    x = START.double()
    for a, b in itertools.pairwise(levels):
        x = x - (a - b) * field(x, a)
    torch.testing.assert_close(last(euler(field, START.double(), sigmas(9, shift=3.0))), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_a_solver_asks_once_a_step_at_every_level_but_zero(solver, steps):
    asked = []

    def velocity(x, sigma):
        asked.append(sigma)
        return field(x, sigma)

    levels = sigmas(steps, shift=3.0)
    yielded = 0
    for x in SOLVERS[solver](velocity, START, levels):
        yielded += 1
        assert len(asked) == yielded
        assert x.shape == START.shape
        assert x.dtype == torch.float32
    assert yielded == steps
    assert asked == levels.tolist()[:-1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_closing_a_solver_stops_it(solver):
    asked = []
    solve = SOLVERS[solver](lambda x, sigma: asked.append(sigma) or x, START, sigmas(8))
    next(solve)
    solve.close()
    assert len(asked) == 1


@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - {"dmd"}))
def test_more_steps_come_closer_to_the_true_solution(solver):
    def straight(x, sigma):  # E[noise - clean | x] for clean ~ N(2, 0.5^2), noise ~ N(0, 1)
        spread = 0.25 * (1 - sigma) ** 2 + sigma**2
        excess = x - 2 * (1 - sigma)
        return sigma / spread * excess - (2 + 0.25 * (1 - sigma) / spread * excess)

    true = 2 + 0.5 * START  # the flow keeps quantiles, and at sigma 1 the sample is the noise itself
    errors = [(last(SOLVERS[solver](straight, START, sigmas(n))) - true).abs().max() for n in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05
