"""Leases, states, and what survives: of workers that are lost, and of a server that is killed."""

import hashlib
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import Played, serving

from longtake.web import actions, queue
from longtake.web.job import ENDS, MOVES, Job, moved
from longtake.web.refusal import Refusal
from longtake.web.studio import Studio

ACTIONS = ("lease", "complete", "fail", "pause", "cancel", "return", "resume", "remake")


def new_job():
    return Job(id="video_1", created_at=0, model="tiny", asked={}, seconds="6.0", size="48x32")


@given(st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_a_job_goes_only_where_the_table_lets_it(actions):
    job = new_job()
    for action in actions:
        if (job.status, action) in MOVES:
            status = MOVES[job.status, action]
            job = moved(job, action)
            assert job.status == status
        else:
            with pytest.raises(Refusal, match=job.status):
                moved(job, action)


def test_only_a_lease_leads_to_work_and_only_its_end_leads_out():
    into = {action for (_, action), status in MOVES.items() if status == "in_progress"}
    out = {action for (status, action) in MOVES if status == "in_progress"}
    assert into == {"lease"}
    assert out == set(ENDS.values())


@given(
    st.lists(st.sampled_from(("create", "lease", "pause", "resume", "lose", "end", "cancel", "delete")), max_size=25)
)
def test_every_waiting_job_has_its_own_place_in_the_queue(tmp_path_factory, done):
    """Whatever is done in whatever order: places are 0, 1, 2, ..., and a job is in work exactly if it has a lease."""
    studio = Studio(settings_at(tmp_path_factory.mktemp("home")))
    made = list[str]()
    try:
        for number, what in enumerate(done):
            ids = studio.store.ids()
            try:
                if what == "create":
                    job = new_job().but(id=f"video_{number}", rank=studio.store.rank("last"))
                    studio.store.add(job, None)
                    made.append(job.id)
                elif what == "lease":
                    queue.lease(studio, "w")
                elif what == "lose":
                    for lease in studio.beats:
                        studio.beats[lease] = 0.0
                    queue.expire(studio)
                elif what == "end":
                    for lease in studio.store.leases():
                        queue.end(studio, lease, "returned", None, None)
                elif ids and what == "delete":
                    actions.delete(studio, ids[0])
                elif ids and what == "resume":
                    actions.resume(studio, ids[-1])
                elif ids and what in ("pause", "cancel"):
                    actions.wish(studio, ids[-1], what)
            except Refusal:
                pass
            jobs = [studio.store.job(id) for id in studio.store.ids()]
            places = [studio.store.position(job) for job in jobs if job.status == "queued"]
            assert sorted(places) == list(range(len(places)))
            assert all((job.status == "in_progress") == (job.lease is not None) for job in jobs)
    finally:
        studio.close()


def settings_at(home, **changes):
    from longtake.web.settings import Settings

    return replace(Settings(home=home), **changes)


def lose(server, worker):
    """Lets a lease run out."""
    server.studio.beats[worker.lease] = 0.0
    queue.expire(server.studio)


def test_a_lost_lease_puts_the_job_in_front_of_the_queue(server, worker, tiny_run):
    first, second = server.create("first"), server.create("second")
    worker.ask()
    worker.begin()
    worker.make(0)
    lose(server, worker)
    lost = server.video(first)
    assert (lost["status"], lost["longtake"]["position"], lost["longtake"]["worker"]) == ("queued", 0, None)
    assert server.video(second)["longtake"]["position"] == 1
    other = Played(server, tiny_run, "other")
    given = other.ask()
    assert given["video"]["id"] == first
    assert "sections/0000.safetensors" in [file["name"] for file in given["files"]]
    assert [section["state"] for section in given["video"]["longtake"]["sections"]] == ["done", "empty"]


def test_whoever_lost_a_lease_changes_nothing_any_more(server, worker, tiny_run):
    id = server.create()
    worker.ask()
    worker.begin()
    lose(server, worker)
    other = Played(server, tiny_run, "other")
    other.ask()
    files = {path: path.read_bytes() for path in server.studio.folders.of(id).rglob("*") if path.is_file()}
    name = "sections/0000.safetensors"
    for answer in (
        worker.say(), worker.put(name), worker.end("completed"), worker.put("config.json", b"{}"),
        server.get(f"/v1/worker/leases/{worker.lease}/files/config.json"),
    ):  # fmt: skip
        assert (answer.status_code, server.error(answer)["code"]) == (409, "lease_lost")
    assert files == {path: path.read_bytes() for path in server.studio.folders.of(id).rglob("*") if path.is_file()}
    assert server.video(id)["longtake"]["worker"] == "other"


def test_a_file_that_is_on_its_way_when_the_lease_is_lost_is_not_kept(server, worker):
    id = server.create()
    worker.ask()
    path = server.studio.folders.of(id) / "sections/0000.safetensors"

    def slowly():
        yield b"half of it, "
        lose(server, worker)
        yield b"and the rest"

    answer = server.put(f"/v1/worker/leases/{worker.lease}/files/sections/0000.safetensors", content=slowly())
    assert server.error(answer)["code"] == "lease_lost"
    assert not path.exists()
    assert not list(path.parent.glob("*"))


def test_a_beat_holds_a_lease(server, worker):
    server.create()
    worker.ask()
    server.studio.beats[worker.lease] = time.monotonic() + 0.5
    worker.say()
    assert server.studio.beats[worker.lease] > time.monotonic() + 10


def test_a_wish_is_kept_when_the_worker_is_lost(server, worker):
    for wish, status in (("cancel", "cancelled"), ("pause", "paused"), ("stop", "paused")):
        id = server.create()
        worker.ask()
        server.post(f"/v1/videos/{id}/{wish}")
        lose(server, worker)
        assert server.video(id)["status"] == status


@pytest.mark.parametrize(("first", "said"), [("cancel", "cancelled"), ("pause", "paused"), ("stop", "completed")])
def test_a_video_goes_on_when_it_is_resumed_before_its_worker_has_stopped(server, worker, first, said):
    id = server.create()
    worker.ask()
    worker.begin()
    worker.make(0)
    server.post(f"/v1/videos/{id}/{first}")
    assert worker.say().json()["order"] == first
    assert server.post(f"/v1/videos/{id}/resume").json()["longtake"]["stopping"] is None
    worker.put("output.mp4", b"of one section")
    worker.end(said)
    video = server.video(id)
    assert (video["status"], video["completed_at"], video["longtake"]["position"]) == ("queued", None, 0)
    assert worker.ask()["video"]["id"] == id


def test_nobody_is_given_a_video_while_its_sections_are_removed(server, worker, monkeypatch):
    """Whoever resumes it in between gets it as it is afterwards."""
    id, _ = server.create(), worker.all()
    forget, resuming = actions._forget, threading.Thread(target=lambda: actions.resume(server.studio, id))

    def slowly(studio, job, section):
        resuming.start()
        resuming.join(0.3)  # which it uses up, as it has to wait
        assert worker.ask() is None
        forget(studio, job, section)

    monkeypatch.setattr(actions, "_forget", slowly)
    answer = server.post(f"/v1/videos/{id}/reroll", json={"section": 1, "seed": 7})
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    resuming.join()
    assert "sections/0001.safetensors" not in [note["name"] for note in worker.ask()["files"]]


@pytest.mark.parametrize("said", ["paused", "returned"])
def test_a_wish_holds_that_the_worker_has_not_heard_of(server, worker, said):
    for wish, status in (("cancel", "cancelled"), ("pause", "paused"), ("stop", "paused")):
        id = server.create()
        worker.ask()
        server.post(f"/v1/videos/{id}/{wish}")
        worker.end(said)
        assert server.video(id)["status"] == status


def test_a_video_that_loses_worker_after_worker_fails(server, worker):
    id = server.create()
    for _ in range(queue.LOSSES):
        assert worker.ask()
        lose(server, worker)
    failed = server.video(id)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "worker_lost")
    assert worker.ask() is None


