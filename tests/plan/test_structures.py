from xml.etree import ElementTree

import pytest

from longtake.plan import Format, draw_structures, draw_structures_svg, make_plan
from longtake.schedule import PRESETS, find_schedule

SVG = "{http://www.w3.org/2000/svg}"


def plans(frames=37):
    return {name: make_plan(find_schedule(name), frames) for name in PRESETS}


def words(picture):
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def block(name, text):
    (found,) = [part for part in text.split("\n\n") if part.startswith(f"{name}\n")]
    return found.splitlines()


def test_a_line_higher_is_twice_the_tokens():
    assert block("level-duplication", draw_structures(Format()))[3:-1] == [
        "  1                 o  # # # # # # # # #",
        "  1/2               o  # # # # # # # # #",
        "  1/4         o o o o  # # # # # # # # #",
        "  1/8         o o o o  # # # # # # # # #",
        "  1/16  o o o o o o o  # # # # # # # # #",
    ]


def test_merged_frames_stand_together_and_a_gap_is_shown():
    lines = block("symmetric", draw_structures(Format()))[3:-1]
    assert lines[-1] == "  1/64  o oo oooo oooo  ...  oooo oooo oo o  # # # # # # # # #"
    assert lines[0] == "  1     o                                 o  # # # # # # # # #"
    assert len({len(line) for line in lines}) == 1


def test_the_price_is_in_frames_and_in_tokens():
    said = block("temporal-kernels", draw_structures(Format()))[-1]
    assert said == "19 frames at the price of 1.50: 2,366 of 16,406 tokens; unpacked it would be 29,640 of 43,680"


def test_plans_stand_under_their_structures():
    drawn = draw_structures(Format(), plans())
    assert drawn.count("order vanilla: 4 sections") == 5
    assert drawn.index("geometric") < drawn.index("order vanilla") < drawn.index("level-duplication")


@pytest.mark.parametrize("format", [Format(), Format(832, 480), Format(64, 1600), Format(1600, 64)])
def test_a_row_has_its_structure_and_its_cost_beside_it(format):
    picture = ElementTree.fromstring(draw_structures_svg(format))
    said = words(picture)
    for name, preset in PRESETS.items():
        schedule = find_schedule(name)
        assert {name, preset.schedule, preset.why} <= set(said)
        assert f"{schedule.context_tokens(*format.grid):,} tokens" in said
    assert said.count("g9") == 5


def test_cards_are_drawn_once_for_frames_that_a_kernel_merges():
    picture = ElementTree.fromstring(draw_structures_svg(Format()))
    fills = [rect.get("fill", "") for rect in picture.iter(f"{SVG}rect")]
    names = [pattern.get("id") for pattern in picture.iter(f"{SVG}pattern")]
    assert len(set(names)) == len(names)
    uses = {name: fills.count(f"url(#{name})") for name in names}
    assert [n for name, n in uses.items() if name.startswith("temporal-kernels")] == [9, 1, 1, 4]
    assert [n for name, n in uses.items() if name.startswith("symmetric")] == [9, 1, 1, 2, 1, 1, 2]


def test_one_rate_has_one_color_in_all_rows():
    picture = ElementTree.fromstring(draw_structures_svg(Format()))
    colors = {}
    for pattern in picture.iter(f"{SVG}pattern"):
        kernel = pattern.get("id").rpartition("-")[0].partition("-f")[2].partition("k")[2]
        colors.setdefault(kernel, set()).add(pattern[0].get("fill"))
    assert {len(found) for found in colors.values()} == {1}
    assert colors["1"] != colors["1h2w4"] != colors["4"]


def test_a_picture_with_plans_is_longer_and_still_valid():
    alone, planned = (ElementTree.fromstring(draw_structures_svg(Format(), p)) for p in (None, plans()))
    assert float(planned.get("height")) > float(alone.get("height")) + 5 * 100
    assert words(planned).count("start image") == 5
