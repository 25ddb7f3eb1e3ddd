import re
from xml.etree import ElementTree

import pytest

from longtake.errors import PlanError
from longtake.plan import (
    BOTH_SIDES,
    ORDERS,
    VANILLA,
    Format,
    default_order,
    draw_orders,
    draw_orders_svg,
    make_plan,
    plan_each,
    sections_until,
)
from longtake.schedule import parse

SVG = "{http://www.w3.org/2000/svg}"


def words(node):
    return ["".join(text.itertext()) for text in node.iter(f"{SVG}text")]


def panels(picture):
    """The panels of a picture, by order."""
    groups = [group for group in picture if group.tag == f"{SVG}g"]
    return {order: group for group in groups for order in ORDERS if order in words(group)}


def numbers(panel):
    """Places in the order of making, from the left."""
    marked = [t for t in panel.iter(f"{SVG}text") if t.get("class").startswith("number")]
    return [int(t.text) for t in sorted(marked, key=lambda t: float(t.get("x")))]


def test_each_order_is_planned_with_a_schedule_that_it_serves():
    plans = plan_each(100)
    assert [plan.order for plan in plans] == list(ORDERS)
    assert {plan.frames for plan in plans} == {100}
    assert {plan.schedule.generated for plan in plans} == {parse(VANILLA).generated}
    assert default_order(plans[0].schedule) == "vanilla"


@pytest.mark.parametrize(("seconds", "after"), [(1, [1, 12, 3, 1]), (2, [2, 12, 4, 3]), (14, [12, 12, 12, 12])])
def test_the_beginning_can_be_watched_when_all_of_it_is_made(seconds, after):
    assert [sections_until(plan, Format(), seconds) for plan in plan_each(109)] == after


def test_the_beginning_of_a_video_that_is_shorter_is_all_of_it():
    assert [sections_until(plan, Format(fps=60)) for plan in plan_each(12)] == [2, 2, 2, 2]


def test_the_start_image_may_be_enough_and_given_frames_need_not_be_made():
    assert sections_until(plan_each(109)[1], Format(fps=1)) == 0
    plan = make_plan(parse(BOTH_SIDES), 28, "planned", given=range(1, 9))
    assert sections_until(plan, Format()) == 0


def test_the_text_numbers_the_sections_where_they_are():
    drawn = draw_orders(plan_each(109), Format())
    lines = [line.split()[2:] for line in drawn.splitlines() if line.lstrip().startswith("made as")]
    assert [list(map(int, line)) for line in lines] == [
        list(range(1, 13)),
        list(range(12, 0, -1)),
        [*range(3, 12), 1, 12, 2],
        [1, *range(3, 13), 2],
    ]


def test_the_text_of_a_long_video_numbers_tenths():
    drawn = draw_orders(plan_each(1 + 9 * 500), Format())
    tenths = [line[12:] for line in drawn.splitlines() if line.lstrip().startswith("made as")]
    assert "".join(sorted(tenths[0])) == tenths[0]
    assert set(tenths[0]) == set(tenths[1]) == set("0123456789")
    assert tenths[3].startswith("0")


def test_the_text_shows_what_two_sections_see():
    drawn = draw_orders(plan_each(55)[2:3], Format())
    assert "  5 sees  1--------4444444444444444221#########         1224444--" in drawn
    assert draw_orders(plan_each(10)[:1], Format()).count(" sees") == 1


def test_the_spacing_of_endpoints_is_said():
    plans = [make_plan(parse(BOTH_SIDES), 109, "planned:6,3")]
    assert "planned, endpoints every 6 and 3 sections" in draw_orders(plans, Format())
    assert "endpoints every 6 and 3 sections" in draw_orders_svg(plans, Format())


