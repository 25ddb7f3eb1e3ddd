import json
import os
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import tyro
from PIL import Image

from longtake.cli import main
from longtake.cli.show import Options, run
from longtake.errors import InputError, ModelError, OutputError, PlanError, RunError, ScheduleError
from longtake.plan import INVERTED, ORDERS, VANILLA
from longtake.schedule import PRESETS


def show(*arguments):
    return run(tyro.cli(Options, args=list(arguments)))


def table(capsys, *arguments):
    assert show(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_has_the_published_layout(capsys):
    shown = table(capsys, "f1k1_x_f16k4f2k2f1k1_g9", "--seconds", "3")
    assert list(shown) == ["schedule", "context_tokens", "section_tokens", "sections"]
    assert (shown["schedule"], shown["context_tokens"], shown["section_tokens"]) == (
        "f1k1_x_f16k4f2k2f1k1_g9",
        3926,
        14040,
    )
    assert len(shown["sections"]) == 2
    assert shown["sections"][1] == {
        "index": 1,
        "frames": list(range(10, 19)),
        "positions": list(range(20, 29)),
        "sees": [
            {"frames": [0], "kernel": [1, 2, 2], "positions": [0], "tokens": 1560},
            {"frames": list(range(7)), "kernel": [4, 8, 8], "positions": list(range(10, 17)), "tokens": 208},
            {"frames": [7, 8], "kernel": [2, 4, 4], "positions": [17, 18], "tokens": 390},
            {"frames": [9], "kernel": [1, 2, 2], "positions": [19], "tokens": 1560},
        ],
    }


def test_five_seconds_at_thirty_images_are_planned_by_default(capsys):
    assert len(table(capsys, VANILLA)["sections"]) == 4
    assert len(table(capsys, VANILLA, "--seconds", "5", "--fps", "16")["sections"]) == 2


def test_the_order_follows_from_the_schedule(capsys):
    assert [s["frames"][0] for s in table(capsys, VANILLA)["sections"]] == [1, 10, 19, 28]
    assert [s["frames"][0] for s in table(capsys, INVERTED)["sections"]] == [28, 19, 10, 1]


def test_gaps_are_clamped_or_true(capsys):
    first = [table(capsys, INVERTED, "--seconds", "30", *gaps)["sections"][0] for gaps in ([], ["--gaps", "true"])]
    assert [section["positions"][0] for section in first] == [28, 217]


def test_sizes_are_pixels(capsys):
    shown = table(capsys, VANILLA, "--height", "608", "--width", "640")
    assert (shown["context_tokens"], shown["section_tokens"]) == (3820, 13680)


@pytest.mark.parametrize(("tail", "kernel", "tokens"), [("ta", [1, 32, 32], 17 * 8), ("tc", [17, 60, 104], 1)])
def test_a_tail_says_what_becomes_a_token(capsys, tail, kernel, tokens):
    look = table(capsys, f"{tail}_f2k1_g9", "--seconds", "4")["sections"][2]["sees"][0]
    assert (look["kernel"], look["tokens"]) == (kernel, tokens)
    assert look["frames"] == list(range(17))


def test_the_drawing_has_schedule_and_plan(capsys):
    assert show(VANILLA) == 0
    drawn = capsys.readouterr().out
    assert "context 3926 of 17966 tokens" in drawn
    assert "order vanilla: 4 sections, 37 frames, 145 images, 4.83 s at 30 images/s" in drawn


def test_the_drawing_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    show(VANILLA, "--seconds", "60")
    assert max(len(line) for line in capsys.readouterr().out.splitlines()[11:]) <= 90


def test_a_drawing_is_written_as_svg(capsys, tmp_path):
    path = tmp_path / "plan.svg"
    assert show(VANILLA, "--output", str(path), "--json") == 0
    said = capsys.readouterr()
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert said.err == f"wrote {path}\n"
    assert json.loads(said.out)["schedule"] == VANILLA
    assert [p.name for p in tmp_path.iterdir()] == ["plan.svg"]


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.svg"):
        show(VANILLA, "--output", str(tmp_path / "plan.png"))


def test_a_drawing_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        show(VANILLA, "--output", str(tmp_path / "missing" / "plan.svg"))
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        show(VANILLA, "--output", str(tmp_path / "folder.svg"))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.svg"]


UNSERVED = "f2k1_x_g9_f1k1"  # two anchors, and all else on the right


def test_a_schedule_without_an_order_is_drawn_alone(capsys):
    assert show(UNSERVED) == 0
    said = capsys.readouterr()
    assert said.out.startswith(UNSERVED)
    assert "order vanilla" not in said.out
    assert said.err.startswith("no plan: no order can serve the schedule")
    assert table(capsys, UNSERVED)["sections"] == []


@pytest.mark.parametrize("asked", [["--seconds", "5"], ["--order", "vanilla"]])
def test_a_plan_that_was_asked_for_and_cannot_be_is_an_error(asked):
    with pytest.raises(PlanError, match=r"can serve|cannot serve"):
        show(UNSERVED, *asked)


@pytest.mark.parametrize("name", [VANILLA, INVERTED])
@pytest.mark.parametrize("seconds", [1, 5, 12, 60, 3600])
def test_a_drawing_for_a_pipe_fits_100_columns(capsys, monkeypatch, name, seconds):
    monkeypatch.delenv("COLUMNS", raising=False)
    show(name, "--seconds", str(seconds))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


ENDPOINT = "td_f16k4f4k2f1k1_g9_x_f1k1"  # the paper's example


def test_endpoints_are_spaced_as_asked(capsys):
    def made(*asked):
        return [section["frames"][0] // 9 for section in table(capsys, ENDPOINT, "--seconds", "10", *asked)["sections"]]

    assert made() == [0, 7, 1, 2, 3, 4, 5, 6]
    assert made("--order", "planned") == [7, 0, 1, 2, 3, 4, 5, 6]
    assert made("--order", "planned:3") == [2, 5, 7, 0, 1, 3, 4, 6]
    assert made("--order", "planned:6,3") == [5, 7, 2, 0, 1, 3, 4, 6]
    show(ENDPOINT, "--order", "planned:6,3")
    assert "order planned:6,3: 4 sections" in capsys.readouterr().out


@pytest.mark.parametrize("order", ORDERS)
def test_help_names_every_order_and_every_preset(capsys, monkeypatch, order):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"{order} (" in said
    assert all(preset in said for preset in PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_structure_is_shown_by_its_name(capsys, name):
    assert table(capsys, name) == table(capsys, PRESETS[name].schedule)


def test_a_word_that_names_no_schedule_is_refused_with_those_that_do(capsys):
    assert main(["show", "symetric"]) == 2
    assert "'symetric' is unknown; there are: geometric, level-duplication" in capsys.readouterr().err


def test_the_five_structures_are_drawn_and_with_a_length_their_plans(capsys, tmp_path):
    path = tmp_path / "figure1.svg"
    assert show("--figure1", "--output", str(path)) == 0
    drawn = capsys.readouterr().out
    assert all(f"\n{name}\n{preset.schedule}\n" in drawn for name, preset in PRESETS.items())
    assert "order vanilla" not in drawn
    alone = ElementTree.parse(path).getroot()
    show("--figure1", "--seconds", "4", "--output", str(path))
    assert capsys.readouterr().out.count("order vanilla: 3 sections") == 5
    assert float(ElementTree.parse(path).getroot().get("height")) > float(alone.get("height"))


def test_the_five_structures_as_a_table(capsys):
    shown = table(capsys, "--figure1", "--seconds", "4")["structures"]
    assert [row["name"] for row in shown] == list(PRESETS)
    assert [row["schedule"] for row in shown] == [preset.schedule for preset in PRESETS.values()]
    assert {len(row["sections"]) for row in shown} == {3}
    assert {len(row["sections"]) for row in table(capsys, "--figure1")["structures"]} == {4}


def test_the_orders_are_drawn_beside_each_other(capsys, tmp_path):
    path = tmp_path / "orders.svg"
    assert show("--orders", "--output", str(path)) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith("12 sections, 109 frames")
    assert all(f"\n{order}" in drawn for order in ORDERS)
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_orders_as_a_table(capsys):
    shown = table(capsys, "--orders", "--gaps", "true")["orders"]
    assert [(row["order"], row["first_second_after"]) for row in shown] == [
        ("vanilla", 1), ("inverted", 12), ("planned", 3), ("anti_drifting", 1),
    ]  # fmt: skip
    assert shown[1]["sections"][0]["positions"][0] == 100
    assert [len(row["sections"]) for row in table(capsys, "--orders", "--seconds", "30")["orders"]] == [25] * 4


@pytest.mark.parametrize("arguments", [[], ["g9", "--orders"], ["g9", "--figure1"], ["--figure1", "--orders"]])
def test_one_thing_is_drawn_at_a_time(arguments):
    with pytest.raises(
        InputError, match="expected one of: the NAME of a schedule, the folder of a run, --figure1, --orders"
    ):
        show(*arguments)


@pytest.mark.parametrize("subject", ["--figure1", "--orders"])
def test_an_order_is_that_of_a_schedule(subject):
    with pytest.raises(InputError, match="the order planned: expected the NAME"):
        show(subject, "--order", "planned")


@pytest.mark.parametrize("subject", ["--figure1", "--orders"])
@pytest.mark.parametrize("seconds", [None, 1, 60, 900])
def test_several_drawings_for_a_pipe_fit_100_columns(capsys, monkeypatch, subject, seconds):
    monkeypatch.delenv("COLUMNS", raising=False)
    show(subject, *(["--seconds", str(seconds)] if seconds else []))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_a_picture_of_the_orders_that_would_be_too_long_is_refused_and_not_written(capsys, tmp_path):
    with pytest.raises(PlanError, match="200 sections: a picture of the orders has room for 100"):
        show("--orders", "--seconds", "240", "--output", str(tmp_path / "orders.svg"))
    assert not list(tmp_path.iterdir())


def test_the_caret_stands_under_its_place_on_the_terminal(capsys):
    assert main(["show", "f16k4_q2_g9"]) == 2
    name, caret = capsys.readouterr().err.splitlines()
    assert name[caret.index("^")] == "q"


def test_a_name_that_cannot_be_read_is_an_error():
    with pytest.raises(ScheduleError, match=r"\^ expected"):
        show("f16k4_q2_g9")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--height", "481"], r"a height of 481 is off the grid of 16 pixels; try 480 or 496"),
        (["--width", "8"], r"a width of 8 is off the grid of 16 pixels; try 16 or 32"),
        (["--width", "0"], r"a width of 0 .* try 16 or 32"),
        (["--height", "-480"], r"a height of -480 .* try 16 or 32"),
        (["--seconds", "0"], "a video of 0 s: expected more than 0"),
        (["--seconds", "nan"], "a video of nan s"),
        (["--seconds", "inf"], "at most 86400"),
        (["--fps", "0"], "0 images a second: expected a number above 0"),
        (["--fps", "inf"], "inf images a second"),
        (["--fps", "nan"], "nan images a second"),
    ],
)
def test_a_number_that_cannot_be_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        show(VANILLA, *arguments)


def test_a_model_brings_its_sizes(capsys, tiny_backbone_folder):
    # 12 images/s, 32 x 48: 6 tokens a frame, and 5 s are 2 sections rather than 4.
    shown = table(capsys, VANILLA, "--model", str(tiny_backbone_folder))
    assert shown["section_tokens"] == 9 * 6
    assert len(shown["sections"]) == 2
    larger = table(capsys, VANILLA, "--model", str(tiny_backbone_folder), "--height", "64", "--fps", "24")
    assert larger["section_tokens"] == 9 * 12
    assert len(larger["sections"]) == 3


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a whole model folder"):
        show(VANILLA, "--model", str(tmp_path))


def test_showing_loads_no_torch():
    code = f"""
import sys
from longtake.cli.show import Options, run
run(Options({VANILLA!r}))
assert not {{"torch", "numpy", "diffusers"}} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_backbone_folder):
    """The folder of a finished run of two sections, made from the end."""
    from longtake.pipeline import Request, generate

    folder = tmp_path_factory.mktemp("made")
    Image.new("RGB", (48, 32), "gray").save(folder / "start.png")
    data = {"image": folder / "start.png", "prompt": "a red ball", "model": str(tiny_backbone_folder), "seconds": 6}
    request = Request.model_validate({**data, "order": "inverted"})
    list(generate(request, folder / "room.mp4", folder / "room.run"))
    return folder / "room.run"


def test_a_run_is_drawn_over_time(made, capsys):
    assert show(str(made)) == 0
    drawn = capsys.readouterr().out
    assert "2 of 2 sections made" in drawn
    assert all(f"  {name}  " in drawn for name in ("sharpness", "color", "motion", "latent mean", "latent std", "jump"))
    made_with = [line.split()[0] for line in drawn.partition("Made with\n")[2].splitlines()]
    assert made_with == [part["name"] for part in table(capsys, str(made))["manifest"]["parts"]]
    assert {"transformer", "vae", "text_encoder", "tokenizer", "settings"} <= set(made_with)


def test_a_run_is_a_table_in_time_order(made, capsys):
    shown = table(capsys, str(made))
    assert list(shown) == ["run", "request", "config", "manifest", "sections"]
    assert (shown["request"]["prompt"], shown["config"]["order"]) == ("a red ball", "inverted")
    assert [section["section"] for section in shown["sections"]] == [1, 0]
    assert [section["frames"] for section in shown["sections"]] == [list(range(1, 10)), list(range(10, 19))]
    assert [section["seconds"] for section in shown["sections"]] == [[0.0, 3.083], [3.083, 6.083]]
    assert [section["meter"]["place"] for section in shown["sections"]] == [0, 1]
    assert all(section["made"] for section in shown["sections"])


def test_a_run_is_written_as_svg(made, capsys, tmp_path):
    assert show(str(made), "--output", str(tmp_path / "run.svg"), "--json") == 0
    assert ElementTree.parse(tmp_path / "run.svg").getroot().tag.endswith("svg")


def test_a_run_that_has_not_begun_is_drawn_and_its_picture_refused(made, capsys, tmp_path):
    run = shutil.copytree(made, tmp_path / "new.run")
    for folder in ("sections", "segments", "meters"):
        shutil.rmtree(run / folder)
    assert show(str(run)) == 0
    assert "Nothing is measured yet" in capsys.readouterr().out
    assert [section["meter"] for section in table(capsys, str(run))["sections"]] == [None, None]
    with pytest.raises(RunError, match="there is nothing to draw"):
        show(str(run), "--output", str(tmp_path / "run.svg"))
    assert not (tmp_path / "run.svg").exists()


@pytest.mark.parametrize("option", [["--seconds", "3"], ["--order", "vanilla"], ["--model", "embedded"]])
def test_a_run_has_its_own_plan(made, option):
    with pytest.raises(InputError, match=f"{option[0]} is for the plan of a schedule; .* is a run, which has its own"):
        show(str(made), *option)


@pytest.mark.parametrize("name", ["nowhere.run", "no/where", ".", "empty"])
def test_a_folder_that_is_no_run_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"there is no run here \(no config.json\)"):
        show(name)


def test_a_name_that_is_a_schedule_is_one(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / VANILLA)
    show(VANILLA)
    assert "what a section sees" in capsys.readouterr().out
    show(f"./{VANILLA}")
    assert "2 of 2 sections made" in capsys.readouterr().out


def test_a_terminal_without_block_elements_gets_other_characters(made):
    command = [sys.executable, "-m", "longtake", "show", str(made)]
    ran = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.isascii()
    assert b"sharpness" in ran.stdout
