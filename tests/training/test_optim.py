import pytest
import torch
from torch import nn

from longtake.training.optim import Optimizer, OptimizerSettings, orthogonalize, rate


def test_orthogonalize_moves_all_singular_values_near_one():
    matrices = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6  # the quintic's fixed band is about 0.7 .. 1.2 after five steps
    assert values.max() < 1.3


def test_orthogonalize_treats_tall_and_wide_alike():
    wide = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalize(wide.mT), orthogonalize(wide).mT)


def vector_network():
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))  # smaller than Muon's smallest matrix: AdamW has all of it


def test_adamw_part_equals_torch():
    torch.manual_seed(0)
    ours, theirs = vector_network(), vector_network()
    theirs.load_state_dict(ours.state_dict())
    settings = OptimizerSettings(vector_rate=1e-2, clip=1e9, weight_decay=0.0)
    state = Optimizer(ours.named_parameters(), settings)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=settings.betas, weight_decay=0.0)
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for network in (ours, theirs):
            network(x).square().mean().backward()
        state.step(step, 1.0)
        reference.step()
        reference.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_gradients_are_clipped_to_the_norm():
    network = vector_network()
    state = Optimizer(network.named_parameters(), OptimizerSettings(clip=0.5))
    (1e6 * network(torch.ones(1, 4))).square().sum().backward()
    norm = state.step(0, 0.0)
    assert norm > 0.5
    # First moment = 0.1 x the clipped gradient: its total norm is a tenth of the clip.
    total = torch.linalg.vector_norm(torch.stack([m.norm() for m in state.first.values()]))
    torch.testing.assert_close(total, torch.tensor(0.05), rtol=1e-3, atol=0)


def test_master_weights_keep_what_bfloat16_would_lose():
    network = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
    nn.init.ones_(network.weight)
    state = Optimizer(network.named_parameters(), OptimizerSettings(vector_rate=1e-4, weight_decay=0.0))
    for step in range(20):
        network(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        state.step(step, 1.0)
    assert (state.master["weight"] < 1.0 - 1e-3).all()  # 20 steps of 1e-4; bfloat16 near 1 moves in steps of 4e-3


def test_a_saved_state_continues_exactly():
    def build():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 2))

    def run(network, state, steps):
        for step in steps:
            network(torch.randn(4, 32, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            state.step(step, 1.0)

    whole = build()
    straight = Optimizer(whole.named_parameters(), OptimizerSettings())
    run(whole, straight, range(8))
    first = build()
    half = Optimizer(first.named_parameters(), OptimizerSettings())
    run(first, half, range(4))
    saved = {n: t.clone() for n, t in half.state().items()}
    second = build()
    rest = Optimizer(second.named_parameters(), OptimizerSettings())
    rest.load(saved)
    run(second, rest, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(straight.average[n], rest.average[n]) for n in straight.average)


@pytest.mark.parametrize(
    ("step", "progress", "share"), [(0, 0.0, 0.01), (49, 0.0, 0.5), (99, 0.3, 1.0), (500, 0.8, 0.5), (500, 1.0, 0.0)]
)
def test_rate_rises_holds_and_falls(step, progress, share):
    assert rate(step, progress, warmup=100, hold=0.6) == pytest.approx(share)


def test_time_that_passes_before_the_first_step_does_not_cut_the_rise_short():
    assert rate(0, 0.3, warmup=100, hold=0.6) == 0.01
