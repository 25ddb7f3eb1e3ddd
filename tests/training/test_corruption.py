from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from longtake.training.config import CorruptionConfig, SectionConfig
from longtake.training.corruption import ErrorBank, corrupt
from longtake.training.windows import every_window

STILL = {"noise": 0.0, "noisy_share": 0.0}
SWITCHES = {
    "noise": {"noise": 0.5, "noisy_share": 0.5},
    "frame_noise": {**STILL, "frame_noise": {"share": 0.5, "noise": 1.0}},
    "downsample": {**STILL, "downsample": {"share": 0.5}},
    "channels": {**STILL, "channels": {"share": 0.5}},
    "drop": {**STILL, "drop": {"share": 0.5, "frames": 0.9}},
    "recycle": {**STILL, "recycle": {"share": 0.5, "update": 0.5}},
    "prefix": {**STILL, "prefix": {"share": 0.5, "frames": 3}},
}
ALL = {name: value for switch in SWITCHES.values() for name, value in switch.items()} | {"noise": 0.5}
NEAR = (9, 8, 7)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames(count=64):
    return drawn(count, 2, 10, 4, 6)


def bank(value=1.0):
    found = ErrorBank(8, (2, 3, 4, 6))
    found.keep(torch.full((8, 2, 3, 4, 6), value), torch.linspace(0.1, 0.8, 8))
    return found


def seen(switch, true=None, seed=1, **more):
    config = CorruptionConfig.model_validate(switch)
    true = frames() if true is None else true
    return corrupt(true, config, torch.Generator().manual_seed(seed), **{"near": NEAR, "bank": bank(), **more})


def touched(found, true):
    return (found != true).flatten(1).any(1)


@pytest.mark.parametrize("switch", [*SWITCHES.values(), ALL], ids=[*SWITCHES, "all"])
def test_each_switch_has_its_share_and_never_touches_the_start_frame(switch):
    true = frames()
    found = seen(switch)
    assert torch.equal(found.frames[:, :, 0], true[:, :, 0])
    assert torch.equal(found.sigma[:, 0], torch.zeros(64))
    assert found.frames.shape == true.shape
    if switch is not ALL:
        share = touched(found.frames, true).float().mean()
        # Three standard errors of 64 draws; nine frames a sample are drawn one by one, so nearly all samples have some.
        assert share == pytest.approx(1.0 if "frame_noise" in switch else 0.5, abs=0.2)


@pytest.mark.parametrize("switch", [*SWITCHES.values(), ALL], ids=[*SWITCHES, "all"])
def test_the_same_generator_draws_the_same_again(switch):
    first, again, other = seen(switch), seen(switch), seen(switch, seed=2)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.sigma, again.sigma)
    assert not torch.equal(first.frames, other.frames)


def test_switches_that_are_off_draw_nothing():
    config = CorruptionConfig()
    alone, beside = (torch.Generator().manual_seed(3) for _ in range(2))
    corrupt(frames(), config, alone)
    corrupt(frames(), config, beside, near=NEAR, bank=bank())
    assert torch.equal(torch.rand(3, generator=alone), torch.rand(3, generator=beside))


@pytest.mark.parametrize("switch", ["noise", "frame_noise", "prefix"])
def test_what_is_told_is_the_level_of_the_noise(switch):
    options = SWITCHES[switch] if switch != "prefix" else {**STILL, "prefix": {"share": 1.0, "dropped": 0.0}}
    found = seen(options, true=torch.zeros(16, 8, 10, 16, 16))
    spread = found.frames.std(dim=(1, 3, 4))
    torch.testing.assert_close(spread, found.sigma, atol=0.06, rtol=0)  # four standard errors of 2,048 pixels at 1
    assert found.sigma.max() > 0.3


def test_a_level_a_video_is_one_for_all_its_frames_and_a_level_a_frame_is_not():
    video, each = seen(SWITCHES["noise"]).sigma[:, 1:], seen(SWITCHES["frame_noise"]).sigma[:, 1:]
    assert torch.equal(video, video[:, :1].expand(-1, 9))
    assert (each == 0).float().mean() == pytest.approx(0.5, abs=0.1)  # more than three standard errors of 576 frames
    assert (each.amax(1) > each.amin(1)).all()


