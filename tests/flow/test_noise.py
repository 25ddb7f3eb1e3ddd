import itertools

import pytest
import torch

from longtake.flow import NOISES, noise, running_noise

SHAPE = (1, 16, 9, 12, 20)


def test_noise_belongs_to_seed_and_section():
    drawn = {(seed, k): noise(SHAPE, seed, k) for seed in (0, 1, 11, -3, 2**80) for k in (0, 1, 11)}
    for one, a in drawn.items():
        for other, b in drawn.items():
            assert torch.equal(a, b) == (one == other)


def test_each_stage_of_a_section_draws_noise_of_its_own():
    drawn = [noise(SHAPE, 3, 4, stage=stage) for stage in (0, 1, 2)]
    assert torch.equal(drawn[0], noise(SHAPE, 3, 4))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


def test_noise_does_not_depend_on_what_was_drawn_before_nor_changes_it():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = noise(SHAPE, 3, 4)
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(7)
    assert torch.equal(first, noise(SHAPE, 3, 4))


def test_noise_is_the_same_on_every_machine():
    expected = torch.tensor([-1.2136371, -0.1894267, 0.2861251, 1.0438327])
    torch.testing.assert_close(noise((4,), seed=2026, section=1), expected, atol=1e-6, rtol=0)


def test_noise_is_of_unit_variance():
    x = noise((200_000,), 1, 1)
    assert abs(x.mean()) < 0.01  # 4.5 standard errors
    assert abs(x.std() - 1) < 0.01


def test_half_precision_is_a_rounding_of_the_same_noise():
    assert torch.equal(noise(SHAPE, 1, 2, dtype=torch.bfloat16), noise(SHAPE, 1, 2).bfloat16())


def test_running_noise_is_what_one_generator_draws_section_after_section():
    generator = torch.Generator().manual_seed(31337)
    for section in range(4):
        drawn = torch.randn(SHAPE, generator=generator, dtype=torch.float32)
        assert torch.equal(running_noise(SHAPE, 31337, section), drawn)


@pytest.mark.parametrize("source", NOISES)
def test_noise_of_any_source_repeats_and_leaves_the_global_generator_alone(source):
    before = torch.get_rng_state()
    drawn = [NOISES[source](SHAPE, 7, k) for k in (0, 1, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(NOISES[source](SHAPE, 7, 1, dtype=torch.bfloat16), drawn[1].bfloat16())
