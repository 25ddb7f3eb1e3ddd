import torch

from longtake.flow import draw_sigmas, euler, interpolate, sigmas, target_velocity

CLEAN = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))


def test_the_ends_of_the_line_are_clean_and_noise():
    torch.testing.assert_close(interpolate(CLEAN, NOISE, torch.zeros(3)), CLEAN)
    torch.testing.assert_close(interpolate(CLEAN, NOISE, torch.ones(3)), NOISE)


def test_the_target_velocity_leads_from_noise_back_to_clean():
    *_, result = euler(lambda x, sigma: target_velocity(CLEAN, NOISE), NOISE, sigmas(7, shift=3.0))
    torch.testing.assert_close(result, CLEAN)


def test_the_target_velocity_is_the_slope_of_the_line():
    a, b = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.1, 0.7, 0.3])
    slope = (interpolate(CLEAN, NOISE, a) - interpolate(CLEAN, NOISE, b)) / (a - b).view(3, 1, 1)
    torch.testing.assert_close(slope, target_velocity(CLEAN, NOISE), atol=1e-5, rtol=1e-5)


def test_drawn_sigmas_repeat_with_their_generator_and_follow_the_shift():
    def draw(shift):
        return draw_sigmas(20_000, torch.Generator().manual_seed(3), shift=shift, uniform_share=0.1)

    assert torch.equal(draw(3.0), draw(3.0))
    assert ((draw(1.0) > 0) & (draw(1.0) < 1)).all()
    assert abs(draw(1.0).median() - 0.5) < 0.01
    assert abs(draw(3.0).median() - 0.75) < 0.01  # 3 t / (1 + 2 t) at t = 0.5