def test_a_downsampled_history_is_flat_within_its_squares_and_keeps_its_means():
    true = drawn(8, 2, 10, 4, 8)
    for side in (2, 4):
        found = seen({**STILL, "downsample": {"share": 1.0, "factors": (side,)}}, true).frames[:, :, 1:]
        squares = found.unfold(3, side, side).unfold(4, side, side)
        assert torch.equal(squares, squares[..., :1, :1].expand_as(squares))
        means = true[:, :, 1:].unfold(3, side, side).unfold(4, side, side).mean((-2, -1))
        torch.testing.assert_close(squares[..., 0, 0], means)


def test_a_grid_that_the_squares_do_not_divide_keeps_its_size():
    assert seen({**STILL, "downsample": {"share": 1.0, "factors": (4,)}}).frames.shape == (64, 2, 10, 4, 6)


def test_other_channels_are_a_gain_and_a_shift_for_all_pixels_of_a_channel():
    true = frames(8)
    found = seen({**STILL, "channels": {"share": 1.0}}, true).frames[:, :, 1:].transpose(1, 2)
    pixels, changed = (x.transpose(1, 2).flatten(2) for x in (true[:, :, 1:].transpose(1, 2), found))
    gain = changed.std(2) / pixels.std(2)
    shift = changed.mean(2) - gain * pixels.mean(2)
    torch.testing.assert_close(changed, gain[..., None] * pixels + shift[..., None], atol=1e-5, rtol=0)
    assert 0.03 < gain.std() < 0.3
    assert 0.03 < shift.std() < 0.3


def test_dropped_frames_are_zeros_and_told_as_pure_noise():
    found = seen({**STILL, "drop": {"share": 1.0, "frames": 0.5}})
    gone = found.sigma == 1
    assert gone[:, 1:].float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(found.frames.abs().amax((1, 3, 4)) == 0, gone)


def test_a_clean_prefix_leaves_the_far_frames_and_takes_the_near_ones():
    true = frames()
    for dropped in (0.0, 1.0):
        # Everything else is on, too: the far frames are the true ones for all that.
        found = seen({**ALL, "prefix": {"share": 1.0, "dropped": dropped}}, own=true + 1)
        assert torch.equal(found.frames[:, :, :7], true[:, :, :7])
        assert torch.equal(found.sigma[:, :7], torch.zeros(64, 7))
        assert (found.sigma[:, 7:] >= 0.7).all()
        assert (found.frames[:, :, 7:] == 0).all() == bool(dropped)


def test_a_section_without_far_frames_keeps_its_near_ones():
    true = frames()
    assert torch.equal(seen({**STILL, "prefix": {"share": 1.0}}, near=()).frames, true)


def test_recycled_errors_are_added_times_gamma():
    true = frames()
    added = (seen({**STILL, "recycle": {"share": 1.0}}).frames - true)[:, :, 1:]
    assert added.min() > 0.7 - 1e-5
    assert added.max() < 1.3 + 1e-5
    sections = added.unflatten(2, (3, 3))
    torch.testing.assert_close(sections, sections[:, :, :, :1].expand_as(sections))  # one gamma for a section
    assert not torch.equal(sections[:, :, 0], sections[:, :, 1])


def test_a_history_that_ends_within_a_section_takes_the_beginning_of_an_error():
    true = frames()[:, :, :6]
    ramp = ErrorBank(1, (2, 3, 4, 6))
    ramp.keep(torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 2, 3, 4, 6), torch.tensor([0.5]))
    config = {**STILL, "recycle": {"share": 1.0, "gamma": (1.0, 1.0)}}
    added = (seen(config, true, bank=ramp, near=()).frames - true)[0, 0, :, 0, 0]
    torch.testing.assert_close(added, torch.tensor([0.0, 0.0, 1.0, 2.0, 0.0, 1.0]))


def test_an_empty_bank_adds_nothing():
    assert torch.equal(seen({**STILL, "recycle": {"share": 1.0}}, bank=ErrorBank(4, (2, 3, 4, 6))).frames, frames())


