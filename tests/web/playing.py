"""A studio on a loopback port, and a worker that is played by the test with the files of a real run."""

import hashlib
import io
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import uvicorn
from PIL import Image

from longtake.web.app import create_app


def png(width=96, height=64, color=(200, 30, 30)):
    packed = io.BytesIO()
    Image.new("RGB", (width, height), color).save(packed, "PNG")
    return packed.getvalue()


class Served:
    """A server, its application and a client."""

    def __init__(self, address, app, client):
        self.address, self.app, self.client = address, app, client

    @property
    def studio(self):
        return self.app.state.studio

    def __getattr__(self, name):  # get, post, patch, put, delete, stream
        return getattr(self.client, name)

    def upload(self, content=None, name="start.png"):
        answer = self.post("/v1/uploads", files={"file": (name, content or png())})
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def create(self, prompt="a red ball", **fields):
        body = {"prompt": prompt, "input_reference": self.upload(), "seconds": 6, **fields}
        answer = self.post("/v1/videos", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def video(self, id):
        return self.get(f"/v1/videos/{id}").json()

    def error(self, answer):
        body = answer.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "param"}
        return body["error"]

    def events(self, path="/v1/events", after=None, until=lambda seen: False, headers=None):
        """Events as (number, type, data), until there are enough."""
        seen, fields = [], {}
        query = {} if after is None else {"after": after}
        with self.stream("GET", path, params=query, headers=headers or {}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    seen.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                    fields = {}
                    if until(seen):
                        break
        return seen


@contextmanager
def serving(settings):
    """A server of that studio, for as long as this lasts."""
    app = create_app(settings, leaving=lambda: server.should_exit)
    config = uvicorn.Config(app, port=0, log_level="error", access_log=False, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {settings.token}"} if settings.token else {}
    try:
        with httpx.Client(base_url=address, timeout=60, headers=headers) as client:
            yield Served(address, app, client)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Played:
    """A worker that sends the files of a finished run."""

    def __init__(self, server, run, name="played"):
        self.server, self.run, self.name = server, run, name
        self.lease = None

    def ask(self):
        answer = self.server.post("/v1/worker/lease", json={"worker": self.name})
        if answer.status_code == 204:
            return None
        assert answer.status_code == 200, answer.text
        self.lease = answer.json()["lease"]
        return answer.json()

    def put(self, name, content=None):
        content = (self.run.folder / name).read_bytes() if content is None else content
        digest = hashlib.sha256(content).hexdigest()
        return self.server.put(
            f"/v1/worker/leases/{self.lease}/files/{name}", content=content, headers={"X-Sha256": digest}
        )

    def say(self, *events):
        return self.server.post(f"/v1/worker/leases/{self.lease}/events", json=list(events))

    def end(self, status, **more):
        return self.server.post(f"/v1/worker/leases/{self.lease}/end", json={"status": status, **more})

    def begin(self):
        from longtake.web.planning import plan_of

        for name in ("request.json", "start.png", "config.json", "start.safetensors"):
            assert self.put(name).status_code == 204
        answer = self.say({"type": "planned", "plan": plan_of(self.run.config), "finished": 0})
        assert answer.status_code == 200, answer.text

    def make(self, index):
        """In time order, index and place are the same."""
        steps = self.run.config.steps
        for step in range(1, steps + 1):
            where = {"section": index, "place": index, "step": step}
            assert self.say({"type": "step", **where, "steps": steps}).status_code == 200
            assert self.say({"type": "preview", **where, "image": "data:image/webp;base64,AAAA"}).status_code == 200
        for name in (f"sections/{index:04d}.safetensors", f"segments/{index:04d}.mp4", f"meters/{index:04d}.json"):
            assert self.put(name).status_code == 204
        meter = json.loads((self.run.folder / f"meters/{index:04d}.json").read_text())
        said = {"type": "section", "section": index, "place": index, "seconds": 1.5, "meter": [meter], "ready": [index]}
        answer = self.say(said)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finish(self):
        assert self.put("output.mp4", (self.run.folder.parent / "video.mp4").read_bytes()).status_code == 204
        answer = self.end("completed", peak_memory_mb=123)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def all(self):
        given = self.ask()
        self.begin()
        for index in range(self.run.sections):
            self.make(index)
        return given, self.finish()


def leaks(text, *folders: Path):
    """The folders of this machine that a text names."""
    return [str(folder) for folder in folders if str(folder) in text]
