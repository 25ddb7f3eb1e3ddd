"""What happens when the server goes away, or asks for a token."""

import pytest
from browsing import serving
from playwright.sync_api import expect


def test_a_token_is_asked_for(visit, tmp_path):
    with serving(tmp_path / "home", "--workers", "0", "--token", "an-open-secret") as served:
        page = visit(served, ready=False)
        page.get_by_role("textbox", name="Token").fill("a guess")
        page.get_by_role("button", name="Open").click()
        expect(page.locator("dialog .fault")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("an-open-secret")
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("#health[data-state=ready]")
        expect(page.locator("#plan svg")).to_be_visible()
        page.reload()
        page.wait_for_selector("#health[data-state=ready]")
        expect(page.locator("dialog")).to_have_count(0)


@pytest.mark.slow
def test_the_page_outlives_its_server(visit, tmp_path):
    home = tmp_path / "home"
    with serving(home, "--workers", "0") as served:
        page = visit(served)
        video = served.video(seconds=3)
        expect(page.locator("#queued .job")).to_have_count(1)
        served.end(kill=True)
        page.wait_for_selector("#health[data-state=away]")
        with serving(home, "--workers", "0", port=served.port) as again:
            page.wait_for_selector("#health:not([data-state=away])")
            again.ask(f"v1/videos/{video['id']}", method="DELETE")
            expect(page.locator("#queued .job")).to_have_count(0)
