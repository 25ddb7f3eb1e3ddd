"""A real browser on a real server with the tiny model. Chromium is Debian's; without one these tests are skipped."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

CHROMIUM = shutil.which("chromium")
PATIENCE = 30_000  # milliseconds: machines that run tests are busy
EXAMPLES = Path(__file__).parents[3] / "src" / "longtake" / "assets" / "examples"


class Served:
    """A server that listens, as a program of its own."""

    def __init__(self, home, *options, port=0):
        command = [sys.executable, "-m", "longtake", "serve", "--home", str(home), "--port", str(port), *options]
        self.log = home.parent / f"{home.name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stderr=subprocess.PIPE, stdout=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+:(\d+)/", line)
        assert found, line + self.process.stderr.read()
        self.url, self.port = found[0], int(found[1])

    def ask(self, path, data=None, method=None):
        """A call of the server, as JSON."""
        body = None if data is None else json.dumps(data).encode()
        request = Request(f"{self.url}{path}", body, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def file(self, path):
        """What a call gives, as bytes."""
        with urlopen(f"{self.url}{path}", timeout=60) as answer:
            return answer.read()

    def picture(self, number=1):
        """An example image as an upload."""
        content = (EXAMPLES / f"{number:02d}.png").read_bytes()
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        request = Request(
            f"{self.url}v1/uploads", head + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}
        )
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["id"]

    def video(self, **wanted):
        """A new video, which waits or is made."""
        asked = {"prompt": "a red ball", "seconds": 6, "num_inference_steps": 2, "seed": 1, **wanted}
        return self.ask("v1/videos", {"input_reference": self.picture(), **asked})

    def end(self, kill=False):
        """Ends the program; it is gone when this returns."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(30)
        self.process.stderr.close()


@contextmanager
def serving(home, *options, port=0):
    served = Served(home, *options, port=port)
    try:
        yield served
    finally:
        served.end()


@pytest.fixture(scope="session")
def chromium():
    """A browser without a screen."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here; apt-get install chromium brings it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory, tiny_backbone_folder, chromium):
    """A server with a worker that makes videos of 48 x 32 pixels; a step takes some milliseconds."""
    with serving(tmp_path_factory.mktemp("studio") / "home", "--model", str(tiny_backbone_folder)) as served:
        yield served


@pytest.fixture
def visit(chromium):
    """A function that opens the page in a browser of its own. In the end nothing may have gone wrong in any of them."""
    contexts, faults = [], []

    def open_page(served, path="", ready=True, **settings):
        context = chromium.new_context(**{"viewport": {"width": 1360, "height": 900}, "locale": "en-US", **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        page.goto(f"{served.url}{path}")
        if ready:
            page.wait_for_selector("#health[data-state=ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def page(visit, server):
    """The page, when its engine is ready."""
    return visit(server)


@pytest.fixture(scope="session")
def made(server):
    """A finished video of two sections."""
    video = server.video(prompt="a red ball and a blue box", seed=7)
    return finished(server, video["id"])


def finished(served, id):
    """The video when it is completed; the events tell when."""
    with urlopen(f"{served.url}v1/videos/{id}/events", timeout=120) as events:
        for line in events:
            if line.startswith(b"data:") and b'"status"' in line:
                video = json.loads(line[5:])
                if video["status"] in ("completed", "failed", "cancelled"):
                    assert video["status"] == "completed", video["error"]
                    return served.ask(f"v1/videos/{id}")
    raise AssertionError("the events ended before the video did")
