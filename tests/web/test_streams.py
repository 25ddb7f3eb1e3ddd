"""Events: none is lost, none comes twice, and many listeners cost one encoding."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from playing import Played, serving

from longtake.web import events as hub_module
from longtake.web.job import Job
from longtake.web.store import Store


def ended(seen):
    return seen[-1][1] == "job" and seen[-1][2]["status"] == "completed"


def test_events_tell_the_whole_story_of_a_video(server, worker):
    id = server.create()
    seen = []
    listener = threading.Thread(target=lambda: seen.extend(server.events(f"/v1/videos/{id}/events", until=ended)))
    listener.start()
    worker.all()
    listener.join(30)
    numbers = [number for number, _, _ in seen]
    assert numbers == sorted(set(numbers))
    assert all(data["id"] == id for _, _, data in seen)
    types = [type for _, type, _ in seen]
    assert {"job", "plan", "section"} <= set(types)
    sections = [data for _, type, data in seen if type == "section"]
    assert [(data["section"], data["ready"], data["images_done"]) for data in sections] == [(0, [0], 37), (1, [1], 73)]
    assert sections[0]["meter"][0]["place"] == 0


def test_what_happens_while_the_store_is_asked_is_read_as_by_all_others(tmp_path):
    """Nothing had happened when the stream began; then a job came and went."""
    hub = hub_module.Hub()
    job = Job(id="video_1", created_at=0, model="tiny", asked={}, seconds="6.0", size="48x32")

    class Slow(Store):
        def newest(self):
            if super().newest() == 0:
                with self.change():
                    self.add(job, None)
                    self.tell_job(job)
                self.remove(job.id)
            return super().newest()

    store = Slow(tmp_path / "studio.sqlite", hub.publish)

    async def first_two():
        async with aclosing(hub.stream(store, 0)) as stream:
            return [await anext(stream), await anext(stream)]

    try:
        with ThreadPoolExecutor(1) as pool:  # in this thread a browser's loop may be running
            _, heard = pool.submit(lambda: asyncio.run(first_two())).result()
    finally:
        store.close()
    assert heard == b"".join(hub._bytes)
    assert heard.count(b"event: ") > 1


def test_a_stream_goes_on_where_it_was_cut(server, worker):
    """Two listeners: one that hears all of it, and one that is cut after every third event."""
    id = server.create()
    whole, pieces = [], []

    def cut():
        after = 0
        while not (pieces and ended(pieces)):
            some = server.events("/v1/events", after=after, until=lambda seen: len(seen) == 3 or ended(seen))
            pieces.extend(some)
            after = some[-1][0]

    threads = [
        threading.Thread(target=lambda: whole.extend(server.events("/v1/events", after=0, until=ended))),
        threading.Thread(target=cut),
    ]
    for thread in threads:
        thread.start()
    worker.all()
    for thread in threads:
        thread.join(30)
    numbers = [number for number, _, _ in pieces]
    assert numbers == sorted(set(numbers))
    lasting = lambda seen: [one for one in seen if one[1] in ("section", "deleted")]  # noqa: E731
    assert lasting(pieces) == lasting(whole)
    states = lambda seen: list(dict.fromkeys(data["status"] for _, type, data in seen if type == "job"))  # noqa: E731
    assert states(pieces) == states(whole) == ["queued", "in_progress", "completed"]
    assert server.video(id)["status"] == "completed"


def test_the_browser_says_where_it_was_in_a_header(server):
    server.create("first")
    last = server.studio.store.newest()
    second = server.create("second")
    seen = server.events(headers={"Last-Event-ID": str(last)}, until=lambda seen: seen[-1][1] == "plan")
    assert {data["id"] for _, _, data in seen} == {second}
    assert seen[0][0] == last + 1


def test_a_new_listener_to_all_hears_what_happens_from_now_on(server):
    server.create("before")
    seen = []
    begun = threading.Event()

    def listen():
        with server.stream("GET", "/v1/events") as answer:
            for line in answer.iter_lines():
                begun.set()
                seen.append(line)
                if line == "event: deleted":
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    begun.wait(30)
    server.delete(f"/v1/videos/{server.create('after')}")
    listener.join(30)
    assert not any("before" in line for line in seen)


def test_steps_and_previews_are_replayed_only_as_long_as_they_are_news(server, worker):
    id = server.create()
    worker.ask()
    worker.begin()
    where = {"section": 0, "place": 0}
    for step in (1, 2):
        worker.say({"type": "step", **where, "step": step, "steps": 2})
        worker.say({"type": "preview", **where, "step": step, "image": f"data:image/webp;base64,{'A' * 4 * step}"})
    replayed = server.studio.store.notes(0, id)
    assert [note.type for note in replayed if note.type in ("step", "preview")] == ["step", "preview"]
    assert "AAAAAAAA" in replayed[-1].data
    worker.make(0)
    assert not [note for note in server.studio.store.notes(0, id) if note.type in ("step", "preview")]


def test_a_listener_that_is_far_behind_reads_the_store(settings, tiny_run, monkeypatch):
    monkeypatch.setattr(hub_module, "KEPT", 2)
    with serving(settings) as server:
        id = server.create()
        for number in range(30):
            server.post(f"/v1/videos/{id}/{('pause', 'resume')[number % 2]}")
        worker = Played(server, tiny_run)
        worker.all()
        kept = [(note.seq, note.type) for note in server.studio.store.notes(0)]
        seen = server.events(after=0, until=ended)
        assert [(number, type) for number, type, _ in seen] == kept


def test_what_happened_before_a_restart_is_replayed_after_it(settings):
    with serving(settings) as server:
        id = server.create()
        before = [(note.seq, note.type) for note in server.studio.store.notes(0)]
    with serving(settings) as server:
        seen = server.events(f"/v1/videos/{id}/events", until=lambda seen: len(seen) == len(before))
        assert [(number, type) for number, type, _ in seen] == before
        later = server.create("later")
        seen = server.events(after=before[-1][0], until=lambda seen: True)
        assert (seen[0][0], seen[0][2]["id"]) == (before[-1][0] + 1, later)


def test_a_position_near_the_front_is_told_when_it_changes(server):
    a, b = server.create("a"), server.create("b")
    last = server.studio.store.newest()
    server.post(f"/v1/videos/{a}/cancel")
    told = [note for note in server.studio.store.notes(last) if note.job == b]
    assert len(told) == 1
    assert '"position":0' in told[0].data


def test_a_deleted_video_leaves_one_event(server):
    id = server.create()
    server.delete(f"/v1/videos/{id}")
    assert [note.type for note in server.studio.store.notes(0, id)] == ["deleted"]


def test_200_listeners_hear_the_same_and_each_event_is_encoded_once(server, monkeypatch):
    """Raw sockets: the test's own threads would be the slow part."""
    import socket

    from longtake.web.store import Note

    counted = []
    encode = Note.encoded.fget
    monkeypatch.setattr(Note, "encoded", property(lambda note: (counted.append(note.seq), encode(note))[1]))
    host, _, port = server.address.removeprefix("http://").partition(":")
    asked = f"GET /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    sockets = [socket.create_connection((host, int(port)), timeout=60) for _ in range(200)]
    try:
        for one in sockets:
            one.sendall(asked)
        heard = [one.recv(1 << 16) for one in sockets]
        heard = [
            text if b"retry" in text else text + one.recv(1 << 16) for text, one in zip(heard, sockets, strict=True)
        ]
        id = server.create()
        server.delete(f"/v1/videos/{id}")
        ends = set()
        for one in sockets:
            text = b""
            while b"video.deleted" not in text and b"event: deleted" not in text:
                text += one.recv(1 << 16)
            ends.add(text.count(b"event: "))
        assert len(ends) == 1
        assert len(counted) == len(set(counted))
    finally:
        for one in sockets:
            one.close()
