"""A worker in this process, and a server that it reaches over loopback."""

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from helios import save_helios
from longtake.backbones import load_backbone
from longtake.errors import InputError, ModelError, NumericsError, OutputError
from longtake.media import read_comment, read_video
from longtake.pipeline import Request, Run, Runtime, Shelf, generate
from longtake.web import sending, worker
from longtake.web.app import create_app
from longtake.web.settings import Settings
from longtake.web.worker import Worker, WorkerSettings
from longtake.web.working import failure_of

SECTIONS = 6
ASKED = {"model": "tiny", "prompt": "a red ball", "seconds": 3.0 * SECTIONS}
ENDED = ("completed", "failed", "paused", "cancelled")


class Bench:
    """A served studio, and a worker that makes a job when it is told to."""

    def __init__(self, app, port, folder):
        self.studio, self.url, self.folder = app.state.studio, f"http://127.0.0.1:{port}", folder
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.shelf = Shelf()

    def call(self, method, path, **said):
        answer = self.client.request(method, path, **said)
        assert answer.is_success, answer.text
        return answer.json()

    def upload(self, name="start.png"):
        path = self.folder / name
        y, x = np.mgrid[:40, :70]
        Image.fromarray(np.stack([3 * x, 5 * y, 255 - x - y], -1).astype(np.uint8)).save(path)
        return self.call("POST", "/v1/uploads", files={"file": (name, path.read_bytes())})["id"]

    def submit(self, **changes):
        body = {**ASKED, "input_reference": self.upload(), **changes}
        return self.call("POST", "/v1/videos", json=body)["id"]

    def video(self, job):
        return self.call("GET", f"/v1/videos/{job}")

    def worker(self):
        worker = Worker(
            WorkerSettings(self.url, "bench", scratch=self.folder / "scratch", runtime=Runtime("cpu"), once=True)
        )
        worker.shelf = self.shelf
        return worker

    def make(self, job, when=None, act=lambda worker: None):
        """Lets a worker make a job, and does something when a note comes that `when` says yes to; the job then."""
        worker, waiting = self.worker(), threading.Event()

        def listen():
            with httpx.stream("GET", f"{self.url}/v1/videos/{job}/events", timeout=60) as stream:
                kind = ""
                for line in stream.iter_lines():
                    waiting.set()
                    kind = line[7:] if line.startswith("event: ") else kind
                    if line.startswith("data: "):
                        note = json.loads(line[6:])
                        if when and when(kind, note):
                            return act(worker)
                        if kind == "job" and note["status"] in ENDED:
                            return None
            return None

        listener = threading.Thread(target=listen)
        listener.start()
        assert waiting.wait(30)
        worker.run()
        if when is None:
            listener.join(30)
        return self.video(job) if self.studio.store.ids() and job in self.studio.store.ids() else None

    def run(self, job):
        return Run.open(self.studio.folders.of(job))

    def output(self, job):
        return self.studio.folders.of(job) / "output.mp4"


@contextmanager
def bench_of(models, folder):
    app = create_app(Settings(folder / "home", models=models))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    bench = Bench(app, port, folder)
    bench.studio.engine.wait()
    yield bench
    bench.client.close()
    server.should_exit = True
    bench.studio.hub.close()
    thread.join()


