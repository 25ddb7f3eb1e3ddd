import json

import pytest
from pydantic import ValidationError

from longtake.backbones import BackboneSettings
from longtake.errors import InputError, PlanError, ScheduleError
from longtake.flow import WAN_SHIFT
from longtake.pipeline import Config, Request
from longtake.pipeline.request import read_request, resolve

SETTINGS = BackboneSettings(height=480, width=832, fps=16.0, steps=30)


def resolved(settings=SETTINGS, **changes) -> Config:
    request = Request.model_validate({"image": "a.png", **changes})
    return resolve(request, settings, grid=(16, 16), temporal_ratio=4, fingerprint="f")


def test_a_request_needs_an_image_only():
    request = read_request({"image": "a.png"})
    assert (request.prompt, request.seconds, request.model, request.seed) == ("", 6.0, "embedded", 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps: input should be greater than or equal to 1, got 0"),
        ({"steps": 1.5}, "steps: input should be a valid integer"),
        ({"seconds": 0}, "seconds: input should be greater than 0, got 0"),
        ({"seconds": -3}, "seconds: input should be greater than 0, got -3"),
        ({"seconds": 1e9}, "seconds: input should be less than or equal to 86400"),
        ({"seconds": float("nan")}, "seconds: input should be"),
        ({"seconds": "long"}, "seconds: input should be a valid number"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, got -1"),
        ({"guidance": 0.5}, "guidance: input should be greater than or equal to 1, got 0.5"),
        ({"height": 8}, "height: input should be greater than or equal to 16, got 8"),
        ({"gaps": "wide"}, "gaps: input should be 'true', 'clamped' or 'near', got 'wide'"),
        ({"solver": "magic"}, "solver: input should be 'euler', 'unipc', 'unipc_flow' or 'dmd', got 'magic'"),
        ({"scale": 9}, "scale: input should be less than or equal to 8, got 9"),
        ({"crf": 52}, "crf: input should be less than or equal to 51, got 52"),
        ({"sedd": 3}, "sedd: extra inputs are not permitted, got 3"),
        ({"seeds": {"first": 1}}, "seeds.first"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_do(wrong, said):
    with pytest.raises(InputError) as caught:
        read_request({"image": "a.png", **wrong}, "the file x.json")
    assert str(caught.value).startswith("the file x.json cannot be used:\n  ")
    assert said in str(caught.value)


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(InputError) as caught:
        read_request({"image": "a.png", "steps": 0, "seconds": 0, "size": 3})
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("data", [{}, [], 3, None, "a.png"])
def test_what_is_no_request_is_refused(data):
    with pytest.raises(InputError, match="the request cannot be used"):
        read_request(data)


def test_a_request_survives_json():
    request = read_request({"image": "a.png", "prompt": "красный шар", "seconds": 3.5, "seeds": {2: 7}})
    assert read_request(json.loads(request.model_dump_json())) == request


def test_requests_and_configs_do_not_change():
    with pytest.raises(ValidationError):
        Request(image="a.png").seed = 3
    with pytest.raises(ValidationError):
        resolved().seed = 3


def test_what_is_left_open_is_the_models_choice():
    settings = BackboneSettings(
        schedules={"inverted": "g9_f1k1f2k2_td"}, order="inverted", gaps="true", missing="zeros", steps=7,
        solver="unipc", shift=2.0, guidance=3.0, guidance_rescale=0.5, fps=8.0, height=64, width=96,
    )  # fmt: skip
    config = resolved(settings)
    for name in ("order", "gaps", "missing", "steps", "solver", "shift", "guidance", "guidance_rescale", "fps"):
        assert getattr(config, name) == getattr(settings, name), name
    assert (config.schedule, config.height, config.width) == ("g9_f1k1f2k2_td", 64, 96)


def test_a_shift_that_grows_with_the_image_is_that_of_the_size_asked_for():
    settings = SETTINGS.model_copy(update={"shift": WAN_SHIFT})
    sizes = ({}, {"height": 720, "width": 1280}, {"height": 720, "width": 1280, "schedule": "f1k1_g1"})
    assert [resolved(settings, **size).shift for size in sizes] == [3.0, 5.0, 5.0]


def test_what_is_asked_for_is_followed():
    config = resolved(
        order="inverted", gaps="true", steps=3, solver="unipc", guidance=1.0, height=96, width=160, seed=5,
        negative_prompt="blur", scale=2, crf=20, prompt="a ball", seeds={1: 9},
    )  # fmt: skip
    assert (config.order, config.gaps, config.steps, config.solver) == ("inverted", "true", 3, "unipc")
    assert (config.guidance, config.height, config.width, config.scale, config.crf) == (1.0, 96, 160, 2, 20)
    assert (config.prompt, config.negative_prompt) == ("a ball", "blur")
    assert [config.seed_of(section) for section in config.plan().sections] == [5, 9, 5]


def test_a_schedule_without_an_order_gets_one_that_can_serve_it():
    assert resolved(schedule="f1k1_x_g9_f1k1f2k2f16k4_td").order == "inverted"
    assert resolved(schedule="f16k4f2k2f1k1_g9").order == "vanilla"


def test_a_structure_of_the_paper_can_be_asked_for_by_its_name():
    config = resolved(schedule="important-start")
    assert (config.schedule, config.order) == ("td_f1k1_x_f16k4f2k2f1k1_g9", "vanilla")
    with pytest.raises(ScheduleError, match="'important' is unknown; there are: geometric"):
        resolved(schedule="important")


def test_a_schedule_name_is_kept_in_its_short_form():
    assert resolved(schedule="f4k1h2w2_g9").schedule == "f4k1_g9"


@pytest.mark.parametrize("seconds", [0.1, 1, 2.25, 6, 30, 3600])
def test_a_length_is_the_nearest_whole_number_of_sections(seconds):
    config = resolved(seconds=seconds)
    sections = len(config.plan().sections)
    assert config.frames == 1 + 9 * sections
    assert config.images == 1 + 36 * sections
    assert sections == 1 or abs(36 * sections - 16 * seconds) <= 18


@pytest.mark.parametrize(
    ("side", "size", "said"),
    [
        ("height", 481, "a height of 481 is off the model's grid of 16 pixels; its neighbors are 480 and 496"),
        ("height", 495, "480 and 496"),
        ("width", 833, "a width of 833 is off the model's grid of 16 pixels; its neighbors are 832 and 848"),
        ("width", 17, "16 and 32"),
    ],
)
def test_a_size_off_the_grid_names_its_neighbors(side, size, said):
    with pytest.raises(InputError, match=said):
        resolved(**{side: size})


def test_the_smallest_neighbor_is_one_step_of_the_grid():
    request = Request(image="a.png", height=17)
    with pytest.raises(InputError, match=r"a height of 17 .* its neighbors are 32$"):
        resolve(request, SETTINGS, grid=(32, 32), temporal_ratio=4, fingerprint="f")


def test_an_unknown_order_names_those_there_are():
    with pytest.raises(PlanError, match="order 'sideways' is unknown; there are: vanilla, inverted"):
        resolved(order="sideways")


@pytest.mark.parametrize(
    ("order", "schedule", "other"),
    [("inverted", "f16k4f2k2f1k1_g9", "vanilla"), ("vanilla", "g9_f1k1f2k2f16k4", "inverted")],
)
def test_an_order_that_cannot_serve_the_schedule_names_one_that_can(order, schedule, other):
    with pytest.raises(PlanError, match=f"the order {order} cannot serve .* can be made in the order {other}"):
        resolved(order=order, schedule=schedule)


def test_a_schedule_that_no_order_can_serve_is_refused():
    with pytest.raises(PlanError, match="no order can serve the schedule"):
        resolved(schedule="f1k1_g9_f1k1_x_f1k1")


def test_an_order_that_the_model_does_not_know_needs_a_schedule():
    settings = BackboneSettings(schedules={"vanilla": "f1k1_g9"})
    with pytest.raises(PlanError, match="the order inverted cannot serve the schedule f1k1_g9"):
        resolved(settings, order="inverted")
    assert resolved(settings, order="inverted", schedule="g9_f1k1").order == "inverted"


def test_a_schedule_that_cannot_be_read_shows_the_place():
    with pytest.raises(ScheduleError, match=r"f16k4_q2_g9\n +\^ expected"):
        resolved(schedule="f16k4_q2_g9")


def test_a_codebook_makes_the_schedule_discrete():
    config = resolved(codebook=64)
    assert config.schedule.endswith("+D") or "+D_" in config.schedule
    assert config.codebook == {"*": 64}
    assert resolved().codebook == {}


def test_a_discrete_schedule_takes_the_models_own_codebook():
    settings = BackboneSettings(codebook=256)
    assert resolved(settings, schedule="td_f16k4f2k2f1k1_g9+D").codebook == {"*": 256}


@pytest.mark.parametrize("given", ["k1=1024, k4=64", {"k1": 1024, "k4": 64}])
def test_a_codebook_can_be_said_for_each_kernel(given):
    assert resolved(codebook=given).codebook == {"k1": 1024, "k4": 64}


def test_a_codebook_for_a_kernel_that_nothing_is_seen_through_is_refused():
    with pytest.raises(InputError, match=r"a codebook for k8: the schedule .* has the kernels k1, k2, k4"):
        resolved(codebook="k8=64")


@pytest.mark.parametrize("given", ["many", "0", "k1=", -3])
def test_a_codebook_that_is_no_number_is_refused(given):
    with pytest.raises(InputError, match="codebook"):
        read_request({"image": "a.png", "codebook": given})


def test_how_history_is_read_is_the_models_choice_or_ones_own():
    settings = BackboneSettings(history_sigma=0.1, history_guidance=1.5, history_without=0.7)
    chosen, own = resolved(settings), resolved(settings, history_sigma=0.0, history_guidance=3, history_without="drop")
    assert (chosen.history_sigma, chosen.history_guidance, chosen.history_without) == (0.1, 1.5, 0.7)
    assert (own.history_sigma, own.history_guidance, own.history_without) == (0.0, 3.0, "drop")


@pytest.mark.parametrize("noisy", [{"history_sigma": 0.1}, {"history_guidance": 2.0}])
def test_rounded_history_has_no_noise(noisy):
    with pytest.raises(InputError, match="rounds noise away"):
        resolved(BackboneSettings(), codebook=128, **noisy)
