"""Histories longer than the spans of a schedule, in training: deleted, appended, compressed."""

import numpy as np
import pytest
import torch

from longtake.training.corruption import Seen
from longtake.training.windows import draw_window, every_window

SHAPES = {"vanilla": "{}_f1k1_x_f2k2f1k1_g3", "inverted": "f1k1_x_g3_f1k1f2k2_{}"}


def stage_with(stage_of, tail, order, **changes):
    return stage_of(schedules={order: SHAPES[order].format(tail)}, shares={order: 1.0}, **changes)


@pytest.mark.parametrize("order", SHAPES)
@pytest.mark.parametrize("tail", ["ta", "tc"])
def test_windows_show_the_tails_of_the_plan_and_fit_into_the_track(stage_of, tail, order):
    config = stage_with(stage_of, tail, order).config
    windows = [draw_window(config, 16, np.random.default_rng((0, n))) for n in range(60)]
    tails = [look for w in (*windows, *every_window(config, 16)) for look in w.section.sees if look.tail]
    assert {look.tail for look in tails} == {tail}
    assert len({len(look.frames) for look in tails}) >= 3
    for window in windows:
        seen = {f for look in window.section.sees for f in look.frames}
        assert max(seen | {*window.section.frames}) < window.frames <= 16


@pytest.mark.parametrize("order", SHAPES)
@pytest.mark.parametrize("tail", ["td", "ta", "tc"])
def test_a_model_is_trained_on_a_history_with_a_tail(stage_of, tail, order):
    stage = stage_with(stage_of, tail, order, corruption={"frame_noise": {"share": 0.5}, "resample": {"share": 0.5}})
    losses = [stage.loss(step)["loss"] for step in range(6)]
    torch.stack(losses).mean().backward()
    assert torch.isfinite(torch.stack(losses)).all()
    assert stage.backbone.patchify.proj["k2h4w4"].weight.grad.abs().max() > 0


@pytest.mark.parametrize("order", SHAPES)
@pytest.mark.parametrize("tail", ["td", "ta", "tc"])
def test_what_lies_beyond_the_spans_is_seen_unless_it_is_deleted(stage_of, tail, order):
    stage = stage_with(stage_of, tail, order)
    (window,) = (w for w in every_window(stage.config, 16) if w.section.index == 4)
    frames = stage.tracks.latents[:2].transpose(1, 2)
    shown = {f for look in window.section.sees if not look.tail for f in look.frames}
    beyond = [f for f in range(16) if f not in shown | {*window.section.frames}]
    changed = frames.clone()
    changed[:, :, beyond] += 1.0
    assert len(beyond) == 9

    def velocity(known):
        history = stage._history(window, Seen.clean(known), stage.tracks.keys[:2])
        noisy, sigma = frames[:, :, window.made], torch.full((2,), 0.5)
        return stage._predict(window.section, history, noisy, sigma, stage.numbers[:2, window.place, 0])

    with torch.no_grad():
        assert torch.equal(velocity(changed), velocity(frames)) == (tail == "td")
