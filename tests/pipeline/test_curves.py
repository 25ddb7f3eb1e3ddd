import shutil
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import RunError
from longtake.pipeline import CURVES, Meter, Run, draw_run, draw_run_svg, ramp, rows_of, sparkline, squeezed

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def run(undisturbed, tmp_path):
    return Run.open(shutil.copytree(undisturbed.folder, tmp_path / "room.run"))


@given(st.lists(st.none() | st.floats(0, 10), min_size=1, max_size=200), st.integers(1, 60))
def test_a_sparkline_rises_with_its_values_and_fits(values, columns):
    line = sparkline(squeezed(values, columns), top=10.0)
    assert len(line) <= max(columns, 1)
    if len(values) <= columns:
        assert [c == " " for c in line] == [v is None for v in values]
        known = sorted((v, c) for v, c in zip(values, line, strict=True) if v is not None)
        assert [c for _, c in known] == sorted(c for _, c in known)


def test_the_ends_of_a_scale_have_the_ends_of_the_characters():
    for levels in (ramp("utf-8"), ramp("ascii")):
        assert sparkline([0.0, 1.0, 99.0, -1.0], top=1.0, levels=levels) == levels[0] + 2 * levels[-1] + levels[0]


@pytest.mark.parametrize(
    ("encoding", "first"), [("utf-8", "▁"), ("UTF-16", "▁"), (None, "▁"), ("latin-1", "_"), ("no such", "_")]
)
def test_block_elements_are_drawn_where_the_encoding_has_them(encoding, first):
    assert ramp(encoding)[0] == first
    assert len(set(ramp(encoding))) == 8


def test_rows_are_sections_in_time_order(run):
    rows = rows_of(run)
    assert [row.section.frames[0] for row in rows] == [1, 10, 19, 28]
    assert [row.ends for row in rows] == pytest.approx([37 / 12, 73 / 12, 109 / 12, 145 / 12])
    assert [row.begins for row in rows] == [0.0, *(row.ends for row in rows[:-1])]
    assert [row.meter for row in rows] == list(run.read_meters())
    assert {row.section.index for row in rows} == {0, 1, 2, 3}


def test_a_run_is_drawn_with_its_curves_and_sections(run):
    drawn = draw_run(run).splitlines()
    assert drawn[0] == str(run.folder)
    assert "a red ball" in drawn[1]
    assert any("4 of 4 sections made, 48 x 32, 145 images, 12.08 s" in line for line in drawn)
    for curve in CURVES:
        values = [curve.of(meter) for meter in run.read_meters()]
        (line,) = [line for line in drawn if line.startswith(f"  {curve.name}  ")]
        assert len(set(line[43:])) <= len(values)
        assert len(line[43:]) == 24
    table = [line.split() for line in drawn if line.split()[1:2] == ["s"]]
    assert [row[0] for row in table] == ["0.00", "3.08", "6.08", "9.08"]
    assert [row[2] for row in table] == ["1-9", "10-18", "19-27", "28-36"]
    assert [int(row[3]) for row in table] == [row.section.index for row in rows_of(run)]
    assert all(len(row) == 5 + len(CURVES) for row in table)


def test_what_is_not_there_yet_is_left_open(run):
    last = rows_of(run)[-1].section.index
    run.section_path(last).unlink()
    run.segment(3).path.unlink()
    run.segment(2).path.unlink()
    drawn = draw_run(run)
    assert "3 of 4 sections made" in drawn
    assert [line.split()[-1] for line in drawn.splitlines() if line.endswith("made") and "-" in line] == [
        "made",
        "made",
    ]
    (sharpness,) = [line for line in drawn.splitlines() if line.startswith("  sharpness")]
    assert len(sharpness) == 43 + 12  # of 24 columns


def test_a_drawing_fits_its_columns_and_its_characters(run):
    drawn = draw_run(run, 80, ramp("ascii"))
    assert drawn.isascii()
    before = drawn.split("\n\n")[:2]
    assert max(len(line) for part in before for line in part.splitlines()[1:]) <= 80


