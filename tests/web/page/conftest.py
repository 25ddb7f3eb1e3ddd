"""A real browser on a real server with the tiny model. Chromium is Debian's; without one these tests are skipped."""

import pytest
from browsing import CHROMIUM, PATIENCE, finished, serving


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

    def open_page(served, path="", ready=True, script="", **settings):
        context = chromium.new_context(**{"viewport": {"width": 1360, "height": 900}, "locale": "en-US", **settings})
        contexts.append(context)
        context.add_init_script(script)
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
