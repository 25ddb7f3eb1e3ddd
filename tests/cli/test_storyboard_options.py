"""Storyboards on the command line: shown by a dry run, said before work starts, repeated from a video."""

import json
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli import main
from longtake.media import read_comment

BOARD = """
# two things happen
a red ball
0s image=start.png: a red ball and a blue box, the camera turns left
4s-9.2s seed=7: a red ball and a blue box, the camera turns right
9s guidance=2 image=end.png
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder to work in, with images and a storyboard in a folder in it."""
    (tmp_path / "boards").mkdir()
    for name, gray in {"start.png": 90, "end.png": 180}.items():
        Image.new("L", (70, 50), gray).save(tmp_path / "boards" / name)
    (tmp_path / "boards" / "a.txt").write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "96")
    return tmp_path


@pytest.fixture
def generate(there, tiny_backbone_folder, capsys):
    """Exit code and what is said by `longtake generate` with the tiny model, four sections long."""

    def call(*options):
        code = main(["generate", "--model", str(tiny_backbone_folder), "--seconds", "12", *map(str, options)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_dry_run_shows_which_words_and_images_reach_which_section(generate, there):
    code, out, err = generate("--storyboard", "boards/a.txt", "--seed", 3, "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines()[4:] == [
        "  place  seconds          section  seed  guidance  prompt",
        "      0  0.00-3.00              0     3         1  a red ball and a blue...the camera turns left",
        "      1  3.00-6.00              1     7         1  a red ball and a blue...he camera turns right",
        "      2  6.00-9.00              2     7         1  a red ball and a blue...he camera turns right",
        "         9.00  boards/end.png, seen by sections 0-2",
        "      3  9.00-12.00             3     3         2  a red ball",
        "Sections are numbered in the order of making.",
        "Times go to where a section begins or ends, every 3 s:",
        "  4 s -> 3 s  [4s-9.2s seed=7: a red ball and a blue box, the camera turns right]",
        "  9.2 s -> 9 s  [4s-9.2s seed=7: a red ball and a blue box, the camera turns right]",
    ]
    assert sorted(p.name for p in there.iterdir()) == ["boards"]


def test_a_dry_run_numbers_sections_in_the_order_of_making(generate):
    board = ("--image", "boards/start.png", "--prompt", "a ball [3s image=boards/end.png] [loop]", "--dry-run")
    _, out, _ = generate(*board, "--order", "anti_drifting")
    rows = [line.split() for line in out.splitlines()[4:]]
    assert [(row[0], row[2]) for row in rows if row[0].isdigit()] == [("0", "0"), ("1", "2"), ("2", "3"), ("3", "1")]
    assert "         3.00  boards/end.png, seen by sections 0-1\n" in out
    assert "         12.00  boards/start.png, seen by section 1\n" in out


def test_sections_that_see_an_image_are_named_as_runs(generate):
    board = ("--image", "boards/start.png", "--prompt", "a ball [3s image=boards/end.png]", "--dry-run")
    assert "end.png, seen by section 0\n" in generate(*board)[1]
    assert "end.png, seen by sections 0, 2\n" in generate(*board, "--order", "planned:3")[1]


def test_a_dry_run_in_json_holds_the_script(generate):
    code, out, _ = generate("--storyboard", "boards/a.txt", "--dry-run", "--json")
    row = json.loads(out)
    script = row["script"]
    assert code == 0
    assert script["sections"][1] == {
        "place": 1, "begins": 3.0, "ends": 6.0, "section": 1, "seed": 7, "guidance": 1.0,
        "prompt": "a red ball and a blue box, the camera turns right",
    }  # fmt: skip
    assert script["images"] == [{"image": "boards/end.png", "seconds": 9.0, "frame": 28, "seen_by": [0, 1, 2]}]
    assert [(snap["asked"], snap["got"], snap["entry"][:9]) for snap in script["snaps"]] == [
        (4.0, 3.0, "[4s-9.2s "), (9.2, 9.0, "[4s-9.2s "),
    ]  # fmt: skip
    assert row["config"]["given"] == [28]


def test_without_a_storyboard_a_dry_run_shows_no_table(generate):
    _, out, _ = generate("--image", "boards/start.png", "--prompt", "a ball", "--dry-run")
    assert len(out.splitlines()) == 4
    _, out, _ = generate("--image", "boards/start.png", "--prompt", "a ball", "--dry-run", "--json")
    assert [row["prompt"] for row in json.loads(out)["script"]["sections"]] == ["a ball"] * 4


def test_what_snapped_is_said_before_work_starts(generate, there):
    code, out, err = generate("--storyboard", "boards/a.txt", "--json")
    assert code == 0
    assert err.splitlines()[:2] == [
        "Times go to where a section begins or ends, every 3 s:",
        "  4 s -> 3 s  [4s-9.2s seed=7: a red ball and a blue box, the camera turns right]",
    ]
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["planned", *["section"] * 4, "finished"]
    assert (there / "longtake.run" / "keys" / "0028.png").exists()


def test_where_nothing_snapped_nothing_is_said(generate):
    assert generate("--image", "boards/start.png", "--prompt", "a ball [3s: it turns]", "--json")[2] == ""


def dry(generate, *options):
    code, out, err = generate(*options, "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)["config"]


def test_a_video_repeats_its_storyboard_until_another_is_given(generate, there):
    generate("--storyboard", "boards/a.txt", "--json")
    repeat = ("--from", "longtake.mp4", "--output", "b.mp4")
    before = dry(generate, "--storyboard", "boards/a.txt", "--output", "b.mp4")
    assert dry(generate, *repeat) == before
    assert dry(generate, *repeat, "--prompt", "a box") == {
        **before, "prompt": "a box", "told": [*before["told"][:3], {**before["told"][3], "prompt": "a box"}],
    }  # fmt: skip
    told = dry(generate, *repeat, "--prompt", "[3s: a box]")["told"]
    assert [row["prompt"] for row in told] == ["", "a box", "a box", "a box"]
    (there / "b.json").write_text('{"cues": [{"at": 6, "seed": 5}]}')
    config = dry(generate, *repeat, "--storyboard", "b.json")
    assert [(row["prompt"], row["seed"]) for row in config["told"]] == [("a red ball", s) for s in (None, None, 5, 5)]
    assert config["given"] == []
    request = json.loads(read_comment(Path("longtake.mp4")))
    assert (request["image"], request["prompt"]) == ("boards/start.png", "a red ball")


REFUSED = {
    "no file": (["--storyboard", "nowhere.txt"], "nowhere.txt: not a storyboard that can be read"),
    "no text": (["--storyboard", "boards/end.png"], "end.png: not a storyboard that can be read"),
    "place": (["--storyboard", "b.txt"], "error: b.txt\n       line 2\n       3: a box\n        ^ expected s"),
    "prompt": (["--prompt", "a [3: a]", "--image", "a.png"], "error: a [3: a]\n           ^ expected s"),
    "twice": (["--storyboard", "boards/a.txt", "--prompt", "[0s: a]"], "and so does the storyboard; one of them would"),
    "two images": (["--storyboard", "boards/a.txt", "--image", "b.png"], "a video starts from one image"),
    "no image": (["--storyboard", "c.json"], "a start image is missing"),
    "length": (["--storyboard", "boards/a.txt", "--seconds", "6"], "the video ends at 6 s; one of 9 s would do"),
    "key": (["--storyboard", "c.json", "--image", "boards/end.png"], "boards/no.png: there is no such image"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_and_nothing_is_written(generate, there, name):
    options, said = REFUSED[name]
    (there / "b.txt").write_text("a ball\n3: a box\n")
    (there / "c.json").write_text('{"cues": [{"at": 6, "image": "boards/no.png"}]}')
    before = sorted(there.rglob("*"))
    code, out, err = generate(*options)
    assert (code, out) == (2, "")
    assert said in err
    assert sorted(there.rglob("*")) == before
