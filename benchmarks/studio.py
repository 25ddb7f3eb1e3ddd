"""A studio's processes, for tests and benchmarks that kill, crowd or feed it.

Server and workers are forked from one process that has loaded everything (the nursery), so that one who was killed is
there again at once. The nursery itself makes nothing, and has no threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

__all__ = ["Outcome", "Studio", "free_port", "listeners", "survive"]

LEASE = 1.0  # seconds, of studios whose workers are killed
PATIENCE = 120.0  # seconds for anything that is waited for
VICTIMS = ("server", "worker", "both")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Studio:
    """A server with one worker, each a process that can be killed and begun again."""

    def __init__(self, folder: Path, models: dict[str, str], lease_seconds: float = LEASE, threads: int = 1) -> None:
        self.folder, self.home, self.port = folder, folder / "home", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        self.models, self.lease_seconds = models, lease_seconds
        self.pids: dict[str, int] = {}
        self._births, self.resumed, self.worker = 0, 0, ""
        self.log = folder / "studio.log"
        folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self._nursery = subprocess.Popen(
                [sys.executable, __file__, "nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)}, text=True,
            )  # fmt: skip

    def begin(self, who: str) -> None:
        """Starts the server or the worker."""
        self._births += 1
        order = {
            "server": {"home": str(self.home), "port": self.port, "models": self.models, "lease": self.lease_seconds},
            "worker": {"server": self.url, "name": f"worker-{self._births}", "scratch": str(self.folder / "scratch")},
        }[who]
        stdin, stdout = self._nursery.stdin, self._nursery.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps({"who": who, **order}) + "\n")
        stdin.flush()
        self.pids[who] = int(stdout.readline())
        self.worker = order.get("name", self.worker)
        if who == "server":
            self.until(lambda: self.client.get("/health").json()["engine"] == "ready")

    def kill(self, who: str, number: int = signal.SIGKILL) -> None:
        """Ends the server or the worker; it is gone when this returns."""
        pid = self.pids.pop(who)
        os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while _alive(pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the {who} does not end")
            time.sleep(0.005)

    def close(self) -> None:
        """Ends everything."""
        for who in list(self.pids):
            if _alive(self.pids[who]):
                self.kill(who)
        if self._nursery.stdin:
            self._nursery.stdin.close()
        self._nursery.wait(PATIENCE)
        if self._nursery.stdout:
            self._nursery.stdout.close()
        self.client.close()

    def until(self, true: Callable[[], object], patience: float = PATIENCE) -> Any:
        """What a question is answered with, once that is not false; a server that is away is asked again."""
        deadline = time.monotonic() + patience
        while True:
            try:
                answer = true()
                if answer:
                    return answer
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain; the log: {self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def upload(self, path: Path) -> str:
        """The id of a picture."""
        answer = self.client.post("/v1/uploads", files={"file": (path.name, path.read_bytes(), "image/png")})
        return answer.raise_for_status().json()["id"]

    def submit(self, **asked: Any) -> str:
        """The id of a new job."""
        answer = self.client.post("/v1/videos", json=asked)
        if answer.is_error:
            raise RuntimeError(answer.text)
        return answer.json()["id"]

    def video(self, job: str) -> dict[str, Any]:
        """A job as it is."""
        return self.client.get(f"/v1/videos/{job}").raise_for_status().json()

    def done(self, job: str, patience: float = PATIENCE) -> dict[str, Any]:
        """A job once it is completed. One whose workers were lost is resumed, as its owner would."""

        def ended() -> dict[str, Any] | None:
            video = self.video(job)
            if video["status"] == "failed":
                if video["error"]["code"] == "worker_lost":
                    self.client.post(f"/v1/videos/{job}/resume").raise_for_status()
                    self.resumed += 1
                    return None
                raise RuntimeError(f"{video['error']}; the log: {self.log.read_text()[-4000:]}")
            return video if video["status"] == "completed" else None

        return self.until(ended, patience)

    def works(self) -> bool:
        """True if the worker that there is has a job."""
        listed = self.client.get("/v1/videos", params={"status": "in_progress", "limit": 100}).json()["data"]
        return any(video["longtake"]["worker"] == self.worker for video in listed)

    def content(self, job: str) -> bytes:
        """The finished file."""
        return self.client.get(f"/v1/videos/{job}/content").raise_for_status().content


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Outcome:
    """What a studio that was killed again and again has to show."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    kills_in_work: int = 0  # while the worker that was killed, or whose server was, had a job
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    resumed: int = 0  # jobs that the server gave up, since each of three workers was killed in their first section
    sections_made_twice: int = 0
    sections_seen_at_a_kill: int = 0
    unequal: int = 0
    leftovers: int = 0
    seconds: float = 0.0