def long_run(run, sections):
    """The same run as if it had so many sections; each is measured as one of the first."""
    meters = run.read_meters()
    longer = Run(run.folder, run.request, run.config.model_copy(update={"frames": 1 + 9 * sections}))
    for place in range(4, sections):
        shutil.copy(run.segment(place % 4).path, longer.segment(place).path)
        longer.write_meter(replace(meters[place % 4], place=place))
    return longer


def test_long_runs_are_squeezed_and_leave_out_lines(run):
    drawn = draw_run(long_run(run, 300), 100)
    assert max(map(len, drawn.splitlines()[1:])) <= 100
    assert "240 sections are left out here" in drawn
    assert drawn.count("\n") < 90


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_without_meters_says_why(run, begun):
    for path in [*run.folder.glob("meters/*"), *([] if begun else run.folder.glob("segments/*"))]:
        path.unlink()
    says = "the sections were made before sections were measured" if begun else "a section is when its images are there"
    assert says in draw_run(run)
    with pytest.raises(RunError, match=f"there is nothing to draw. .*{says}"):
        draw_run_svg(run)


def picture_of(run):
    return ElementTree.fromstring(draw_run_svg(run))


def words(picture):
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def test_a_picture_has_a_panel_for_each_number(run):
    picture = picture_of(run)
    assert {"room.run", "order of making", *(curve.name for curve in CURVES)} <= set(words(picture))
    lines = [
        path.get("d") for path in picture.iter(f"{SVG}path") if path.get("class") == "curve" and len(path.get("d")) > 9
    ]
    assert [line.count("H") for line in lines] == [4] * 5  # a level for each section, and no gap
    assert all(line.count("M") == 1 for line in lines)
    assert sum(circle.get("class") == "knob" for circle in picture.iter(f"{SVG}circle")) == 4  # seams


def test_a_picture_shows_the_order_of_making(run):
    blocks = [rect for rect in picture_of(run).iter(f"{SVG}rect") if rect.get("class") == "made"]
    in_time = sorted(blocks, key=lambda rect: float(rect.get("x")))
    strength = [float(rect.get("opacity")) for rect in in_time]
    order = [row.section.index for row in rows_of(run)]
    assert sorted(range(4), key=lambda place: -strength[place]) == sorted(range(4), key=lambda place: order[place])


def test_everything_lies_on_the_sheet(run):
    for sections in (4, 70):
        picture = picture_of(long_run(run, sections))
        width, height = (float(side) for side in picture.get("viewBox").split()[2:])
        for rect in picture.iter(f"{SVG}rect"):
            assert 0 <= float(rect.get("x", 0)) <= float(rect.get("x", 0)) + float(rect.get("width")) <= width
        below = 0.0
        for group in picture:
            if group.tag == f"{SVG}g":
                below = float(group.get("transform").removesuffix(")").split()[1])
        assert below + 46 < height


def test_a_curve_is_broken_where_nothing_is_known(run):
    run.segment(1).path.unlink()
    lines = [
        p.get("d") for p in picture_of(run).iter(f"{SVG}path") if p.get("class") == "curve" and len(p.get("d")) > 9
    ]
    assert all((line.count("M"), line.count("H")) == (2, 3) for line in lines)


def test_a_picture_takes_any_prompt_and_any_numbers(run):
    prompt = "<b>\"red\" & 'blue'</b> " * 40
    wild = Run(run.folder, run.request, run.config.model_copy(update={"prompt": prompt}))
    wild.write_meter(Meter(1, 1e9, 0.0, 123.4, 1e6, 0.0, 9.0))
    picture = picture_of(wild)
    assert any(text.startswith("<b>\"red\" & 'blue'</b> <b>") for text in words(picture))
    assert "prefers-color-scheme: dark" in draw_run_svg(wild)
    assert draw_run_svg(wild) == draw_run_svg(wild)
