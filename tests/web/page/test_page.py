"""What a visitor does, in a real browser."""

from math import isnan

import pytest
from browsing import EXAMPLES, PATIENCE, drop, finished, until
from playwright.sync_api import expect

SLOW = 1000  # steps of a section that takes a few seconds

# Keeps what the film has whenever a section was put into it.
WATCH = """async () => {
  const { live } = await import(new URL("live.js", document.baseURI));
  const film = document.querySelector("#film");
  window.looks = [];
  live.addEventListener("placed", () => {
    const now = [...Array(film.buffered.length).keys()].map((i) => [film.buffered.start(i), film.buffered.end(i)]);
    window.looks.push({ now, length: film.duration, source: film.src });
  });
}"""


def begin(page, seconds=6, steps=2, order=""):
    """Fills the form and makes the video."""
    page.locator(".example").first.click()
    expect(page.locator("#image")).to_be_visible()
    page.get_by_role("textbox", name="Prompt").fill("a red ball")
    page.locator("[name=seconds]").fill(str(seconds))
    page.locator(f'[name=order][value="{order}"]').check(force=True)
    set_steps(page, steps)
    page.locator("#make").click()


def set_steps(page, steps):
    if not page.locator("#steps").is_visible():
        page.locator("details.more summary").click()
    page.locator("#steps").fill(str(steps))


def status(page, words):
    expect(page.locator("#shown-status")).to_have_text(words, timeout=PATIENCE)


def shown(page):
    return page.evaluate("location.hash.slice(1)")


def test_two_clicks_make_a_video(page):
    page.locator(".example").nth(1).click()
    page.locator("#make").click()
    status(page, "done")
    expect(page.locator(".cell.done")).to_have_count(4)
    until(page, "document.querySelector('#film').currentTime > 0.2")


@pytest.mark.parametrize("order", ["", "inverted"], ids=["forward", "from-the-end"])
def test_sections_play_as_they_arrive(page, order):
    page.evaluate(WATCH)
    begin(page, order=order, steps=SLOW, seconds=9)
    status(page, "done")
    until(page, "window.looks.length === 3")
    looks = page.evaluate("window.looks")
    first, after, end = (images / 12 for images in (37, 73, 109))  # of a section each, the first with the start image
    wanted = {"": [[0, first], [0, after], [0, end]], "inverted": [[after, end], [first, end], [0, end]]}[order]
    assert [look["now"] for look in looks] == [[pytest.approx(span, abs=0.01)] for span in wanted]
    assert {look["source"] for look in looks} == {looks[0]["source"]}  # never begun again
    lengths = [
        look["length"] for look in looks if not isnan(look["length"])
    ]  # it is none until the first has a picture
    assert lengths == pytest.approx([end] * len(lengths), abs=0.01)
    assert lengths
    if not order:
        page.locator(".cell").nth(1).click()
        page.get_by_role("button", name="Make again from here").click()
        page.get_by_role("dialog").get_by_role("button", name="Make again from here").click()
        until(page, "window.looks.length === 5")
        again = page.evaluate("window.looks")[3:]
        assert [look["now"] for look in again] == [[pytest.approx(span, abs=0.01)] for span in wanted[1:]]
        assert {look["source"] for look in again} == {looks[0]["source"]}


def test_a_browser_without_media_source_plays_what_is_there(visit, server):
    page = visit(server, script="delete globalThis.MediaSource; delete globalThis.ManagedMediaSource")
    begin(page, steps=SLOW)
    page.locator(".cell.done").first.wait_for()
    until(page, "document.querySelector('#film').currentTime > 0.1")
    assert "partial=1" in page.evaluate("document.querySelector('#film').src")
    status(page, "done")
    until(page, "document.querySelector('#film').duration > 6")
    assert "partial=0" in page.evaluate("document.querySelector('#film').src")


def test_a_reload_changes_nothing(page, server):
    begin(page, steps=SLOW)
    status(page, "being made")
    id = shown(page)
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    status(page, "being made")
    assert shown(page) == id
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("a red ball")
    expect(page.locator("#image")).to_be_visible()
    status(page, "done")


def test_work_is_cancelled_and_resumed(page):
    begin(page, steps=SLOW)
    expect(page.locator(".cell.working")).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    status(page, "cancelled")
    set_steps(page, 2)
    page.get_by_role("button", name="Resume").click()
    status(page, "done")


