"""Each example runs as it stands and writes its picture."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_writes_a_picture(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    (picture,) = (tmp_path / "out").glob(f"{example.stem}.*")
    assert picture.suffix in {".svg", ".png", ".gif"}
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(example):
    lines = example.read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""')
