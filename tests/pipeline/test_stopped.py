"""Runs that are killed, or whose disk is full."""

import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from longtake.errors import OutputError, RunError
from longtake.media import read_video
from longtake.pipeline import Run, SectionDone, generate, make


def contents(folder):
    paths = [*folder.glob("sections/*"), *folder.glob("segments/*"), folder / "video.mp4", folder / "start.safetensors"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def finished(folder):
    """The sections that a run folder holds."""
    return sorted(int(path.stem) for path in folder.glob("sections/*.safetensors"))


def equal_to(undisturbed, folder, output):
    assert contents(folder) == undisturbed.contents
    assert output.read_bytes() == undisturbed.video


@pytest.fixture
def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_run_killed_at_any_file_operation_goes_on_to_the_same_bytes(undisturbed, backbone, environment, tmp_path):
    script, kills = Path(__file__).with_name("killed.py"), 5
    subprocess.run(
        [sys.executable, script, undisturbed.request.model_dump_json(), tmp_path, "0", str(kills)],
        env=environment, check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    equal_to(undisturbed, tmp_path / "whole.run", tmp_path / "whole.mp4")
    stopped_with = set()
    for number in range(kills):
        folder, output = tmp_path / f"{number}.run", tmp_path / f"{number}.mp4"
        stopped_with.add(len(finished(folder)))
        try:
            run = Run.open(folder)
        except RunError:  # it was not a run yet, and can begin anew
            list(generate(undisturbed.request, output, folder, backbone))
        else:
            list(make(run, output, backbone))
        equal_to(undisturbed, folder, output)
        assert not [*folder.rglob("*.unfinished"), *tmp_path.glob(f"{number}.mp4.unfinished")]
    assert len(stopped_with) > 1  # the moments were spread over the run


@pytest.mark.parametrize("undisturbed", ["inverted"], indirect=True)
def test_a_killed_program_resumes_to_the_same_video(undisturbed, environment, tmp_path):
    """The command as a user runs it, killed while it works on its second section."""
    request = undisturbed.request
    folder, output = tmp_path / "a.run", tmp_path / "a.mp4"
    command = [
        sys.executable, "-m", "longtake", "generate", "--image", request.image, "--prompt", request.prompt, "--json",
        "--model", request.model, "--seconds", str(request.seconds), "--order", request.order, "--output", output,
    ]  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if json.loads(line)["event"] == "section":
                break
        process.kill()
    assert process.returncode == -9
    assert 1 <= len(finished(folder)) < 4
    assert not output.exists()
    list(make(Run.open(folder), output))
    equal_to(undisturbed, folder, output)


@contextmanager
def files_of_at_most(size):
    """The system lets no file of this process grow larger; writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_finished_sections_stay_and_the_run_goes_on_later(undisturbed, backbone, tmp_path):
    """The room ends in the latents of the start image, in latents, in a segment, in the video, in its last copy."""
    wanted, output, folder = undisturbed.contents, tmp_path / "a.mp4", tmp_path / "run"
    largest = {kind: max(len(c) for n, c in wanted.items() if kind in n) for kind in ("start", "sections", "segments")}
    rooms = [largest["start"] - 1, largest["sections"] - 1, largest["segments"] - 1, len(wanted["video.mp4"]) - 1]
    assert rooms == sorted(rooms)
    Run.create(folder, undisturbed.request, Run.open(undisturbed.folder).config, read_start(undisturbed.folder))
    kept = -1
    for room in rooms:
        with files_of_at_most(room), pytest.raises(OutputError, match="File too large"):
            list(make(Run.open(folder), output, backbone))
        assert all(content == wanted[name] for name, content in contents_so_far(folder).items())
        assert not list(tmp_path.rglob("*.unfinished"))
        assert not output.exists()
        assert len(finished(folder)) >= kept
        kept = len(finished(folder))
    assert kept == 4
    list(make(Run.open(folder), output, backbone))
    equal_to(undisturbed, folder, output)


def read_start(folder):
    from longtake.media import load_image

    return load_image(folder / "start.png")


def contents_so_far(folder):
    paths = [*folder.glob("sections/*"), *folder.glob("segments/*"), *folder.glob("start.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "longtake-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("mounting is for root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Takes all the room that is left."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass


def test_on_a_full_disk_finished_sections_stay_and_the_run_goes_on_later(undisturbed, backbone, small_disk):
    output, folder, done = small_disk / "a.mp4", small_disk / "run", []
    events = generate(undisturbed.request, output, folder, backbone)
    with pytest.raises(OutputError, match="No space left on device"):
        for event in events:
            if isinstance(event, SectionDone):
                done.append(event.section.index)
                if len(done) == 2:
                    fill(small_disk)
    assert finished(folder)[:2] == done == [0, 1]
    assert len(read_video(folder / "video.mp4")) > 0
    assert all(content == undisturbed.contents[name] for name, content in contents_so_far(folder).items())
    with pytest.raises(OutputError, match="No space left on device"):
        list(make(Run.open(folder), output, backbone))
    (small_disk / "ballast").unlink()
    list(make(Run.open(folder), output, backbone))
    equal_to(undisturbed, folder, output)


def test_a_disk_with_too_little_room_is_refused_before_work_starts(undisturbed, small_disk):
    fill(small_disk)
    before = sorted(small_disk.iterdir())
    with pytest.raises(OutputError, match=r"0 MiB are free, about 32 MiB are needed"):
        next(generate(undisturbed.request, small_disk / "a.mp4", small_disk / "run"))
    assert sorted(small_disk.iterdir()) == before