def test_words_are_changed_while_it_works(page, server):
    begin(page, steps=SLOW, seconds=9)
    expect(page.locator(".cell.working")).to_be_visible()
    page.locator(".cell").nth(2).click()
    page.get_by_role("button", name="Change the words").click()
    page.get_by_role("dialog").get_by_label("Prompt").fill("the box turns left")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator("dialog")).to_have_count(0)
    page.locator("#actions").get_by_role("button", name="Pause", exact=True).click()  # not that of the player
    status(page, "paused")
    page.get_by_role("button", name="Resume").click()
    status(page, "done")
    sections = server.ask(f"v1/videos/{shown(page)}")["longtake"]["plan"]["sections"]
    assert [section["prompt"] for section in sections] == ["a red ball", "a red ball", "the box turns left"]


def test_a_stopped_video_keeps_what_it_has(page):
    begin(page, steps=SLOW, seconds=18)
    expect(page.locator(".cell.working")).to_be_visible()
    page.get_by_role("button", name="Stop after this section").click()
    status(page, "stopped early")
    expect(page.locator(".cell.done")).to_have_count(1)
    until(page, "document.querySelector('#film').readyState >= 2")


def test_a_section_is_made_again(page, server, made, visit):
    page.goto(f"{server.url}#{made['id']}")
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    status(page, "done")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".cell").nth(1).click()
    page.get_by_role("button", name="Make again from here").click()
    page.get_by_label("Seed (empty: a new one)").fill("99")
    page.get_by_role("dialog").get_by_role("button", name="Make again from here").click()
    expect(page.locator("dialog")).to_have_count(0)
    again = finished(server, made["id"])
    assert [section["seed"] for section in again["longtake"]["plan"]["sections"]] == [7, 99]
    expect(page.locator(".cell.done")).to_have_count(2)
    status(page, "done")
    expect(page.locator("#section")).to_contain_text("seed 99")


def test_the_storyboard_snaps_to_sections(page):
    page.locator("[name=seconds]").fill("12")
    expect(page.locator(".ruler")).to_contain_text("12 s")
    page.get_by_role("button", name="Add words").click()
    page.locator("#cue-editor textarea").fill("the ball turns left")
    cue = page.locator(".cue-prompt")
    expect(cue).to_contain_text("0 s")
    cue.focus()
    page.keyboard.press("ArrowRight")
    expect(cue).to_contain_text("3 s")
    expect(cue).to_have_accessible_name("the ball turns left, from 3 s to 12 s, section 2")
    page.keyboard.press("Shift+ArrowLeft")
    expect(cue).to_have_accessible_name("the ball turns left, from 3 s to 9 s, section 2")
    box, lane = cue.bounding_box(), page.locator(".track-prompt .lane").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 20 + 0.27 * lane["width"], box["y"] + 10, steps=4)
    page.mouse.up()
    expect(cue).to_contain_text("6 s")
    with page.expect_response("**/v1/plan") as planned:
        page.get_by_role("button", name="Add a seed").click()
    assert planned.value.ok
    sections = planned.value.json()["sections"]
    assert [section["prompt"] for section in sections] == ["", "", "the ball turns left", "the ball turns left"]
    cue.focus()
    page.keyboard.press("Delete")
    expect(cue).to_have_count(0)
    expect(page.get_by_role("button", name="Add words")).to_be_focused()


def test_a_key_image_is_dropped_on_its_track(page):
    expect(page.locator(".ruler")).to_contain_text("3 s")
    with page.expect_response(
        lambda response: response.url.endswith("/v1/plan") and "cues" in (response.request.post_data or "")
    ) as planned:
        drop(page, "end.png", "image/png", (EXAMPLES / "02.png").read_bytes(), ".track-image .lane")
    assert planned.value.ok
    expect(page.locator("button.cue-image")).to_have_count(1)


def test_a_dropped_video_brings_its_settings_back(page, server, made):
    content = server.file(f"v1/videos/{made['id']}/content")
    drop(page, "made.mp4", "video/mp4", content)
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("a red ball and a blue box")
    expect(page.locator("#seed")).to_have_value("7")
    expect(page.locator("[name=seconds]")).to_have_value("6")
    expect(page.locator("#image")).to_be_visible()
    assert page.locator("#steps").input_value() == "2"