def survive(studio: Studio, asked: dict[str, Any], kills: int, seed: int, span: float) -> Outcome:
    """Kills server, worker or both at random moments, up to `span` seconds apart; then lets all jobs end.

    Three jobs at least are to be made at any time. A section that the server has at a kill stays the same file.
    """
    rng, outcome, began = random.Random(seed), Outcome(), time.monotonic()
    reference = studio.submit(**asked)
    studio.done(reference)
    wanted = studio.content(reference)
    jobs, seen = [reference], dict[Path, tuple[int, int]]()

    def unfinished() -> list[str]:
        return [job for job in jobs if studio.video(job)["status"] in ("queued", "in_progress")]

    for _ in range(kills):
        while len(studio.until(lambda: [unfinished()])[0]) < 3:
            jobs.append(studio.until(lambda: studio.submit(**asked)))
        time.sleep(rng.uniform(0.02, span))
        outcome.kills_in_work += studio.works()
        victim = rng.choice(VICTIMS)
        outcome.kills[victim] += 1
        who = [victim] if victim != "both" else rng.sample(["server", "worker"], 2)
        for each in who:
            studio.kill(each)
        for path in studio.home.glob("jobs/*/sections/*.safetensors"):
            state = path.stat()
            seen.setdefault(path, (state.st_ino, state.st_mtime_ns))
        for each in who:
            studio.begin(each)
    for job in jobs:
        try:
            outcome.unequal += (studio.done(job), studio.content(job))[1] != wanted
        except RuntimeError as error:
            print(error, file=sys.stderr)
            outcome.failed += 1
    listed = [video["id"] for video in studio.client.get("/v1/videos", params={"limit": 100}).json()["data"]]
    outcome.jobs, outcome.lost = len(jobs), len(set(jobs) - set(listed))
    outcome.doubled = len(listed) - len(set(jobs) & set(listed))
    outcome.sections_seen_at_a_kill = len(seen)
    outcome.sections_made_twice = sum(
        not path.exists() or (path.stat().st_ino, path.stat().st_mtime_ns) != state for path, state in seen.items()
    )
    outcome.resumed = studio.resumed
    outcome.leftovers = len([*studio.home.rglob("*.unfinished"), *studio.home.rglob("incoming-*")])
    outcome.seconds = time.monotonic() - began
    return outcome


@contextmanager
def listeners(port: int, count: int) -> Iterator[Callable[[], list[list[int]]]]:
    """So many who listen to all events, in a process of their own; what is called gives the numbers that each heard."""
    command = [sys.executable, __file__, "listen", str(port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "listening\n"

        def heard() -> list[list[int]]:
            assert process.stdin
            assert process.stdout
            process.stdin.close()
            return json.loads(process.stdout.read())

        yield heard
        if process.poll() is None:
            process.kill()


async def _listen(port: int, count: int) -> None:
    heard: list[list[int]] = [[] for _ in range(count)]
    ready = asyncio.Semaphore(0)

    async def one(ids: list[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        writer.write(f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        ready.release()
        while line := await reader.readline():
            if line.startswith(b"id: "):
                ids.append(int(line[4:]))

    tasks = [asyncio.create_task(one(ids)) for ids in heard]
    for _ in tasks:
        await ready.acquire()
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(heard), flush=True)


def _nurse() -> None:
    """Forks a process for each line of stdin, and says its number."""
    import logging
    import threading

    import uvicorn

    import longtake.pipeline  # noqa: F401  everything that a child would load
    from longtake.backbones.running import Runtime
    from longtake.web.app import create_app
    from longtake.web.settings import Settings
    from longtake.web.worker import Worker, WorkerSettings, until_told

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children vanish when they end
    assert threading.active_count() == 1
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        try:
            if order["who"] == "server":
                settings = Settings(
                    home=Path(order["home"]), port=order["port"], models=order["models"], lease_seconds=order["lease"]
                )
                uvicorn.run(create_app(settings), host="127.0.0.1", port=order["port"], log_level="warning")
            else:
                logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
                logging.getLogger("httpx").setLevel(logging.WARNING)
                worker = Worker(
                    WorkerSettings(
                        order["server"], order["name"], scratch=Path(order["scratch"]), runtime=Runtime("cpu")
                    )
                )
                with until_told(worker):
                    worker.run()
        except BaseException:
            logging.exception("%s ended", order["who"])
        finally:
            os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """The other end of what is above: nursery, or listen PORT COUNT."""
    if arguments[0] == "nursery":
        _nurse()
    else:
        asyncio.run(_listen(int(arguments[1]), int(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
