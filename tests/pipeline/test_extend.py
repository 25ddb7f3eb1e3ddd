"""Videos that are made longer: after their end, in two orders, and before their beginning."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from longtake.backbones.pixels import to_pixels
from longtake.errors import InputError, LongtakeError, PlanError, RunError
from longtake.media import load_image, open_film, read_comment, read_video, write_segment
from longtake.pipeline import (
    Extension,
    Finished,
    Planned,
    Run,
    SectionDone,
    draw_run,
    draw_run_svg,
    extend,
    make,
    preflight,
    reroll,
)
from longtake.pipeline.request import read_extension

WAYS = (("after", "vanilla"), ("after", "planned:2"), ("before", "inverted"))
IMAGES = 79  # 77 and two that do not fill a frame, in two files


def moving(images: int, height: int = 40, width: int = 70) -> np.ndarray:
    """A gradient that moves to the right."""
    y, x = np.mgrid[:height, :width]
    return np.stack([np.stack([(3 * (x + t)) % 256, 5 * y, 255 - x - y], -1) for t in range(images)]).astype(np.uint8)


def file_of(images: np.ndarray, path: Path, fps: float = 12.0) -> Path:
    return write_segment(images, path, first=0, fps=fps, crf=4).path


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> Path:
    return file_of(moving(IMAGES), tmp_path_factory.mktemp("video") / "given.mp4")


@pytest.fixture(scope="session")
def asked_longer(video, tiny_backbone_folder):
    """A request for three sections of two steps, with changes."""

    def ask(**changes) -> Extension:
        model = str(tiny_backbone_folder)
        return read_extension({"video": video, "prompt": "a red ball", "model": model, "seconds": 9, **changes})

    return ask


def everything_in(folder: Path) -> dict[str, bytes]:
    """The names and bytes of all that a run made, and of what it was given."""
    files = [path for path in folder.rglob("*") if path.suffix in (".mp4", ".safetensors", ".png")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*files, *folder.glob("meters/*")]}


@pytest.fixture(scope="session", params=WAYS, ids=" ".join)
def whole(request, asked_longer, backbone, tmp_path_factory):
    """A run that nothing disturbed: its request, events, files and video."""
    side, order = request.param
    folder = tmp_path_factory.mktemp("longer")
    wanted = asked_longer(side=side, order=order)
    events = list(extend(wanted, folder / "video.mp4", folder / "run", backbone))
    return SimpleNamespace(
        request=wanted,
        events=events,
        folder=folder / "run",
        contents=everything_in(folder / "run"),
        video=folder / "video.mp4",
    )


def test_the_finished_video_is_the_given_one_and_what_was_made(whole):
    """Three sections of 36 images; before a video the last of them is its own first one."""
    made = {"after": 108, "before": 107}[whole.request.side]
    planned, *_, finished = whole.events
    assert isinstance(planned, Planned)
    assert finished == Finished(whole.video, IMAGES + made)
    assert read_video(whole.video).shape == read_video(whole.folder / "video.mp4").shape == (IMAGES + made, 32, 48, 3)
    assert [e.section.index for e in whole.events if isinstance(e, SectionDone)] == [0, 1, 2]
    assert read_extension(json.loads(read_comment(whole.video))) == whole.request


def test_the_images_of_the_given_video_stay_as_they_are(whole):
    given = np.stack(list(open_film(whole.request.video).images(12.0, 32, 48)))
    shown = read_video(whole.video)
    kept = shown[:IMAGES] if whole.request.side == "after" else shown[-IMAGES:]
    weights = np.array([0.2126, 0.7152, 0.0722])  # in light; color has half the size in the file
    assert np.abs(kept @ weights - given @ weights).mean() < 2.5  # H.264 at crf 16


def test_the_given_video_is_encoded_as_a_whole(whole, backbone):
    """From its end on (after) or from its beginning on (before), as far as four images make a frame."""
    run = Run.open(whole.folder)
    encoded = {"after": slice(2, None), "before": slice(0, 77)}[whole.request.side]
    given = np.stack(list(open_film(whole.request.video).images(12.0, 32, 48)))[encoded]
    latents = backbone.codec.encode(to_pixels(torch.from_numpy(given)[None]))
    assert torch.allclose(run.read_source(range(20)), latents, atol=1e-4)  # sums in another order
    assert np.array_equal(load_image(run.folder / "start.png"), given[0])
    assert torch.equal(run.read_start(), run.read_source(range(1)))


def test_the_growing_video_ends_or_begins_with_the_given_one(asked_longer, backbone, tmp_path):
    for side, wanted in {"after": [115, 151, 187], "before": [79, 114, 186]}.items():
        said = []
        for event in extend(asked_longer(side=side), tmp_path / f"{side}.mp4", tmp_path / side, backbone):
            if isinstance(event, SectionDone):
                said.append(event.images)
                assert len(read_video(tmp_path / side / "video.mp4")) == event.images
        assert said == wanted


def test_every_section_is_measured_and_drawn(whole):
    run = Run.open(whole.folder)
    assert [meter.place for meter in run.read_meters()] == [0, 1, 2]
    assert all(np.isfinite(meter.jump) for meter in run.read_meters())
    says = {"after": "begins with 6.58 s", "before": "ends with 6.58 s"}[whole.request.side]
    assert f"the video {says} that were there already (79 images)" in draw_run(run)
    assert draw_run_svg(run).count('class="given"') == 2  # files


def test_without_the_file_a_run_goes_on_to_the_same_bytes(whole, backbone, tmp_path):
    moved = shutil.copy(whole.request.video, tmp_path / "moved.mp4")
    events = extend(whole.request.model_copy(update={"video": moved}), tmp_path / "a.mp4", tmp_path / "run", backbone)
    assert isinstance(next(events), Planned)
    moved.unlink()
    while not isinstance(next(events), SectionDone):
        pass
    events.close()
    list(make(Run.open(tmp_path / "run"), tmp_path / "a.mp4", backbone))
    assert everything_in(tmp_path / "run") == whole.contents


KILLS = 3


@pytest.fixture(scope="module")
def killed(asked_longer, tmp_path_factory):
    """A folder for each order, with runs that were killed at random file operations."""
    folder = tmp_path_factory.mktemp("killed")
    requests = [asked_longer(side=side, order=order).model_dump_json() for side, order in WAYS]
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, script, folder, "0", str(KILLS), *requests]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=200)
    return folder


def test_a_run_killed_at_any_file_operation_goes_on_to_the_same_bytes(whole, backbone, killed):
    root = killed / whole.request.order
    for number in range(KILLS):
        folder, output = root / f"{number}.run", root / f"{number}.mp4"
        try:
            run = Run.open(folder)
        except RunError:  # it was not a run yet, and can begin anew
            list(extend(whole.request, output, folder, backbone))
        else:
            list(make(run, output, backbone))
        assert everything_in(folder) == whole.contents
        assert output.read_bytes() == whole.video.read_bytes()


def test_a_reroll_keeps_earlier_sections_and_the_given_video(whole, backbone, tmp_path):
    run = reroll(Run.open(shutil.copytree(whole.folder, tmp_path / "run")), 1, seed=7)
    assert [run.has_section(index) for index in range(3)] == [True, False, False]
    list(make(run, tmp_path / "a.mp4", backbone))
    made = everything_in(tmp_path / "run")
    for name, content in whole.contents.items():
        if name.startswith(("source", "start", "last", "sections")):
            assert (made[name] == content) == (name not in ("sections/0001.safetensors", "sections/0002.safetensors"))
    assert len(read_video(tmp_path / "a.mp4")) == whole.events[-1].images


def test_all_of_the_given_video_counts(asked_longer, backbone, tmp_path):
    """Its first images are far from what is made after it, its last ones from what was before it."""
    made = {}
    for name, changed in {"as it is": slice(0), "first": slice(0, 8), "last": slice(-8, None)}.items():
        images = moving(IMAGES)
        images[changed] = 255 - images[changed]
        path = file_of(images, tmp_path / f"{name}.mp4")
        for side in ("after", "before"):
            run = tmp_path / f"{name}-{side}"
            wanted = asked_longer(video=path, side=side, seconds=3)
            *_, done, _ = extend(wanted, tmp_path / f"{name}-{side}.mp4", run, backbone)
            made[name, side] = done.latents
    for side in ("after", "before"):
        assert not torch.equal(made["as it is", side], made["first", side])
        assert not torch.equal(made["as it is", side], made["last", side])


def test_preflight_says_what_a_longer_video_comes_to(asked_longer, tmp_path):
    for side, images in (("after", 187), ("before", 186)):
        checked = preflight(asked_longer(side=side), tmp_path / "a.mp4", tmp_path / "a.run")
        assert (checked.sections, checked.images) == (3, images)
        assert checked.seconds == pytest.approx(images / 12)
        assert checked.config.order == {"after": "vanilla", "before": "inverted"}[side]
    assert list(tmp_path.iterdir()) == []


def sound_in(path: Path) -> Path:
    """A file with sound and without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("side", ["after", "before"])
