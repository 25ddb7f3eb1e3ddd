import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.plan import BOTH_SIDES, INVERTED, VANILLA, Format, default_order, draw_plan, draw_schedule, make_plan
from longtake.schedule import parse

untimed = settings(deadline=None)  # a test asserts no wall-clock time


def planned(name, n, **choices):
    schedule = parse(name)
    return make_plan(schedule, 1 + schedule.generated * n, default_order(schedule), **choices)


def test_a_schedule_is_drawn_with_its_costs():
    assert draw_schedule(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), Format()).splitlines() == [
        "f1k1_x_g9_f1k1f2k2f16k4_td",
        "what a section sees, at 480 x 832",
        "  f1k1        1 frame   through   1 x  2 x  2     1560  ####",
        "  x         any number of frames is skipped",
        "  g9          9 frames  made                     14040  " + "#" * 40,
        "  f1k1        1 frame   through   1 x  2 x  2     1560  ####",
        "  f2k2        2 frames  through   2 x  4 x  4      390  #",
        "  f16k4      16 frames  through   4 x  8 x  8      416  #",
        "  td        frames beyond are deleted",
        "context 3926 of 17966 tokens; unpacked it would be 31200 of 45240",
    ]


@pytest.mark.parametrize(
    ("tail", "says"),
    [("td", "deleted"), ("ta", "one token for each 32 x 32 latent pixels"), ("tc", "one token for all")],
)
def test_what_happens_to_a_tail_is_said(tail, says):
    assert f"  {tail}        frames beyond" in draw_schedule(parse(f"{tail}_f1k1_g9"), Format())
    assert says in draw_schedule(parse(f"{tail}_f1k1_g9"), Format())


def test_both_sides_of_a_schedule_are_drawn_in_time_order():
    drawn = draw_schedule(parse("ta_f1k1_x_f2k2_g4+D_f3k1_x_f4k4_tc"), Format())
    first = [line.split()[0] for line in drawn.splitlines()[2:-1]]
    assert first == ["ta", "f1k1", "x", "f2k2", "g4+D", "f3k1", "x", "f4k4", "tc"]


def test_a_forward_plan_moves_to_the_right():
    assert draw_plan(planned(VANILLA, 4), Format()).splitlines() == [
        "order vanilla: 4 sections, 37 frames, 145 images, 4.83 s at 30 images/s",
        "# made   1 2 4 seen through k1, k2, k4   - known, not seen   a column is 1 frame",
        "  section  frames     positions    context  0         10        20        30",
        "        1  1-9        20-28           3120  1#########",
        "        2  10-18      20-28           3718  1444444221#########",
        "        3  19-27      20-28           3926  1444444444444444221#########",
        "        4  28-36      20-28           3926  1--------4444444444444444221#########",
    ]


def test_an_inverted_plan_moves_to_the_left():
    strips = [line[44:] for line in draw_plan(planned(INVERTED, 4), Format()).splitlines()[3:]]
    assert strips == [
        "1                           #########",
        "1                  #########122444444",
        "1         #########122444444444444444",
        "1#########1224444444444444444--------",
    ]


def test_a_kept_tail_is_drawn():
    lines = draw_plan(planned("tc_f1k1_g3", 3), Format()).splitlines()
    assert "t tail" in lines[1]
    assert [line[44:] for line in lines[3:]] == ["1###", "ttt1###", "tttttt1###"]


def test_both_sides_and_what_is_known_are_drawn_across_gaps():
    plan = make_plan(parse(BOTH_SIDES), 50, "planned:3")
    lines = draw_plan(plan, Format()).splitlines()
    assert lines[0].startswith("order planned:3: 6 sections, 50 frames")
    assert [line[44:] for line in lines[3:]] == [
        "1                  #########",
        "1                  444444221                  ####",
        "1#########         1224444--                  ----",
        "1444444221#########1224444--                  ----",
        "1--------4444444444444444221#########         1224",
        "1-----------------4444444444444444221#########1224",
    ]
    assert [line.split()[1] for line in lines[3:5]] == ["19-27", "46-49"]


def test_a_section_of_one_frame_is_named_by_it():
    lines = draw_plan(make_plan(parse("f1k1_g9"), 11), Format()).splitlines()
    assert lines[4].split()[1:3] == ["10", "1"]


def test_the_frame_seen_best_is_not_hidden_in_the_column_of_one_that_is_made():
    lines = draw_plan(planned(VANILLA, 12), Format()).splitlines()
    assert "a column is 2 frames" in lines[1]
    assert [line[44:] for line in lines[6:8]] == ["1---4444444421#####", "1--------4444444421####"]


def test_given_frames_are_known_from_the_beginning():
    lines = draw_plan(make_plan(parse(BOTH_SIDES), 22, "vanilla", given=[20, 15, 22]), Format()).splitlines()
    assert [line[44:] for line in lines[3:]] == [
        "1#########     1    -",
        "1444444221######### 1",
        "1444444444444444221###",
    ]


def test_frames_that_are_zeros_are_not_drawn():
    with_zeros, without = (planned(VANILLA, 3, missing=missing) for missing in ("zeros", "absent"))
    strips = [[line[44:] for line in draw_plan(p, Format()).splitlines()[3:]] for p in (with_zeros, without)]
    assert strips[0] == strips[1]


def test_a_plan_that_sees_nothing_is_drawn():
    lines = draw_plan(planned("g9", 1), Format()).splitlines()
    assert lines[0].startswith("order vanilla: 1 section, 10 frames")
    assert "seen" not in lines[1].replace("not seen", "")
    assert lines[3][44:] == "-#########"


def test_kernels_of_two_digits_or_three_sizes_have_letters():
    lines = draw_plan(planned("f2k16f1k1h4w4f1k1_g3", 2), Format()).splitlines()
    assert "1 a b seen through k1, k1h4w4, k16" in lines[1]
    assert lines[4][44:] == "bba1###"


@settings(untimed, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 200))
def test_lines_keep_to_the_width(n, columns):
    lines = draw_plan(planned(INVERTED, n), Format(), columns).splitlines()[2:]
    assert max(map(len, lines)) <= max(columns, 44 + 20)


def test_long_plans_leave_out_their_middle():
    lines = draw_plan(planned(VANILLA, 100), Format(), columns=140).splitlines()
    assert len(lines) == 3 + 60 + 1
    assert lines[3 + 30] == "      ...  40 sections are left out here"
    assert [int(line.split()[0]) for line in (lines[3 + 29], lines[3 + 31], lines[-1])] == [30, 71, 100]
    strip = lines[3 + 31].split("3926  ")[1]
    assert strip.startswith("1---")
    assert strip.endswith("42#")


def test_a_format_counts_images():
    format = Format(height=96, width=160, fps=12, temporal_ratio=8)
    assert format.grid == (12, 20)
    assert format.images(10) == 73
    assert format.seconds(10) == 73 / 12