def test_the_queue_is_put_in_order_while_it_works(page, server):
    busy = server.video(num_inference_steps=1000, seconds=12)
    first, second, third = (server.video(prompt=f"{color} ball")["id"] for color in ("red", "blue", "green"))
    rows = page.locator("#queued .job")
    expect(rows).to_have_count(3)
    rows.nth(2).locator(".grip").focus()
    page.keyboard.press("ArrowUp")
    expect(rows.nth(1)).to_contain_text("green ball")
    with page.expect_response("**/move"):
        rows.nth(0).drag_to(rows.nth(2), target_position={"x": 100, "y": 40})
    expect(rows.nth(2)).to_contain_text("red ball")
    place = {id: server.ask(f"v1/videos/{id}")["longtake"]["position"] for id in (first, second, third)}
    assert sorted(place, key=place.get) == [third, second, first]
    rows.nth(0).get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Edit").click()
    page.get_by_role("textbox", name="Prompt").fill("the box")
    page.locator("#make").click()
    expect(rows.nth(0)).to_contain_text("the box")
    for _ in range(3):
        count = rows.count()
        rows.nth(0).get_by_role("button", name="More for").click()
        page.get_by_role("menuitem", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(rows).to_have_count(count - 1)
    server.ask(f"v1/videos/{busy['id']}", method="DELETE")


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("a.txt", "text/plain", b"no image"),
        ("a.png", "image/png", b"\x89PNG no image"),
        ("a.mp4", "video/mp4", b"no video"),
    ],
    ids=["text", "broken-image", "broken-video"],
)
def test_a_bad_file_is_refused_beside_its_field(page, name, kind, content):
    drop(page, name, kind, content)
    fault = page.locator(".fault[data-field=image]")
    expect(fault).to_be_visible()
    assert len(fault.text_content()) > 10


def test_a_wrong_number_is_refused_beside_its_field(page):
    page.locator("[name=seconds]").fill("1000000")
    expect(page.locator(".fault[data-field=seconds]")).to_be_visible()
    expect(page.locator("[name=seconds]")).to_have_attribute("aria-invalid", "true")
    page.locator("[name=seconds]").fill("6")
    expect(page.locator(".fault[data-field=seconds]")).to_be_hidden()


def test_a_video_without_an_image_is_refused_in_a_sentence(page):
    page.locator("#make").click()
    expect(page.locator(".fault[data-field=image]")).to_contain_text("begins with an image")


def test_the_last_frame_starts_another_video(page, server, made):
    page.goto(f"{server.url}#{made['id']}")
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    page.get_by_role("button", name="Use last frame").click()
    expect(page.locator("#image")).to_be_visible()


def test_a_video_is_made_longer(page, server, made):
    page.goto(f"{server.url}#{made['id']}")
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    page.get_by_role("button", name="Extend").click()
    expect(page.locator("#sides")).to_be_visible()
    page.locator("[name=seconds]").fill("3")
    set_steps(page, 2)
    expect(page.locator("#length-says")).to_contain_text("1 section")
    page.locator("#make").click()
    until(page, "location.hash.slice(1) !== given", made["id"])
    status(page, "done")


def test_a_branch_shares_what_was_made_before(page, server, made):
    page.goto(f"{server.url}#{made['id']}")
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    page.locator(".cell").nth(1).click()
    page.get_by_role("button", name="Branch here").click()
    page.get_by_label("Words of this section").fill("the box turns")
    page.get_by_role("dialog").get_by_role("button", name="Branch here").click()
    until(page, "location.hash.slice(1) !== given", made["id"])
    status(page, "done")
    branch = server.ask(f"v1/videos/{shown(page)}")
    assert branch["longtake"]["plan"]["sections"][1]["prompt"] == "the box turns"


def test_the_library_finds_and_compares(page, server, made):
    other = finished(server, server.video(prompt="a blue box turns", seconds=3)["id"])
    page.get_by_role("button", name="Library").click()
    page.get_by_role("searchbox").fill("blue")
    expect(page.locator("#library-says")).to_contain_text("found")
    for video in (made, other):
        page.locator(f'.card[data-key="{video["id"]}"] [type=checkbox]').check()
    page.get_by_role("button", name="Compare two").click()
    films = page.locator("dialog.compare video")
    expect(films).to_have_count(2)
    until(page, "[...document.querySelectorAll('dialog.compare video')].every((film) => film.currentTime > 0.3)")
    one, other = page.evaluate("[...document.querySelectorAll('dialog.compare video')].map((film) => film.currentTime)")
    apart = abs(one - other)
    assert apart < 0.3  # both stand in the same quarter of a second, or the shorter one has ended
    expect(page.locator("dialog.compare .differs").first).to_be_visible()


@pytest.mark.parametrize(("variant", "ending"), [("mp4", "mp4"), ("gif", "gif"), ("PNG frames", "zip")])
def test_a_video_is_downloaded(page, server, made, variant, ending):
    page.goto(f"{server.url}#{made['id']}")
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    page.get_by_role("button", name="Download", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=variant).click()
    assert download.value.suggested_filename == f"a-red-ball-and-a-blue-box.{ending}"


def test_german_is_spoken_to_who_asks_for_it(visit, server):
    page = visit(server, locale="de-DE")
    expect(page.get_by_role("button", name="Video machen")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_label("Sprache").select_option("en")
    expect(page.get_by_role("button", name="Make video")).to_be_visible()