def test_a_video_that_cannot_be_made_longer_is_refused_before_anything_is_written(
    asked_longer, backbone, video, tmp_path, side
):
    given = tmp_path / "given"
    given.mkdir()
    (given / "text.mp4").write_text("no video")
    whole = video.read_bytes()
    (given / "cut.mp4").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    file_of(moving(36), given / "short.mp4")
    sound_in(given / "sound.mp4")
    for name, said in {
        "nowhere.mp4": "there is no such video",
        "text.mp4": "not a video that can be read",
        "cut.mp4": "not a video that can be read",
        "sound.mp4": "there is no video in this file; one with pictures would do",
        "short.mp4": "has 36 images at 12 a second; 37 would do, which are 3.08 s",
    }.items():
        with pytest.raises(InputError, match=said):
            next(extend(asked_longer(video=given / name, side=side), tmp_path / "a.mp4", tmp_path / "run", backbone))
    assert list(tmp_path.iterdir()) == [given]


def test_what_does_not_see_the_video_is_refused(asked_longer, backbone, tmp_path):
    for changes, said in (
        ({"order": "inverted"}, "sees nothing next to g on its left, so it does not see how the video ends"),
        ({"side": "before", "schedule": "td_f16k4f2k2f1k1_g9"}, "order inverted cannot serve|sees nothing that lies"),
    ):
        with pytest.raises(PlanError, match=said):
            next(extend(asked_longer(**changes), tmp_path / "a.mp4", tmp_path / "run", backbone))
    for prompt in ("a red ball [loop]", "a red ball [3s image=a.png]"):
        with pytest.raises(InputError, match="a video is extended by words"):
            asked_longer(prompt=prompt)
    assert list(tmp_path.iterdir()) == []


def test_words_over_time_begin_with_what_is_made(asked_longer, backbone, tmp_path):
    wanted = asked_longer(prompt="a red ball [3s: a blue box] [6s seed=4: a red box]", side="before", order="inverted")
    config = preflight(wanted, tmp_path / "a.mp4", tmp_path / "a.run").config
    in_time = sorted(config.plan().sections, key=lambda section: section.frames)
    assert [config.prompt_of(section) for section in in_time] == ["a red ball", "a blue box", "a red box"]
    assert [config.seed_of(section) for section in in_time] == [0, 0, 4]


def test_a_video_that_breaks_off_leaves_nothing(asked_longer, backbone, video, tmp_path):
    path = tmp_path / "given.mp4"
    shutil.copy(video, path)
    checked = preflight(asked_longer(video=path), tmp_path / "a.mp4", tmp_path / "run")
    file_of(moving(40), path)
    with pytest.raises(LongtakeError, match="has become shorter since it was looked at"):
        list(extend(asked_longer(video=path), tmp_path / "a.mp4", tmp_path / "run", backbone, checked=checked))
    assert [found.name for found in tmp_path.iterdir()] == ["given.mp4"]
