from xml.etree import ElementTree

import pytest

from longtake.plan import BOTH_SIDES, INVERTED, VANILLA, Format, default_order, draw_svg, make_plan
from longtake.schedule import parse

SVG = "{http://www.w3.org/2000/svg}"


def drawn(name, n=0, format=None, **choices):
    schedule = parse(name)
    plan = make_plan(schedule, 1 + schedule.generated * n, default_order(schedule), **choices) if n else None
    return ElementTree.fromstring(draw_svg(schedule, format or Format(), plan))


def words(picture):
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def rectangles(node, attribute, value, left=0.0, top=0.0):
    """x, y, width, height of the rectangles under a node, moved as their groups are."""
    found = []
    for child in node:
        x, y = left, top
        if child.tag == f"{SVG}g":
            moved = child.get("transform").removeprefix("translate(").removesuffix(")").split()
            x, y = left + float(moved[0]), top + float(moved[1])
        elif child.tag == f"{SVG}rect" and child.get(attribute) == value:
            found.append([float(child.get(side, 0)) for side in ("x", "y", "width", "height")])
            found[-1][0] += left
            found[-1][1] += top
        found += rectangles(child, attribute, value, x, y) if child.tag == f"{SVG}g" else []
    return found


ANY = [
    (VANILLA, 4, Format()),
    (INVERTED, 25, Format()),
    ("ta_f1k1_x_f16k4f2k2f1k1_g9", 14, Format(832, 480)),
    ("td_f16k4f4k2f1k1_g9_x_f1k1", 0, Format()),
    ("f1k1_x_g9_f1k1f2k2f16k4_tc", 300, Format(96, 160, 12)),
    ("g1", 1, Format()),
    ("f1000k1_g9", 2, Format(64, 1600)),
    (BOTH_SIDES, 12, Format()),
    ("f2k1h32w64" + "f3k1h8w8f1k1h4w4" * 6 + "f1k1_g33+D", 40, Format(1600, 64, 60)),
]


@pytest.mark.parametrize(("name", "n", "format"), ANY)
def test_everything_lies_on_the_sheet(name, n, format):
    picture = drawn(name, n, format)
    width, height = (float(side) for side in picture.get("viewBox").split()[2:])
    (sheet,) = rectangles(picture, "class", "sheet")
    assert sheet == [0.5, 0.5, width - 1, height - 1]
    for value in ("made", "known", "tail", "edge"):
        for x, y, w, h in rectangles(picture, "class", value):
            assert -0.01 <= x <= x + w <= width
            assert -0.01 <= y <= y + h <= height


@pytest.mark.parametrize(("name", "n", "format"), ANY)
def test_a_picture_names_its_schedule_and_its_cost(name, n, format):
    schedule, said = parse(name), words(drawn(name, n, format))
    context, made = schedule.context_tokens(*format.grid), schedule.section_tokens(*format.grid)
    assert str(schedule) in said
    assert f"{context + made:,}" in said
    assert any(f"{context:,} tokens of history around {made:,}" in text for text in said)
    assert all(str(span) in said for span in schedule.spans)
    assert any("The plan" in text for text in said) == bool(n)


def test_a_card_is_drawn_for_as_many_frames_as_its_kernel_merges():
    picture = drawn("f16k4f2k2f1k1_g9")
    patterns = {pattern.get("id"): pattern for pattern in picture.iter(f"{SVG}pattern")}
    uses = [rect.get("fill") for rect in picture.iter(f"{SVG}rect")]
    assert [uses.count(f"url(#{name})") for name in patterns] == [4, 1, 1, 9]
    sizes = [104 / float(pattern.get("width")) for pattern in patterns.values()]
    assert [round(size) for size in sizes] == [13, 26, 52, 52]  # cells in a row: tokens of 832 pixels


def test_made_frames_fall_in_the_order_of_making():
    def places(name, n):
        made = [r for r in rectangles(drawn(name, n), "class", "made") if r[3] == pytest.approx(20)]
        rows = sorted({y for _, y, *_ in made})
        return [min(x for x, at, *_ in made if at == y) for y in rows]

    forward, backward = places(VANILLA, 4), places(INVERTED, 4)
    assert forward == sorted(forward)
    assert len(forward) == 4
    assert forward == pytest.approx(backward[::-1])


