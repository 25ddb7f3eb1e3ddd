"""`longtake extend`: videos that are made longer from the command line, resumed, repeated, refused."""

import json

import numpy as np
import pytest

from longtake.cli import main
from longtake.media import read_video, write_segment


@pytest.fixture
def video(tmp_path, monkeypatch):
    """A video of 90 images of another shape at 24 a second, in the folder that is worked in: 45 at the model's rate."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:40, :40]
    images = np.stack([np.stack([(5 * (x + t)) % 256, 6 * y, 255 - x - y], -1) for t in range(90)]).astype(np.uint8)
    return write_segment(images, tmp_path / "room.mp4", 0, 24).path


@pytest.fixture
def extending(video, tiny_backbone_folder):
    """Runs the verb with two sections to make, and gives the exit code."""

    def run(*options):
        model = ["--model", str(tiny_backbone_folder), "--prompt", "a red ball", "--seconds", "6"]
        return main(["extend", video.name, *model, *options])

    return run


def rows_of(said):
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize(("side", "frames", "images"), [("after", [12, 21], 117), ("before", [9, 0], 116)])
def test_a_video_is_made_longer_and_how_it_is_taken_in_is_said(
    extending, video, tmp_path, capsys, side, frames, images
):
    assert extending("--side", side, "--json") == 0
    said = capsys.readouterr()
    rows = rows_of(said)
    assert [row["event"] for row in rows] == ["planned", "section", "section", "finished"]
    assert [row["frames"][0] for row in rows[1:3]] == frames
    assert rows[-1] == {"event": "finished", "video": f"room-{side}.mp4", "images": images}
    assert len(read_video(tmp_path / f"room-{side}.mp4")) == images
    assert "room.mp4: 45 images of 48 x 32 at 12 images/s, 3.75 s\n" in said.err
    assert "33% of each picture is cropped away" in said.err
    assert main(["resume", f"room-{side}.run", "--from-section", "1", "--seed", "3", "--json"]) == 0
    again = rows_of(capsys.readouterr())
    assert (again[0]["finished"], again[-1]) == (1, {**rows[-1], "video": again[-1]["video"]})
    assert main(["show", f"room-{side}.run"]) == 0
    assert "3.75 s that were there already (45 images)" in capsys.readouterr().out


def test_a_longer_video_knows_how_it_was_made(extending, tmp_path, capsys):
    assert extending("--seed", "4") == 0
    assert capsys.readouterr().out == "room-after.mp4\n"
    assert main(["extend", "--from", "room-after.mp4", "--seed", "5", "--output", "b.mp4", "--dry-run", "--json"]) == 0
    config = rows_of(capsys.readouterr())[-1]["config"]
    assert (config["seed"], config["prompt"], config["source"]) == (
        5, "a red ball", {"side": "after", "images": 45, "frames": 12},
    )  # fmt: skip
    assert main(["generate", "--from", "room-after.mp4", "--output", "b.mp4"]) == 2
    assert "room-after.mp4 was made by longtake extend, which has a --from of its own" in capsys.readouterr().err
    assert not (tmp_path / "b.mp4").exists()


def test_a_dry_run_makes_nothing(extending, tmp_path, capsys):
    assert extending("--side", "before", "--dry-run", "--prompt", "a red ball [4s: a blue box]") == 0
    said = capsys.readouterr().out
    assert "2 sections, 116 images of 48 x 32, 9.67 s at 12 images/s" in said
    assert "4 s -> 3 s" in said
    assert [path.name for path in tmp_path.iterdir()] == ["room.mp4"]


def test_what_is_missing_or_wrong_is_named(extending, tmp_path, capsys):
    for options, said in (
        (["--order", "inverted"], "sees nothing next to g on its left"),
        (["--prompt", "a red ball [loop]"], "key images and loops lead from a start image"),
        (["--height", "33"], "its neighbors are 32 and 48"),
        (["--output", "room.mp4"], "room.mp4 is the video that is to be made longer; name another file"),
        (["--output", "b.avi"], "the video is written as MP4"),
    ):
        assert extending(*options) == 2
        assert said in capsys.readouterr().err
    assert main(["extend", "--prompt", "a red ball"]) == 2
    assert "a video is missing; longtake extend VIDEO names one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["room.mp4"]
