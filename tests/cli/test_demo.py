import fcntl

import pytest

from longtake.cli import main
from longtake.cli.demo import examples
from longtake.media import load_image, read_video


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def begun(there, tiny_backbone_folder):
    """A run in the folder that the demo takes for itself, begun with the tiny model from some image."""

    def begin(image):
        options = ["--model", str(tiny_backbone_folder), "--seconds", "1", "--run-dir", "longtake-demo.run", "--json"]
        assert main(["generate", "--image", str(image), "--output", "other.mp4", *options]) == 0
        return there / "longtake-demo.run"

    return begin


def test_every_example_has_an_image_and_a_prompt():
    assert len(examples()) == 8
    for image, prompt in examples():
        assert load_image(image).ndim == 3
        assert prompt


def test_the_demo_makes_a_video_in_place_of_its_own_earlier_one(begun, there, capsys):
    image, prompt = examples()[1]
    begun(image)
    capsys.readouterr()
    assert main(["demo", "--example", "2", "--seconds", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "longtake-demo.mp4\n"
    assert said.err.startswith(f'"{prompt}"')
    video = read_video(there / "longtake-demo.mp4")
    assert len(video) > 1
    small = load_image(image).mean((0, 1))
    assert abs(video[0].mean((0, 1)) - small).max() < 8  # gray levels: the codec's loss on the first image


def test_the_demo_leaves_other_runs_alone(begun, tmp_path, capsys):
    mine = tmp_path / "mine.png"
    mine.write_bytes(examples()[0][0].read_bytes())
    run = begun(mine)
    assert main(["demo"]) == 2
    assert "longtake-demo.run holds a run already" in capsys.readouterr().err
    assert (run / "sections" / "0000.safetensors").exists()


def test_a_demo_that_another_process_makes_is_left_alone(begun, capsys):
    run = begun(examples()[0][0])
    with open(run / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["demo"]) == 2
    assert "another process works on this run" in capsys.readouterr().err
    assert (run / "sections" / "0000.safetensors").exists()


@pytest.mark.parametrize(("output", "said"), [(".", "is a folder"), ("a.avi", "name it a.mp4"), ("x/a.mp4", "no such")])
def test_a_demo_that_cannot_be_written_is_refused(there, capsys, output, said):
    assert main(["demo", "--output", output]) == 2
    assert said in capsys.readouterr().err
    assert list(there.iterdir()) == []