def test_each_order_has_a_panel_with_its_sections_numbered():
    found = panels(ElementTree.fromstring(draw_orders_svg(plan_each(109), Format())))
    assert list(found) == list(ORDERS)
    assert [numbers(panel) for panel in found.values()] == [
        list(range(1, 13)),
        list(range(12, 0, -1)),
        [*range(3, 12), 1, 12, 2],
        [1, *range(3, 13), 2],
    ]
    for order, panel in found.items():
        assert ORDERS[order].says in words(panel)
    said = [next(w for w in words(panel) if w.startswith("first second")) for panel in found.values()]
    assert said == [f"first second after {n} of 12" for n in (1, 12, 3, 1)]


def test_arcs_lead_from_a_section_to_each_run_that_it_sees():
    plans = plan_each(109)
    found = panels(ElementTree.fromstring(draw_orders_svg(plans, Format())))
    for plan, panel in zip(plans, found.values(), strict=True):
        turns = [group for group in panel.iter(f"{SVG}g") if "turn" in group.get("class", "")]
        for section, turn in zip(plan.sections, turns, strict=True):
            seen = {f for look in section.sees for f in look.frames}
            runs = [f for f in seen if f - 1 not in seen]
            arcs = [path.get("d") for path in turn.iter(f"{SVG}path")]
            assert len(arcs) == len(runs)
            assert sum(path.endswith(" 40") for path in arcs) == sum(f > section.frames[0] for f in runs)
            assert sum(path.endswith(" 0") for path in arcs) == sum(f < section.frames[0] for f in runs)


@pytest.mark.parametrize("frames", [2, 10, 14, 104, 109, 901])
def test_everything_lies_on_the_sheet(frames):
    picture = ElementTree.fromstring(draw_orders_svg(plan_each(frames), Format()))
    width, height = (float(side) for side in picture.get("viewBox").split()[2:])
    for group in picture.iter(f"{SVG}g"):
        for rect in group.iter(f"{SVG}rect"):
            assert float(rect.get("x")) >= 37
            assert float(rect.get("x")) + float(rect.get("width")) <= width - 37
    assert height < 1500


def test_what_is_not_there_has_no_arc():
    zeros, absent = (
        panels(ElementTree.fromstring(draw_orders_svg(plan_each(55, missing=m), Format()))) for m in ("zeros", "absent")
    )
    assert ElementTree.tostring(zeros["vanilla"]) == ElementTree.tostring(absent["vanilla"])


def test_all_is_said_without_motion():
    text = draw_orders_svg(plan_each(109), Format())
    assert "prefers-reduced-motion: reduce" in text
    assert "@media print" in text
    assert "<script" not in text
    assert ".moving { opacity: 0; }" in text  # what moves is not there where nothing does
    style = text[text.index("<style>") : text.index("</style>")]
    names = set(re.findall(r"@keyframes (\w+)", style))
    assert names == {"still", *(f"{kind}{i}" for kind in ("veil", "turn") for i in range(12))}
    for name, inner in re.findall(r"@keyframes (\w+) \{ (.*) \} \.", style):
        at = [float(x) for x in re.findall(r"([\d.]+)% ", inner)]
        assert at == sorted(at)
        assert (at[0], at[-1]) == (0, 100)
        levels = re.findall(r"opacity: ([\d.]+)", inner)
        assert levels[0] == levels[-1] == ("1" if name == "still" else "0")  # it begins and ends with the whole


def test_a_picture_has_room_for_a_hundred_sections():
    draw_orders_svg(plan_each(1 + 9 * 100), Format())
    with pytest.raises(PlanError, match="101 sections: a picture of the orders has room for 100"):
        draw_orders_svg(plan_each(1 + 9 * 101), Format())


def test_times_are_those_of_the_images():
    plan = plan_each(46)[0]
    (panel,) = panels(ElementTree.fromstring(draw_orders_svg([plan], Format(fps=12)))).values()
    at = {t.text: float(t.get("x")) for t in panel.iter(f"{SVG}text") if (t.text or "").endswith(" s")}
    a_frame = (960 - 96) / 45
    assert at["0 s"] == pytest.approx(96 - a_frame / 4, abs=0.1)  # the start image is one of four
    assert at["2 s"] - at["0 s"] == pytest.approx(2 * 12 / 4 * a_frame, abs=0.2)