def test_a_section_between_losses_starts_the_count_again(server, worker):
    id = server.create()
    for number in range(2):
        worker.ask()
        worker.begin()
        worker.make(number)
        lose(server, worker)
    worker.ask()
    lose(server, worker)
    assert server.video(id)["status"] == "queued"


def test_work_that_is_given_back_is_the_next_one_again(server, worker):
    first = server.create("first")
    server.create("second")
    worker.ask()
    worker.end("returned")
    assert server.video(first)["longtake"]["position"] == 0


def test_a_worker_that_waits_is_given_work_as_soon_as_there_is_some(server, tiny_run):
    given = []
    ask = lambda: given.append(server.post("/v1/worker/lease", json={"worker": "w", "wait": 20}))  # noqa: E731
    waiting = threading.Thread(target=ask)
    waiting.start()
    id = server.create()
    waiting.join(30)
    assert given[0].json()["video"]["id"] == id


def test_a_section_without_its_files_does_not_count(server, worker):
    id = server.create()
    worker.ask()
    worker.begin()
    said = {"type": "section", "section": 0, "place": 0, "seconds": 1.0, "ready": [0]}
    assert server.error(worker.say(said))["code"] == "conflict"
    worker.put("sections/0000.safetensors")
    assert "segments/0000.mp4" in server.error(worker.say(said))["message"]
    assert server.video(id)["longtake"]["sections"][0]["state"] == "empty"


