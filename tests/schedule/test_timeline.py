import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.schedule import Kernel, Span, parse

untimed = settings(deadline=None)  # a test asserts no wall-clock time

BUCKETS = {  # height and width in pixels: tokens of a frame, of k2 over 2 frames, of k4 over 4 frames (released models)
    (416, 960): (1560, 390, 105),
    (448, 864): (1512, 378, 98),
    (480, 832): (1560, 390, 104),
    (512, 768): (1536, 384, 96),
    (544, 704): (1496, 374, 99),
    (576, 672): (1512, 378, 99),
    (608, 640): (1520, 380, 100),
}


@pytest.mark.parametrize("size", BUCKETS)
def test_token_budgets_are_those_of_the_released_models(size):
    height, width = size[0] // 8, size[1] // 8
    frame, k2, k4 = BUCKETS[size]
    schedule = parse("f1k1_x_f16k4f2k2f1k1_g9")
    assert Kernel(1, 2, 2).tokens(1, height, width) == frame
    assert Kernel(2, 4, 4).tokens(2, height, width) == k2
    assert Kernel(4, 8, 8).tokens(4, height, width) == k4
    assert schedule.context_tokens(height, width) == 2 * frame + k2 + 4 * k4
    assert schedule.section_tokens(height, width) == 9 * frame


@pytest.mark.parametrize(
    ("size", "history", "anchored", "all_tokens"),
    [((480, 832), 2366, 3926, 17966), ((512, 768), 2304, 3840, 17664), ((608, 640), 2300, 3820, 17500)],
)
def test_context_tokens_are_those_of_the_paper(size, history, anchored, all_tokens):
    grid = size[0] // 8, size[1] // 8
    past, future = parse("td_f1k1_x_f16k4f2k2f1k1_g9"), parse("f1k1_x_g9_f1k1f2k2f16k4_td")
    assert parse("td_f16k4f2k2f1k1_g9").context_tokens(*grid) == history
    assert past.context_tokens(*grid) == future.context_tokens(*grid) == anchored
    assert past.context_tokens(*grid) + past.section_tokens(*grid) == all_tokens


@untimed
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_padding_adds_less_than_a_kernel_on_each_side(frames, height, width, n):
    kernel = Kernel(n, 2 * n, 2 * n)
    tokens = kernel.tokens(frames, height, width)
    assert tokens * 4 * n**3 >= frames * height * width
    assert tokens * 4 * n**3 < (frames + n) * (height + 2 * n) * (width + 2 * n)


def test_a_tail_costs_nothing_in_a_full_history():
    names = ["f16k4f2k2f1k1_g9", *(f"{tail}_f16k4f2k2f1k1_g9" for tail in ("td", "ta", "tc"))]
    assert len({parse(name).context_tokens(60, 104) for name in names}) == 1


def test_spans_are_in_time_order_and_kernels_are_distinct():
    schedule = parse("f1k1_x_f16k4f1k1_g9_f2k2_x_f3k1h8w8")
    assert [str(span) for span in schedule.spans] == ["f1k1", "f16k4", "f1k1", "f2k2", "f3k1h8w8"]
    assert [str(kernel) for kernel in schedule.kernels] == ["k1", "k2", "k1h8w8", "k4"]


def test_a_side_counts_its_frames():
    side = parse("td_f1k1f3k2_x_f16k4f2k2f1k1_g9").left
    assert (side.far_frames, side.near_frames) == (4, 19)


def test_schedules_can_be_keys():
    assert {parse("f1k1_g9"): 1}[parse("f1k1h2w2_g9")] == 1
    assert Span(1, Kernel(1, 2, 2)) in {Span(1, Kernel(1, 2, 2))}
