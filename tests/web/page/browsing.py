"""What the tests of the page share: a server as a program, and a few things that a visitor does."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

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
        self._listener = Thread(target=self._listen)
        self._listener.start()

    def _listen(self):
        """Keeps what the program says, so that it can go on saying it."""
        with open(self.log, "a") as log, self.process.stderr as lines:
            for said in lines:
                log.write(said)

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
        head = (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        request = Request(
            f"{self.url}v1/uploads",
            head + content + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
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
        self._listener.join()


@contextmanager
def serving(home, *options, port=0):
    served = Served(home, *options, port=port)
    try:
        yield served
    finally:
        served.end()


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


def until(page, true, given=None):
    """Waits for an expression of the page. Playwright's own way evaluates a text, which the page's policy forbids."""
    page.evaluate(
        f"""(given) => new Promise((done) => {{
          const look = () => (({true}) ? done() : setTimeout(look, 20));
          look();
        }})""",
        given,
    )


def drop(page, name, kind, content, at="body"):
    """Lets go of a file over an element."""
    page.evaluate(
        """([at, name, kind, content]) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name, { type: kind }));
          const event = { dataTransfer, bubbles: true, cancelable: true };
          for (const type of ["dragenter", "dragover", "drop"])
            document.querySelector(at).dispatchEvent(new DragEvent(type, event));
        }""",
        [at, name, kind, base64.b64encode(content).decode()],
    )
