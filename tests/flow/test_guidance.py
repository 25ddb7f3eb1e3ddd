import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance, ClassifierFreeZeroStarGuidance

from longtake.flow import guide, guide_history, guide_zero_star

C = torch.randn(2, 16, 3, 4, 5, generator=torch.Generator().manual_seed(0))
U = torch.randn(2, 16, 3, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1.5, 2.0, 7.0])
def test_guidance_equals_that_of_diffusers(scale, rescale):
    guider = ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale)
    guider.set_state(step=0, num_inference_steps=1, timestep=0)
    expected = guider.forward(C, U).pred
    torch.testing.assert_close(guide(C, U, scale, rescale), expected, atol=1e-5, rtol=1e-5)


def test_scale_one_is_the_conditional_velocity():
    torch.testing.assert_close(guide(C, U, 1.0), C)


def test_full_rescale_keeps_the_spread_of_the_conditional_velocity():
    guided = guide(C, U, 7.0, rescale=1.0)
    torch.testing.assert_close(guided.std((1, 2, 3, 4)), C.std((1, 2, 3, 4)))


def test_history_guidance_alone_is_classifier_free_guidance_by_history():
    seen, unseen = (torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6))
    torch.testing.assert_close(guide_history(seen, seen, unseen, 1.7), guide(seen, unseen, 1.7))


def test_history_guidance_of_1_leaves_what_the_prompt_guides():
    guided, seen, unseen = (torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 7))
    assert torch.equal(guide_history(guided, seen, unseen, 1.0), guided)


@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
def test_zero_star_guidance_equals_that_of_diffusers(scale):
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0)
    guider.set_state(step=0, num_inference_steps=1, timestep=0)
    expected = guider.forward(C, U).pred if scale != 1.0 else C
    torch.testing.assert_close(guide_zero_star(C, U, scale), expected, atol=1e-5, rtol=1e-5)


def test_zero_star_guidance_does_not_care_how_long_the_unconditional_velocity_is():
    torch.testing.assert_close(guide_zero_star(C, 3 * U, 5.0), guide_zero_star(C, U, 5.0))