def test_a_video_without_its_file_is_not_completed(server, worker):
    server.create()
    worker.ask()
    assert server.error(worker.end("completed"))["param"] == "status"


def test_a_file_that_is_not_what_its_digest_says_is_not_kept(server, worker):
    id = server.create()
    worker.ask()
    path = f"/v1/worker/leases/{worker.lease}/files/meters/0000.json"
    wrong = server.put(path, content=b"{}", headers={"X-Sha256": hashlib.sha256(b"[]").hexdigest()})
    assert server.error(wrong)["param"] == "X-Sha256"
    assert server.get(path).status_code == 404
    assert worker.put("meters/0000.json", b"{}").status_code == 204
    assert worker.put("meters/0000.json", b"{}").status_code == 204
    assert server.get(path).content == b"{}"
    assert not list(server.studio.folders.of(id).rglob("*.unfinished"))


@pytest.mark.parametrize(
    "name", ["../../studio.sqlite", "sections/../../x.mp4", "inputs/x.png", "a.txt", "sections/1.pt"]
)
def test_a_worker_writes_only_files_of_a_run(server, worker, name):
    server.create()
    worker.ask()
    answer = server.put(f"/v1/worker/leases/{worker.lease}/files/{name.replace('/', '%2F')}", content=b"x")
    assert answer.status_code in (404, 405)


def test_a_file_that_is_too_large_is_refused_while_it_comes(settings, tiny_run):
    limits = replace(settings.limits, file_bytes=1000)
    with serving(replace(settings, limits=limits)) as server:
        server.create()
        worker = Played(server, tiny_run)
        worker.ask()
        content = (b"x" * 500 for _ in range(3))
        answer = server.put(f"/v1/worker/leases/{worker.lease}/files/output.mp4", content=content)
        assert server.error(answer)["code"] == "too_large"


def test_a_server_that_is_killed_goes_on_where_it_was(settings, tiny_run):
    """Nothing is written down at the end: each change is on disk when it is answered."""
    with serving(settings) as server:
        worker = Played(server, tiny_run)
        first, second = server.create("first"), server.create("second")
        worker.ask()
        worker.begin()
        worker.make(0)
        server.studio.store.close = lambda: None  # as if it were killed
        newest = server.studio.store.newest()
    folder = settings.home / "jobs" / first
    (folder / "sections" / "0001.safetensors.ab.unfinished").write_bytes(b"half")
    (settings.home / "jobs" / f"video_{'0' * 24}").mkdir()
    with serving(settings) as server:
        worker.server = server
        went_on = server.video(first)
        assert (went_on["status"], went_on["longtake"]["worker"], went_on["progress"]) == ("in_progress", "played", 50)
        assert server.video(second)["longtake"]["position"] == 0
        assert server.studio.store.newest() == newest
        worker.make(1)
        assert worker.finish()["status"] == "completed"
        assert not list(settings.home.rglob("*.unfinished"))
        assert sorted(path.name for path in (settings.home / "jobs").iterdir()) == sorted((first, second))


def test_files_that_came_before_a_kill_count_after_it(settings, tiny_run):
    """The files of a section are here, but its event is not: it is done all the same."""
    with serving(settings) as server:
        worker = Played(server, tiny_run)
        id = server.create()
        worker.ask()
        worker.begin()
        worker.put("sections/0000.safetensors")
        worker.put("segments/0000.mp4")
    with serving(settings) as server:
        found = server.video(id)
        assert [section["state"] for section in found["longtake"]["sections"]] == ["done", "empty"]
        assert found["longtake"]["images_done"] == 37


def test_a_change_that_fails_leaves_nothing(settings):
    studio = Studio(settings)
    job = new_job()

    def add_and_fail():
        with studio.store.change():
            studio.store.add(job, None)
            studio.store.tell_job(job)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    assert studio.store.ids() == []
    assert studio.store.notes(0) == []
    studio.close()