@pytest.mark.parametrize("n", [1, 4, 300])
@pytest.mark.parametrize("name", [VANILLA, INVERTED])
def test_the_start_image_is_pointed_at(name, n):
    picture = drawn(name, n)
    assert words(picture).count("start image") == 1
    (pointer,) = (path.get("d") for path in picture.iter(f"{SVG}path") if path.get("class") == "dot")
    x = float(pointer.removeprefix("M").split()[0])
    assert 0 < x - 104 <= (686 - 104) / (1 + 9 * n)  # within the first of all frames


def test_numbers_stand_beside_each_section():
    said = words(drawn(VANILLA, 4))
    assert said.count("20-28") == 4
    assert [said.count(n) for n in ("3,120", "3,718", "3,926")] == [1, 1, 2]


def test_long_plans_leave_out_their_middle_and_label_some_rows():
    said = words(drawn(VANILLA, 300))
    assert "100 sections are left out here" in said
    assert 60 < said.count("20-28") < 80
    assert "1" in said


def test_the_tail_is_in_the_gap_and_in_the_legend():
    assert {"x ta", "pooled", "tail"} <= set(words(drawn("ta_f1k1_x_f1k1_g9", 3)))
    assert {"tc", "one token"} <= set(words(drawn("g9_f1k1_tc")))
    assert {"x", "skipped"} <= set(words(drawn("f1k1_x_f1k1_g9")))
    assert "tail" not in words(drawn(VANILLA, 3))


def test_a_legend_that_is_too_wide_is_broken():
    name = "".join(f"f1k1h{2 * n}w{2 * n}" for n in range(2, 12)) + "_g9"
    picture = drawn(name, 2)
    legend = {rect.get("y") for rect in picture.iter(f"{SVG}rect") if rect.get("width") == "11"}
    assert len(legend) > 1


def test_a_tail_is_drawn_where_its_frames_are_and_not_between():
    plan = make_plan(parse("ta_f1k1_x_f1k1_g9_f1k1_tc"), 100, "planned")
    picture, cell = ElementTree.fromstring(draw_svg(plan.schedule, Format(), plan)), (686 - 104) / 100
    drawn = {}
    for x, y, wide, _ in rectangles(picture, "class", "tail"):
        if x < 687 and wide != 11:  # neither a cost nor the legend
            frames = {f for f in range(100) if x - 0.1 <= 104 + f * cell < x + wide - 0.1}
            drawn.setdefault(y, set()).update(frames)
    tails = [{f for look in section.sees if look.tail for f in look.frames} for section in plan.sections]
    assert [frames for _, frames in sorted(drawn.items())] == [frames for frames in tails if frames]


def test_frames_beside_the_video_are_not_drawn():
    plan = make_plan(parse(BOTH_SIDES), 20, "vanilla", given=[20])
    picture = ElementTree.fromstring(draw_svg(plan.schedule, Format(), plan))
    strips = [r for kind in ("made", "known") for r in rectangles(picture, "class", kind) if r[0] >= 104]
    assert strips
    assert max(x + wide for x, y, wide, _ in strips if x < 700 and y > 350) <= 686.01


def test_cells_that_are_too_small_to_be_told_apart_are_one():
    patterns = {p.get("id"): float(p.get("width")) for p in drawn(BOTH_SIDES).iter(f"{SVG}pattern")}
    fine, coarse = patterns["cells0"], patterns["cells2"]
    assert fine > 50 > 10 > coarse > 1.4


def test_zeros_are_not_drawn():
    zeros, absent = (rectangles(drawn(VANILLA, 3, missing=m), "fill", "#c46a10") for m in ("zeros", "absent"))
    strips = [[r for r in found if 104 <= r[0] < 687 and r[3] > 15] for found in (zeros, absent)]
    assert strips[0] == strips[1]


def test_a_picture_has_colors_for_a_dark_page_and_no_scripts():
    schedule = parse(VANILLA)
    text = draw_svg(schedule, Format())
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text
    assert text == draw_svg(schedule, Format())
