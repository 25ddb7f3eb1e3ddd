"""Runs whose later sections are told something else while the earlier ones stay."""

import json
import shutil

import pytest
import torch

from longtake.errors import RunError
from longtake.media import read_comment
from longtake.pipeline import Run, SectionDone, generate, make
from longtake.pipeline.request import read_request


@pytest.fixture
def half(asked, backbone, tmp_path):
    """A run of four sections, planned, of which two are made."""

    def begin(**changes):
        events = generate(asked(order="planned:2", **changes), tmp_path / "a.mp4", tmp_path / "run", backbone)
        for event in events:
            if isinstance(event, SectionDone) and event.section.index == 1:
                break
        events.close()
        return Run.open(tmp_path / "run")

    return begin


def latents(run):
    return [run.read_section(section) for section in run.config.plan().sections]


def test_a_section_that_is_not_made_can_be_told_something_else(half, backbone, tmp_path):
    run = half()
    untold = Run.open(shutil.copytree(run.folder, tmp_path / "untold"))
    run.retell({3: "a blue box"})
    list(make(untold, tmp_path / "untold.mp4", backbone))
    run = Run.open(run.folder)
    assert [run.config.prompt_of(section) for section in run.config.plan().sections] == ["a red ball"] * 3 + [
        "a blue box"
    ]
    list(make(run, tmp_path / "a.mp4", backbone))
    one, other = latents(untold), latents(run)
    assert [torch.equal(a, b) for a, b in zip(one, other, strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(
    "changes", [{}, {"storyboard": "0s: a blue box\n6s seed=5: a red ball", "prompt": ""}, {"seeds": {2: 7}}]
)
def test_a_retold_video_is_that_of_its_comment(half, backbone, tmp_path, changes, asked):
    """What the file says was asked gives the same sections from the beginning."""
    if "storyboard" in changes:
        from longtake.plan import read_storyboard

        changes = {**changes, "storyboard": read_storyboard(changes["storyboard"])}
    run = half(**changes).retell({2: "the camera turns left", 3: "a blue ball"}, {3: 11})
    list(make(run, tmp_path / "a.mp4", backbone))
    again = read_request(json.loads(read_comment(tmp_path / "a.mp4")))
    list(generate(again, tmp_path / "b.mp4", tmp_path / "again", backbone))
    assert Run.open(tmp_path / "again").config.told == run.config.told
    assert all(map(torch.equal, latents(Run.open(tmp_path / "again")), latents(run)))


def test_a_section_that_is_made_keeps_its_prompt(half):
    run = half()
    with pytest.raises(RunError, match="section 1 is made already"):
        run.retell({1: "a blue box"})
    with pytest.raises(RunError, match="section 1 is made already"):
        run.retell({}, {1: 5})
    with pytest.raises(RunError, match="section 4 does not exist: this run has sections 0 to 3"):
        run.retell({4: "a blue box"})
    assert Run.open(run.folder).config == run.config
    assert run.retell({1: "a red ball"}).config.prompts == ("a red ball",)  # nothing new
