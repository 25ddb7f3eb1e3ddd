import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from longtake.errors import ConfigError, InputError, OutputError
from longtake.toybox import read_truths, write_clips
from longtake.toybox.__main__ import main

SMALL = {"images": 5, "height": 16, "width": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("longtake.toybox.render").load_mujoco()
    folder = tmp_path_factory.mktemp("clips")
    reports = []
    write_clips(folder, range(3), workers=2, report=reports.append, **SMALL)
    assert [r.clips for r in reports] == [1, 2, 3]
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_file_of_images_has_a_file_of_truths(folder):
    paths = sorted(folder.glob("*.npy"))
    for path, seed in zip(paths, range(3), strict=True):
        images = np.load(path, mmap_mode="r")
        (truth,) = read_truths(path.with_suffix(".jsonl"))
        assert images.shape == (1, 5, 16, 32, 3)
        assert (truth.seed, truth.images, truth.difficulty) == (seed, 5, "kind")
    assert len(contents(folder)) == 6


def test_the_number_of_workers_does_not_show(folder, tmp_path):
    write_clips(tmp_path, range(3), workers=1, **SMALL)
    assert contents(tmp_path) == contents(folder)


def test_a_stopped_run_goes_on_where_it_was(folder, tmp_path):
    before = contents(folder)
    last = sorted(folder.glob("*.npy"))[-1]
    last.with_suffix(".jsonl").unlink()
    reports = []
    write_clips(folder, range(3), report=reports.append, **SMALL)
    assert [(r.clips, r.images) for r in reports] == [(3, 5)]
    assert contents(folder) == before


def test_other_clips_in_the_folder_are_not_overwritten(folder):
    with pytest.raises(OutputError, match="other clips"):
        write_clips(folder, range(3), images=9, height=16, width=32)


def test_a_folder_that_cannot_be_made_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_clips(tmp_path / "file" / "clips", range(1), **SMALL)


def test_missing_truths_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_truths(tmp_path / "none.jsonl")


def test_the_command_writes_clips_a_sheet_and_captions(folder, tmp_path, capsys):
    arguments = ["--output", str(folder), "--clips", "3", "--images", "5", "--height", "16", "--width", "32"]
    assert main([*arguments, "--sheet", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 34, 3 * 18)
    assert main([*arguments, "--difficulty", "hard"]) == 2
    assert "no difficulty 'hard'" in capsys.readouterr().err


def test_importing_the_toybox_loads_neither_mujoco_nor_torch():
    code = (
        "import sys, longtake.toybox.__main__; print({'mujoco', 'torch', 'pydantic', 'tyro', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_rendering_without_mujoco_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ConfigError, match=r"pip install 'longtake\[toybox\]'"):
        write_clips(tmp_path, range(1))
