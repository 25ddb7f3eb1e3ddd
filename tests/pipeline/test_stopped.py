"""Runs that are killed, or whose disk is full."""

import gc
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from longtake.errors import OutputError, RunError
from longtake.media import load_image, read_video
from longtake.pipeline import Run, SectionDone, generate, make


def finished(folder):
    """The sections that a run folder holds."""
    return sorted(int(path.stem) for path in folder.glob("sections/*.safetensors"))


@pytest.fixture
def equal(undisturbed, contents):
    """Checks that a run and its video are equal to the undisturbed ones, to the byte."""

    def check(folder, output):
        assert contents(folder) == undisturbed.contents
        assert output.read_bytes() == undisturbed.video

    return check


@pytest.fixture
def unharmed(undisturbed, contents):
    """Checks that all that a run holds so far is as in the undisturbed one; the growing video is not as long yet."""

    def check(folder):
        kept = {name: content for name, content in contents(folder).items() if name != "video.mp4"}
        assert kept == {name: undisturbed.contents[name] for name in kept}

    return check


KILLS = 5


@pytest.fixture(scope="module")
def killed(asked, tmp_path_factory):
    """A folder for each order, with a whole run and runs that were killed at random file operations."""
    folder = tmp_path_factory.mktemp("killed")
    requests = [asked(order=order).model_dump_json() for order in ("vanilla", "inverted", "planned:2")]
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, script, folder, "0", str(KILLS), *requests]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=200)
    return folder


def test_a_run_killed_at_any_file_operation_goes_on_to_the_same_bytes(undisturbed, backbone, killed, equal):
    root, stopped_with = killed / undisturbed.request.order, set()
    equal(root / "whole.run", root / "whole.mp4")
    for number in range(KILLS):
        folder, output = root / f"{number}.run", root / f"{number}.mp4"
        stopped_with.add(len(finished(folder)))
        try:
            run = Run.open(folder)
        except RunError:  # it was not a run yet, and can begin anew
            list(generate(undisturbed.request, output, folder, backbone))
        else:
            list(make(run, output, backbone))
        equal(folder, output)
        assert not [*folder.rglob("*.unfinished"), *root.glob(f"{number}.mp4.unfinished")]
    assert len(stopped_with) > 1  # the moments were spread over the run


@pytest.mark.parametrize("undisturbed", ["inverted"], indirect=True)
def test_a_killed_program_resumes_to_the_same_video(undisturbed, tmp_path, equal):
    """The command as a user runs it, killed while it works on its second section."""
    request = undisturbed.request
    folder, output = tmp_path / "a.run", tmp_path / "a.mp4"
    command = [
        sys.executable, "-m", "longtake", "generate", "--image", request.image, "--prompt", request.prompt, "--json",
        "--model", request.model, "--seconds", str(request.seconds), "--order", request.order, "--output", output,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if json.loads(line)["event"] == "section":
                break
        process.kill()
    assert process.returncode == -9
    assert 1 <= len(finished(folder)) < 4
    assert not output.exists()
    list(make(Run.open(folder), output))
    equal(folder, output)


@contextmanager
def files_of_at_most(size):
    """The system lets no file of this process grow larger; writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_finished_sections_stay(undisturbed, backbone, tmp_path, equal, unharmed):
    """The room ends in the latents of the start image, in latents, in a segment, in the video, in its last copy."""
    wanted, output, folder = undisturbed.contents, tmp_path / "a.mp4", tmp_path / "run"
    largest = {kind: max(len(c) for n, c in wanted.items() if kind in n) for kind in ("start", "sections", "segments")}
    rooms = [largest["start"] - 1, largest["sections"] - 1, largest["segments"] - 1, len(wanted["video.mp4"]) - 1]
    assert rooms == sorted(rooms)
    Run.create(
        folder, undisturbed.request, Run.open(undisturbed.folder).config, load_image(undisturbed.folder / "start.png")
    )
    kept = -1
    for room in rooms:
        with files_of_at_most(room), pytest.raises(OutputError, match="File too large"):
            list(make(Run.open(folder), output, backbone))
        unharmed(folder)
        assert not list(tmp_path.rglob("*.unfinished"))
        assert not output.exists()
        assert len(finished(folder)) >= kept
        kept = len(finished(folder))
    assert kept == 4
    list(make(Run.open(folder), output, backbone))
    equal(folder, output)


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
    gc.collect()  # latents that are garbage still map their files
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Takes all the room that is left."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass


def test_on_a_full_disk_finished_sections_stay(undisturbed, backbone, small_disk, equal, unharmed):
    output, folder, done = small_disk / "a.mp4", small_disk / "run", []
    events = generate(undisturbed.request, output, folder, backbone)
    while len(done) < 2 or not (folder / "video.mp4").exists():  # endpoints alone are no video yet
        if isinstance(event := next(events), SectionDone):
            done.append(event.section.index)
    fill(small_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        list(events)
    assert finished(folder)[: len(done)] == done
    assert len(read_video(folder / "video.mp4")) > 0
    unharmed(folder)
    with pytest.raises(OutputError, match="No space left on device"):
        list(make(Run.open(folder), output, backbone))
    (small_disk / "ballast").unlink()
    list(make(Run.open(folder), output, backbone))
    equal(folder, output)


def test_a_disk_with_too_little_room_is_refused_before_work_starts(undisturbed, small_disk):
    fill(small_disk)
    before = sorted(small_disk.iterdir())
    with pytest.raises(OutputError, match=r"0 MiB are free, about 32 MiB are needed"):
        next(generate(undisturbed.request, small_disk / "a.mp4", small_disk / "run"))
    assert sorted(small_disk.iterdir()) == before
