"""Takes the studio's pictures: a server, the embedded model, a browser. Needs chromium and the extra dev."""

import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from urllib.request import Request, urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "src" / "longtake" / "assets" / "examples"
PATIENCE = 300_000  # milliseconds
BOARD = {
    "cues": [
        {"at": 6, "prompt": "a big purple egg and a red cone on a purple floor, the camera orbits right"},
        {"at": 12, "seed": 4},
    ],
    "loop": True,
}


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server with an empty home."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "longtake", "serve", "--home", home, "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            found = re.search(r"http://\S+/", process.stderr.readline())
            yield found[0]
        finally:
            process.terminate()
            process.wait()


def ask(url: str, path: str, data: object = None, kind: str = "application/json") -> dict:
    """A call of the server."""
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    with urlopen(Request(f"{url}{path}", body, {"Content-Type": kind}), timeout=300) as answer:
        return json.load(answer)


def video(url: str, example: int, **wanted: object) -> str:
    """Asks for a video from an example image."""
    start = EXAMPLES / f"{example:02d}.png"
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    image = ask(url, "v1/uploads", head + start.read_bytes() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    asked = {"prompt": start.with_suffix(".txt").read_text().strip(), "seed": 1, "seconds": 6, **wanted}
    return ask(url, "v1/videos", {"input_reference": image["id"], **asked})["id"]


def visit(browser: Browser, url: str, width: int, height: int, scheme: str = "light") -> Page:
    """The page in a window of its own."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-US")
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_selector("#health[data-state=ready]")
    return page


def keep(page: Page, name: str, full: bool = False) -> None:
    """The picture of a page as WebP."""
    path = FOLDER / f"studio-{name}.webp"
    Image.open(io.BytesIO(page.screenshot(full_page=full))).save(path, quality=82, method=6)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def in_work(page: Page, done: int) -> None:
    """Waits until so many sections are there and another one is half made."""
    page.wait_for_selector(f".cell.done:has(.bars:not([hidden])) >> nth={done - 1}")
    page.wait_for_selector(".cell.working .cell-state:text-matches('[4-7]/8')")
    page.wait_for_selector("#inset:not([hidden])")


def main() -> None:
    """Takes them all."""
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        page = visit(browser, url, 1440, 1180)
        forward = video(url, 1, seconds=15, storyboard=BOARD)
        page.locator(".example").first.click()
        page.locator("[name=seconds]").fill("18")
        page.locator('[name=order][value="planned"]').check(force=True)
        page.get_by_role("button", name="Add words").click()
        page.locator("#cue-editor textarea").fill("the camera orbits left")
        page.get_by_role("button", name="Add words").click()
        page.locator("#cue-editor textarea").fill("the red cone spins")
        for _ in range(2):
            page.locator(".cue-prompt").nth(1).press("ArrowRight")
        page.get_by_role("button", name="Add a seed").click()
        page.goto(f"{url}#{forward}")
        in_work(page, 2)
        video(url, 2)
        video(url, 4, order="inverted")
        video(url, 6)
        page.locator("#queued .job").nth(2).wait_for()
        in_work(page, 3)
        keep(page, "forward", full=True)
        page.wait_for_selector("#shown-status:text('done')")
        backwards = video(url, 8, seconds=15, order="inverted")
        page.wait_for_selector("#recent .job >> nth=3")
        dark = visit(browser, f"{url}#{backwards}", 1440, 900, "dark")
        in_work(dark, 3)
        keep(dark, "from-the-end")
        dark.wait_for_selector("#shown-status:text('done')")
        again = video(url, 8, seconds=15, seed=2)
        dark.goto(f"{url}#{again}")
        dark.wait_for_selector("#recent .job >> nth=5")
        dark.get_by_role("button", name="Library").click()
        keep(dark, "library")
        for id in (backwards, again):
            dark.locator(f'.card[data-key="{id}"] [type=checkbox]').check()
        dark.get_by_role("button", name="Compare two").click()
        dark.locator("dialog.compare input").wait_for()
        dark.wait_for_timeout(2500)
        keep(dark, "compare")
        phone = visit(browser, f"{url}#{again}", 360, 1280)
        phone.locator(".cell.done").nth(4).wait_for()
        phone.locator(".cell").nth(2).click()
        phone.locator("#stage").scroll_into_view_if_needed()
        phone.evaluate("document.querySelector('#stage').scrollIntoView()")
        phone.wait_for_timeout(1500)
        keep(phone, "phone")
        browser.close()


if __name__ == "__main__":
    main()
