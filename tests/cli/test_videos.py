"""Videos from the command line: made, repeated, resumed, made again from a section, refused."""

import fcntl
import json
import re
import resource
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from longtake.cli import main
from longtake.cli.progress import follow
from longtake.media import read_comment, read_video


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_backbone_folder):
    """A folder with a start image, and a video of three sections that was made from it: a.mp4 and a.run."""
    folder = tmp_path_factory.mktemp("made")
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(picture).resize((70, 50)).save(folder / "start.png")
    assert main(asking(folder, tiny_backbone_folder, folder / "a.mp4", "--json")) == 0
    return folder


def asking(folder, model, output, *options):
    return [
        "generate", "--image", str(folder / "start.png"), "--prompt", "a red ball", "--model", str(model),
        "--seconds", "9", "--seed", "3", "--output", str(output), *options,
    ]  # fmt: skip


@pytest.fixture
def there(made, tmp_path):
    """A copy to work in; the video in it names the image in the first folder."""
    return shutil.copytree(made, tmp_path / "there")


def contents(run):
    """The config and latents of a run."""
    paths = [*run.glob("sections/*"), run / "config.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def test_json_lines_say_what_happens(there, tiny_backbone_folder, capsys):
    assert main(asking(there, tiny_backbone_folder, there / "b.mp4", "--json")) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    planned = {"event": "planned", "sections": 3, "steps": 2, "finished": 0, "run": str(there / "b.run"), "unread": [],
               "remarks": [], "meters": []}  # fmt: skip
    finished = {"event": "finished", "video": str(there / "b.mp4"), "images": 109}
    assert (rows[0], rows[-1]) == (planned, finished)
    assert [(r["event"], r["section"], r["images"]) for r in rows[1:-1]] == [
        ("section", 0, 37), ("section", 1, 73), ("section", 2, 109),
    ]  # fmt: skip
    assert [r["frames"] for r in rows[1:-1]] == [list(range(1 + 9 * i, 10 + 9 * i)) for i in range(3)]
    measured = [json.loads((there / "b.run" / "meters" / f"{i:04d}.json").read_text()) for i in range(3)]
    assert [r["meters"] for r in rows[1:-1]] == [[meter] for meter in measured]
    assert said.err == ""


def test_people_see_progress_on_stderr_and_the_video_on_stdout(there, tiny_backbone_folder, capsys):
    assert main(asking(there, tiny_backbone_folder, there / "b.mp4")) == 0
    said = capsys.readouterr()
    assert said.out == f"{there / 'b.mp4'}\n"
    assert f"3 sections of 2 steps; the video grows in {there / 'b.run' / 'video.mp4'}" in said.err
    sections = re.findall(r"^section (\d) \((\d of 3)\): \d+\.\d s$", said.err, re.MULTILINE)
    assert sections == [("0", "1 of 3"), ("1", "2 of 3"), ("2", "3 of 3")]  # as `--from-section` counts
    assert "109 images" in said.err


def test_people_see_drift_and_motion_of_each_section_and_over_the_video(there, tiny_backbone_folder, capsys):
    assert main(asking(there, tiny_backbone_folder, there / "b.mp4")) == 0
    said = capsys.readouterr().err
    number = r"\d+(?:\.\d+)?"
    frames = re.findall(rf"^  frames (\S+): sharpness {number}, color {number}, motion {number}$", said, re.MULTILINE)
    assert frames == ["1-9", "10-18", "19-27"]
    assert re.search(rf"sharpness \S{{3}} {number}  color \S{{3}} {number}  motion \S{{3}} {number}\n$", said)


def test_a_resumed_run_shows_what_was_measured_before(there, capsys):
    (there / "a.run" / "sections" / "0002.safetensors").unlink()
    (there / "a.run" / "segments" / "0002.mp4").unlink()
    assert main(["resume", str(there / "a.run"), "--json"]) == 0
    planned, *rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [meter["place"] for meter in planned["meters"]] == [0, 1]
    assert [[meter["place"] for meter in row["meters"]] for row in rows[:-1]] == [[], [], [2]]
    assert main(["resume", str(there / "a.run")]) == 0  # there is nothing to make
    assert re.search(r"sharpness \S{3} \S+  color \S{3} \S+  motion \S{3} \S+\n$", capsys.readouterr().err)


def test_words_that_the_model_does_not_know_are_told(there, tiny_backbone_folder, capsys):
    command = asking(there, tiny_backbone_folder, there / "b.mp4")
    command[command.index("a red ball")] = "a red cat, and a ball"
    assert main(command) == 0
    assert "the model cannot read of the prompt: cat\n" in capsys.readouterr().err


def test_an_interruption_before_anything_is_there_promises_nothing(tmp_path, capsys):
    def interrupted():
        raise KeyboardInterrupt
        yield

    assert follow(interrupted(), tmp_path / "a.run", as_json=False) == 130
    assert "longtake resume" not in capsys.readouterr().err


def test_the_same_command_gives_the_same_bytes(there, tiny_backbone_folder, made):
    assert main(asking(made, tiny_backbone_folder, there / "b.mp4", "--json")) == 0
    assert (there / "b.mp4").read_bytes() == (there / "a.mp4").read_bytes()
    assert contents(there / "b.run") == contents(there / "a.run")


def test_a_video_repeats_itself(there):
    assert main(["generate", "--from", str(there / "a.mp4"), "--output", str(there / "b.mp4"), "--json"]) == 0
    assert (there / "b.mp4").read_bytes() == (there / "a.mp4").read_bytes()


def test_a_repeated_video_changes_in_what_is_given(there):
    command = ["generate", "--from", str(there / "a.mp4"), "--output", str(there / "b.mp4"), "--json"]
    assert main([*command, "--seed", "4", "--seconds", "3"]) == 0
    first, second = (json.loads(read_comment(there / name)) for name in ("a.mp4", "b.mp4"))
    assert {name for name in first if first[name] != second[name]} == {"seed", "seconds"}
    assert len(read_video(there / "b.mp4")) == 37


def test_the_run_folder_can_be_chosen(there, tiny_backbone_folder):
    assert (
        main(asking(there, tiny_backbone_folder, there / "b.mp4", "--run-dir", str(there / "deep" / "run"), "--json"))
        == 0
    )
    assert contents(there / "deep" / "run") == contents(there / "a.run")
    assert not (there / "b.run").exists()


def test_a_run_is_not_begun_twice(there, tiny_backbone_folder, capsys):
    before = contents(there / "a.run")
    assert main(asking(there, tiny_backbone_folder, there / "a.mp4")) == 2
    err = capsys.readouterr().err
    assert f"holds a run already: go on with `longtake resume {there / 'a.run'}`" in err
    assert contents(there / "a.run") == before


def test_resume_goes_on_to_the_same_video(there, capsys):
    whole = (there / "a.mp4").read_bytes()
    (there / "a.mp4").unlink()
    (there / "a.run" / "sections" / "0002.safetensors").unlink()
    (there / "a.run" / "segments" / "0002.mp4").unlink()
    assert main(["resume", str(there / "a.run"), "--json"]) == 0
    assert (there / "a.mp4").read_bytes() == whole
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["finished"] == 2
    assert rows[-1]["video"] == str(there / "a.mp4")


@pytest.mark.parametrize(("name", "video"), [("take.v1", "take.v1.mp4"), ("take.v1.run", "take.v1.mp4")])
def test_a_resumed_video_is_named_like_its_run(there, name, video):
    (there / "a.run").rename(there / name)
    assert main(["resume", str(there / name), "--json"]) == 0
    assert (there / video).read_bytes() == (there / "a.mp4").read_bytes()


def test_a_run_can_be_resumed_from_inside(there, monkeypatch):
    whole = (there / "a.mp4").read_bytes()
    (there / "a.mp4").unlink()
    monkeypatch.chdir(there / "a.run")
    assert main(["resume", ".", "--json"]) == 0
    assert (there / "a.mp4").read_bytes() == whole


@pytest.mark.parametrize("spelled", ["--from-section", "--from_section"])
def test_a_video_is_made_again_from_a_section_on(there, spelled):
    before = contents(there / "a.run")
    command = ["resume", str(there / "a.run"), spelled, "1", "--seed", "8", "--output", str(there / "b.mp4"), "--json"]
    assert main(command) == 0
    after = contents(there / "a.run")
    assert [before[f"sections/{i:04d}.safetensors"] == after[f"sections/{i:04d}.safetensors"] for i in range(3)] == [
        True, False, False,
    ]  # fmt: skip
    assert main(["generate", "--from", str(there / "b.mp4"), "--output", str(there / "c.mp4"), "--json"]) == 0
    assert (there / "c.mp4").read_bytes() == (there / "b.mp4").read_bytes()


REFUSED = {
    "a section alone": (["--from-section", "1"], "--from-section and --seed go together"),
    "a seed alone": (["--seed", "1"], "--from-section and --seed go together"),
    "no such section": (["--from-section", "3", "--seed", "1"], "section 3 does not exist: this run has sections 0 to"),
    "output": (["--from-section", "1", "--seed", "1", "--output", "/nowhere/a.mp4"], "there is no such folder"),
    "format": (["--output", "a.mov"], "the video is written as MP4; name it a.mp4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_resumed_is_refused_and_the_run_stays(there, capsys, name):
    options, said = REFUSED[name]
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert main(["resume", str(there / "a.run"), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err[:7], len(err.splitlines())) == ("", "error: ", 1)
    assert said in err
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path, capsys):
    assert main(["resume", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: there is no run here (no config.json)\n"


def test_a_run_that_is_worked_on_cannot_be_resumed(there, capsys):
    with open(there / "a.run" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["resume", str(there / "a.run")]) == 2
    assert capsys.readouterr().err == f"error: {there / 'a.run'}: another process works on this run\n"


def test_a_full_disk_is_told_and_what_was_made_stays(there, tiny_backbone_folder, made, capsys):
    """The system lets no file of this process grow beyond the first two sections of the video."""
    room = sum((there / "a.run" / "segments" / f"{i:04d}.mp4").stat().st_size for i in (0, 1)) + 100
    command = asking(made, tiny_backbone_folder, there / "b.mp4", "--json")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert err.startswith(f"error: {there / 'b.run' / 'video.mp4'}: cannot be appended to (File too large)")
    assert not (there / "b.mp4").exists()
    assert err.endswith(f"go on with: longtake resume {there / 'b.run'}\n")
    assert len(read_video(there / "b.run" / "video.mp4")) == 73
    assert main(["resume", str(there / "b.run"), "--json"]) == 0
    assert (there / "b.mp4").read_bytes() == (there / "a.mp4").read_bytes()


def test_latents_that_are_not_finite_are_told_with_their_section(there, tiny_backbone_folder, capsys):
    model = shutil.copytree(tiny_backbone_folder, there / "model")
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["history_patch_embed.proj.k4h8w8.weight"][:] = float("nan")
    save_file(state, weights, metadata={"format": "pt"})
    assert main(asking(there, model, there / "b.mp4", "--json")) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: section 1 (frames 10 to 18) is not finite; the sections before")
    assert err.endswith(f"longtake resume {there / 'b.run'} --from-section 1 --seed SEED\n")
    assert [p.name for p in (there / "b.run" / "sections").iterdir()] == ["0000.safetensors"]
    assert not (there / "b.mp4").exists()


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interrupted_run_says_how_to_go_on(there, tiny_backbone_folder, capsys, as_json):
    from longtake.pipeline import SectionDone, generate
    from longtake.pipeline.request import read_request

    def interrupted(events):
        for event in events:
            yield event
            if isinstance(event, SectionDone):
                raise KeyboardInterrupt

    request = read_request(json.loads(read_comment(there / "a.mp4")))
    output, run = there / "c.mp4", there / "b.run"
    assert follow(interrupted(generate(request, output, run)), run, as_json) == 130
    err = capsys.readouterr().err
    assert err.endswith(f"Stopped; every finished section is kept.\n  go on with: longtake resume {run}\n")
    assert main(["resume", str(run), "--json"]) == 0
    assert (there / "c.mp4").read_bytes() == (there / "a.mp4").read_bytes()