def test_a_bank_keeps_the_newest_errors_and_finds_them_by_their_level():
    errors = ErrorBank(3, (1, 1, 1, 1))
    for value in range(1, 6):
        errors.keep(torch.full((1, 1, 1, 1, 1), float(value)), torch.tensor([value / 10]))
    assert errors.nearest(torch.tensor([0.0, 0.31, 0.42, 1.0])).flatten().tolist() == [3, 3, 4, 5]
    errors.keep(torch.arange(10.0).view(10, 1, 1, 1, 1), torch.arange(10.0) / 10)  # more than there is room for
    assert errors.nearest(torch.tensor([0.0, 0.8, 1.0])).flatten().tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"noise": 1.5}, "less than or equal to 1"),
        ({"frame_noise": {"share": -0.1}}, "greater than or equal to 0"),
        ({"downsample": {"factors": []}}, "at least 1"),
        ({"downsample": {"factors": [1]}}, "greater than or equal to 2"),
        ({"recycle": {"gamma": [1.3, 0.7]}}, "lower first"),
        ({"recycle": {"share": 0.5, "update": 0.0}}, "stay empty"),
        ({"prefix": {"noise": [1.0, 0.7]}}, "lower first"),
        ({"resample": {"steps": 0}}, "greater than or equal to 1"),
        ({"blur": {}}, "not permitted"),
    ],
)
def test_bad_values_are_refused_with_the_reason(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        CorruptionConfig.model_validate(wrong)


def test_schedules_of_two_lengths_are_refused():
    with pytest.raises(ValidationError, match="f1k1_g3 makes 3, f1k1_g9 makes 9"):
        SectionConfig(schedules={"vanilla": "f1k1_g3", "planned": "f1k1_g9"})
    with pytest.raises(ValidationError, match="expected f<n>k<n>"):
        SectionConfig(schedules={"vanilla": "q2_g3"})


# In a training


MIXES = {
    **SWITCHES,
    "all": ALL,
    "resample": {"resample": {"share": 1.0, "sections": 2, "steps": 2}},
    "resample and recycle": {"resample": {"share": 0.5}, "recycle": {"share": 1.0, "update": 0.5}},
}


def losses(stage, steps=8):
    return [stage.loss(step)["loss"].item() for step in range(steps)]


@pytest.mark.parametrize("mix", MIXES)
def test_a_step_is_a_function_of_seed_and_step(stage_of, mix):
    corruption = MIXES[mix]
    first, again = (losses(stage_of(corruption=corruption)) for _ in range(2))
    assert first == again
    assert torch.isfinite(torch.tensor(first)).all()


def test_each_switch_changes_what_is_trained_on(stage_of):
    found = {name: losses(stage_of(corruption=mix)) for name, mix in MIXES.items()}
    found["none"] = losses(stage_of(corruption=STILL))
    assert len({tuple(numbers) for numbers in found.values()}) == len(MIXES) + 1


def own_history(stage, shift):
    config = stage.config.corruption.resample.model_copy(update={"shift": shift})
    corruption = stage.config.corruption.model_copy(update={"resample": config})
    stage.config = stage.config.model_copy(update={"corruption": corruption})
    (window,) = (w for w in every_window(stage.config, 16) if w.place == 3)
    true = stage.tracks.latents[:2, : window.frames].transpose(1, 2)
    numbers = stage.numbers[:2, :, 0]
    generator = torch.Generator().manual_seed(0)
    return window, true, stage._own(window, true, stage.tracks.keys[:2], numbers, generator)


def test_own_history_is_the_sections_made_before_and_starts_from_the_true_ones(stage_of):
    stage = stage_of(corruption={"resample": {"share": 1.0, "sections": 2}})
    window, true, own = own_history(stage, 1e-7)
    torch.testing.assert_close(own, true, atol=1e-4, rtol=0)  # hardly noised, hardly changed
    window, true, own = own_history(stage, 1.0)
    changed = [f for f in range(window.frames) if not torch.equal(own[:, :, f], true[:, :, f])]
    assert changed == [4, 5, 6, 7, 8, 9]
    assert not own.requires_grad


def test_a_stage_keeps_errors_of_clean_passes_alone(stage_of):
    stage = stage_of(corruption={"recycle": {"share": 1.0, "update": 0.5}})
    before = 0
    for step in range(8):
        stage.loss(step)
        kept = int(stage.bank.kept) - before
        assert kept in (0, 4)
        before += kept
    assert 0 < before < 32
    assert stage.bank.errors[:before].flatten(1).std(1).min() > 0
    assert stage.bank.sigmas[:before].max() < 1
    assert set(stage.memory()) == {"bank/errors", "bank/sigmas", "bank/kept"}
    assert stage_of().memory() == {}


@pytest.mark.parametrize("history_time", ["same", "noisy"])
def test_history_is_told_its_level_if_the_model_is_to_know_it(stage_of, history_time):
    stage = stage_of(corruption={"noise": 1.0, "noisy_share": 1.0})
    plain = losses(stage, 3)
    settings = stage.backbone.settings.model_copy(update={"history_time": history_time})
    stage.backbone = replace(stage.backbone, settings=settings)
    assert (losses(stage, 3) == plain) == (history_time == "same")