@pytest.fixture(scope="module")
def bench(tiny_backbone_folder, tmp_path_factory):
    with bench_of({"tiny": str(tiny_backbone_folder)}, tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@pytest.fixture(scope="module")
def undisturbed(bench):
    """The bytes of the video of a job that nothing disturbed, as one job made it."""
    job = bench.submit()
    assert bench.make(job)["status"] == "completed"
    return job


def latents(run):
    return [run.read_section(section) for section in run.config.plan().sections if run.has_section(section.index)]


def equal(some, others):
    return len(some) == len(others) and all(map(torch.equal, some, others))


def on(kind, section=None):
    return lambda found, note: found == kind and (section is None or note["section"] == section)


def test_a_worker_makes_what_the_engine_makes(bench, undisturbed, tiny_backbone_folder, tmp_path):
    request = Request(
        image=bench.folder / "start.png", prompt="a red ball", seconds=18, model=str(tiny_backbone_folder)
    )
    list(generate(request, tmp_path / "a.mp4", tmp_path / "run", load_backbone(tiny_backbone_folder)))
    assert equal(latents(Run.open(tmp_path / "run")), latents(bench.run(undisturbed)))
    assert np.array_equal(read_video(tmp_path / "a.mp4"), read_video(bench.output(undisturbed)))


def test_a_completed_job_is_told_completely(bench, undisturbed):
    video = bench.video(undisturbed)
    told = video["longtake"]
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
    assert [section["state"] for section in told["sections"]] == ["done"] * SECTIONS
    assert all(section["meter"]["sharpness"] > 0 and section["seconds"] > 0 for section in told["sections"])
    assert told["images_done"] == 36 * SECTIONS + 1
    assert told["peak_memory_mb"] > 0
    assert not list((bench.folder / "scratch").iterdir())


def test_a_video_tells_no_folder_of_its_worker(bench, undisturbed, tiny_backbone_folder):
    comment = json.loads(read_comment(bench.output(undisturbed)))
    assert comment["model"] == "tiny"
    assert comment["image"].startswith("upload_")
    assert bench.run(undisturbed).read_manifest().model == "tiny"
    noted = [(bench.run(undisturbed).folder / name).read_text() for name in ("request.json", "manifest.json")]
    for kept in (read_comment(bench.output(undisturbed)), *noted):
        assert str(bench.folder) not in kept
        assert str(tiny_backbone_folder) not in kept


def test_a_paused_job_goes_on_to_the_same_bytes(bench, undisturbed):
    job = bench.submit(input_reference=bench.video(undisturbed)["longtake"]["request"]["image"])
    paused = bench.make(job, on("section", 1), lambda worker: bench.call("POST", f"/v1/videos/{job}/pause"))
    assert paused["status"] == "paused"
    kept = {path: path.stat().st_mtime_ns for path in bench.run(job).folder.glob("sections/*")}
    assert 2 <= len(kept) < SECTIONS
    bench.call("POST", f"/v1/videos/{job}/resume")
    assert bench.make(job)["status"] == "completed"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert bench.output(job).read_bytes() == bench.output(undisturbed).read_bytes()


@pytest.mark.parametrize("order", ["vanilla", "inverted"])
def test_a_stopped_job_is_a_shorter_video_that_begins_at_0(bench, order):
    job = bench.submit(order=order)
    stopped = bench.make(job, on("section", 1), lambda worker: bench.call("POST", f"/v1/videos/{job}/stop"))
    assert stopped["status"] == "completed"
    assert stopped["progress"] < 100
    shown = read_video(bench.output(job))
    assert 0 < len(shown) == stopped["longtake"]["images_done"] < 36 * SECTIONS
    bench.call("POST", f"/v1/videos/{job}/resume")
    assert bench.make(job)["progress"] == 100
    assert len(read_video(bench.output(job))) == 36 * SECTIONS + 1


def test_a_cancelled_job_is_dropped(bench):
    job = bench.submit(seconds=90)
    assert (
        bench.make(job, on("step"), lambda worker: bench.call("POST", f"/v1/videos/{job}/cancel"))["status"]
        == "cancelled"
    )


def test_a_worker_that_is_told_to_leave_gives_the_job_back(bench, undisturbed):
    job = bench.submit(input_reference=bench.video(undisturbed)["longtake"]["request"]["image"])
    left = bench.make(job, on("section", 0), lambda worker: worker.leaving.set())
    assert (left["status"], left["longtake"]["position"]) == ("queued", 0)
    assert bench.make(job)["status"] == "completed"
    assert bench.output(job).read_bytes() == bench.output(undisturbed).read_bytes()


def test_sections_that_are_not_made_hear_what_was_changed_meanwhile(bench, undisturbed):
    job = bench.submit()
    told = {"prompts": {str(SECTIONS - 1): "a blue box"}}
    made = bench.make(job, on("section", 0), lambda worker: bench.call("PATCH", f"/v1/videos/{job}", json=told))
    assert made["status"] == "completed"
    run, before = bench.run(job), latents(bench.run(undisturbed))
    assert run.config.prompt_of(run.config.plan().sections[-1]) == "a blue box"
    assert equal(latents(run)[:-1], before[:-1])
    assert not torch.equal(latents(run)[-1], before[-1])
    assert made["longtake"]["plan"]["sections"][-1]["prompt"] == "a blue box"


def test_what_is_made_again_has_another_seed_and_keeps_what_was_before(bench):
    job = bench.submit()
    bench.make(job)
    before = latents(bench.run(job))
    bench.call("POST", f"/v1/videos/{job}/reroll", json={"section": 4, "seed": 77})
    assert bench.make(job)["status"] == "completed"
    after = latents(bench.run(job))
    assert equal(before[:4], after[:4])
    assert not any(map(torch.equal, before[4:], after[4:]))


def test_a_video_is_made_longer(bench, undisturbed):
    body = {"model": "tiny", "video": {"id": undisturbed}, "prompt": "a blue box", "seconds": 3}
    job = bench.call("POST", "/v1/videos/extensions", json=body)["id"]
    assert bench.make(job)["status"] == "completed"
    assert len(read_video(bench.output(job))) == 36 * (SECTIONS + 1) + 1


@pytest.fixture(scope="module")
def anchored(tmp_path_factory):
    """A studio whose model sees the start image apart from frame 0, in all sections."""
    with bench_of({"helios": str(save_helios(tmp_path_factory.mktemp("models") / "base", "base"))},
                  tmp_path_factory.mktemp("anchored")) as bench:  # fmt: skip
        yield bench


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # of diffusers' schedulers
def test_what_sections_see_of_the_start_image_is_there_when_another_worker_goes_on(anchored):
    job = anchored.submit(model="helios", seconds=2.75, longtake={"steps": 2})
    assert anchored.make(job)["status"] == "completed"
    encoded = {path.name: path.read_bytes() for path in anchored.run(job).folder.glob("*.safetensors")}
    assert set(encoded) == {"start.safetensors", "anchor.safetensors"}
    anchored.call("POST", f"/v1/videos/{job}/reroll", json={"section": 1, "seed": 77})
    again = anchored.make(job)
    assert (again["status"], again["error"]) == ("completed", None)
    assert {name: (anchored.run(job).folder / name).read_bytes() for name in encoded} == encoded


def test_a_deleted_job_is_dropped_and_the_worker_lives(bench):
    job = bench.submit(seconds=90)
    assert bench.make(job, on("step"), lambda worker: bench.call("DELETE", f"/v1/videos/{job}")) is None
    assert not list((bench.folder / "scratch").iterdir())
    assert bench.make(bench.submit(seconds=3))["status"] == "completed"


def test_a_job_that_cannot_be_made_fails_with_a_sentence_that_names_no_folder(bench, tiny_backbone_folder):
    job = bench.submit()
    weights = tiny_backbone_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    hidden = weights.with_suffix(".hidden")
    weights.rename(hidden)
    bench.shelf.clear()
    try:
        failed = bench.make(job)
    finally:
        hidden.rename(weights)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "model"
    assert "/" not in failed["error"]["message"].replace("transformer/", "")
    bench.call("POST", f"/v1/videos/{job}/resume")
    assert bench.make(job)["status"] == "completed"


def test_a_job_that_a_worker_refuses_leaves_no_run_behind(bench):
    """Such as one whose worker has not what it is to run with: it can be asked otherwise afterwards."""
    job = bench.submit()
    settings = WorkerSettings(bench.url, "w", scratch=bench.folder / "scratch", runtime=Runtime("cpu", profile="?"))
    Worker(replace(settings, once=True)).run()
    assert bench.video(job)["status"] == "failed"
    assert [path.parent.name for path in bench.studio.folders.of(job).rglob("*") if path.is_file()] == ["inputs"]
    assert not list((bench.folder / "scratch").iterdir())
    bench.call("POST", f"/v1/videos/{job}/resume")
    bench.call("PATCH", f"/v1/videos/{job}", json={"request": {"prompt": "a blue box"}})
    assert bench.make(job)["status"] == "completed"


def test_what_a_killed_worker_sent_of_a_run_that_never_began_does_not_count(bench, undisturbed):
    job = bench.submit(input_reference=bench.video(undisturbed)["longtake"]["request"]["image"])
    lease = bench.call("POST", "/v1/worker/lease", json={"worker": "killed"})["lease"]
    at = f"/v1/worker/leases/{lease}"
    for name in ("request.json", "manifest.json", "start.png"):
        assert bench.client.put(f"{at}/files/{name}", content=b"of another request").is_success
    bench.call("POST", f"{at}/end", json={"status": "returned"})
    assert bench.make(job)["status"] == "completed"
    made, wanted = bench.run(job).folder, bench.run(undisturbed).folder
    assert (made / "start.png").read_bytes() == (wanted / "start.png").read_bytes()
    assert bench.run(job).read_manifest() == bench.run(undisturbed).read_manifest()


def test_what_was_made_before_a_failure_arrives(bench, undisturbed, monkeypatch):
    names = [f"keys/{number:04d}.png" for number in range(sending.AHEAD)]

    def work(post, folder, *others):
        (folder / "a").write_bytes(b"a")
        for name in names:
            post.put(name, folder / "a")
        raise NumericsError("section 1 is not finite")

    monkeypatch.setattr(worker, "work", work)
    job = bench.submit()
    failed = bench.make(job)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "numerics")
    assert all(bench.studio.folders.has(job, name) for name in names)


