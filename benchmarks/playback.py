"""How soon a section that is made is seen: from its event to its first picture on the screen, in chromium.

The server, the worker and the page are those of `longtake serve`; the video grows in time order, and the player waits
at the end of what is there, so the next picture is one of the section that has just come. Times are the page's own:
from the event's message to requestVideoFrameCallback. Needs the extra dev, and chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which
from statistics import median

from playwright.sync_api import sync_playwright

TARGET = 300  # milliseconds, the median
PATIENCE = 600_000
WATCH = """async () => {
  const { live } = await import(new URL("live.js", document.baseURI));
  const film = document.querySelector("#film");
  const came = new Map();
  window.delays = [];
  live.addEventListener("section", ({ detail }) => {
    for (const place of detail.ready) came.set(place, performance.now());
  });
  let waits = [];
  live.addEventListener("placed", ({ detail }) => waits.push(detail));
  const look = (now, { mediaTime, expectedDisplayTime }) => {
    waits = waits.filter(({ place, begin, end }) => {
      const seen = mediaTime >= begin - 0.001 && mediaTime < end;
      if (seen && came.has(place)) window.delays.push(expectedDisplayTime - came.get(place));
      return !seen;
    });
    film.requestVideoFrameCallback(look);
  };
  film.requestVideoFrameCallback(look);
}"""


def main() -> None:
    """Prints the times and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=int, default=10)
    parser.add_argument(
        "--steps", type=int, default=24, help="of a section: as many as it takes to be slower than play"
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--output", type=Path, default=Path("out/playback.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "longtake", "serve", "--home", home, "--port", "0", "--model", options.model]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            found = re.search(r"http://\S+/", server.stderr.readline())
            delays = measured(found[0], options.sections, options.steps)
        finally:
            server.terminate()
            server.wait()
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "model": options.model,
        "steps": options.steps,
        "milliseconds": [round(delay) for delay in delays],
        "median": round(median(delays)),
        "target": TARGET,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"from the event of a section to its pixels, ms: {' '.join(str(delay) for delay in report['milliseconds'])}")
    print(f"median {report['median']} ms of {len(delays)} sections; the target is {TARGET} ms")


def measured(url: str, sections: int, steps: int) -> list[float]:
    """Milliseconds of each section of a video that is made in time order."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_selector("#health[data-state=ready]")
        page.evaluate(WATCH)
        page.locator(".example").first.click()
        page.wait_for_selector("#image:not([hidden])")
        page.locator("[name=seconds]").fill(str(3 * sections))
        page.locator("details.more summary").click()
        page.locator("#steps").fill(str(steps))
        page.locator("#make").click()
        page.wait_for_selector("#shown-status:text('done')")
        page.wait_for_timeout(1500)  # the last one has to be reached
        delays = page.evaluate("window.delays")
        browser.close()
    return delays


if __name__ == "__main__":
    main()
