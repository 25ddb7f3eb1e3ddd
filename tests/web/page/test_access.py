"""Everyone can use the page: axe finds nothing, the keyboard reaches all, and a telephone is wide enough."""

from importlib.resources import files

import pytest
from playwright.sync_api import expect

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page):
    """What axe finds wrong, and where."""
    page.evaluate(AXE)
    found = page.evaluate("(values) => axe.run({ runOnly: { type: 'tag', values } })", RULES)
    assert len(found["passes"]) > 20  # it did look
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 360])
def test_axe_finds_nothing(visit, server, made, scheme, width):
    page = visit(
        server, f"#{made['id']}", color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    expect(page.locator(".cell.done")).to_have_count(2)
    page.locator(".cell").first.click()
    page.locator("details.more summary").click()
    page.get_by_role("button", name="Add words").click()
    page.locator("#cue-editor textarea").fill("the ball turns")
    page.locator("[name=seconds]").fill("1000000")
    expect(page.locator(".fault[data-field=seconds]")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Make again from here").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Library").click()
    expect(page.locator(".card").first).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


FOCUSED = """() => {
  const at = document.activeElement;
  const seen = getComputedStyle(at).outlineStyle !== "none" || at.matches("[type=radio], [type=file]"); // or its frame
  return at === document.body ? null : { name: at.id || at.name || at.className, seen };
}"""
WAY = [
    "to-studio",
    "to-library",
    "language",
    "image-file",
    "prompt",
    "length",
    "seconds",
    "seed",
    "roll-seed",
    "presets",
    "make",
    "loop",
]


def test_the_keyboard_reaches_everything_in_order(page):
    expect(page.locator(".track-prompt .track-name")).to_be_enabled()
    names = []
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:
            break
        assert focused["seen"], focused["name"]
        names.append(focused["name"])
    assert [name for name in names if name in WAY] == WAY


def test_the_strip_is_walked_with_the_arrow_keys(visit, server, made):
    page = visit(server, f"#{made['id']}")
    expect(page.locator(".cell.done")).to_have_count(2)
    assert page.locator(".cell[tabindex='0']").count() == 1
    page.locator(".cell").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cell").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#section")).to_contain_text("Section 2")


def test_a_menu_is_used_with_the_keyboard(page):
    page.locator("#presets").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#presets")).to_be_focused()
    expect(page.locator("[name=seconds]")).to_have_value("6")
    expect(page.locator("#steps")).to_have_value("4")