def test_previews_and_steps_are_told_while_a_section_is_made(bench):
    job, heard = bench.submit(longtake={"steps": 12}), []
    bench.make(job, lambda kind, note: heard.append((kind, note)) or False)
    previews = [note for kind, note in heard if kind == "preview"]
    assert previews
    assert all(note["image"].startswith("data:image/webp;base64,") for note in previews)
    assert {note["section"] for kind, note in heard if kind == "section"} == set(range(SECTIONS))
    steps = [(note["section"], note["step"]) for kind, note in heard if kind == "step"]
    assert steps == sorted(steps)


def test_large_files_go_in_pieces(bench, undisturbed, monkeypatch):
    """As they do beyond 16 MiB."""
    monkeypatch.setattr(sending, "SMALL", 100)
    monkeypatch.setattr(sending, "CHUNK", 1000)
    job = bench.submit(input_reference=bench.video(undisturbed)["longtake"]["request"]["image"])
    bench.make(job, on("section", 1), lambda worker: bench.call("POST", f"/v1/videos/{job}/pause"))
    bench.call("POST", f"/v1/videos/{job}/resume")
    assert bench.make(job)["status"] == "completed"
    assert bench.output(job).read_bytes() == bench.output(undisturbed).read_bytes()


def test_an_error_says_nothing_of_this_machine():
    assert failure_of(ModelError("/a/b/model: no such folder; /c/d.json would do")).message == (
        "model: no such folder; d.json would do"
    )
    full = OutputError("/x/run: full\n  what is finished is kept; go on with: longtake resume /x/run")
    assert failure_of(full).message == "run: full"
    assert (
        replace(failure_of(KeyError("/secret/place"))).message == "the worker failed with KeyError; its log says where"
    )


def test_a_worker_for_one_job_says_that_the_server_cannot_be_reached(tmp_path):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        settings = WorkerSettings(server, "w", scratch=tmp_path, runtime=Runtime("cpu"), once=True)
        with pytest.raises(InputError, match=f"--server {server} cannot be reached"):
            Worker(settings).run()
