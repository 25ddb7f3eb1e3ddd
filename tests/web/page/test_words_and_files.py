"""What can be said of the page without a browser."""

import json
import re
from pathlib import Path

import pytest

from longtake.web import app

STATIC = Path(app.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
LANGUAGES = {path.stem: json.loads(path.read_text()) for path in sorted((STATIC / "strings").glob("*.json"))}


def test_every_language_says_the_same_things():
    english = LANGUAGES["en"]
    for tag, words in LANGUAGES.items():
        assert words.keys() == english.keys(), tag
        for key, text in english.items():
            holes = {name for form in _forms(text) for name in re.findall(r"\{(\w+)\}", form)}
            assert {name for form in _forms(words[key]) for name in re.findall(r"\{(\w+)\}", form)} == holes, (tag, key)


def _forms(text):
    return [text] if isinstance(text, str) else list(text.values())


def test_every_text_that_is_asked_for_is_there():
    asked = set(re.findall(r'data-t(?:-\w+)?="([^"]+)"', (STATIC / "index.html").read_text()))
    for script in SCRIPTS:
        asked |= set(re.findall(r'\bt\("([^"]+)"', script.read_text()))
    assert asked <= LANGUAGES["en"].keys()
    assert len(asked) > 100


@pytest.mark.parametrize("sheet", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_what_is_hidden_stays_hidden(sheet):
    assert sheet.read_text().startswith("[hidden]{display:none!important}")


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere():
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in [*SCRIPTS, STATIC / "index.html", *STATIC.glob("*.css")]:
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()), path.name


def test_every_file_that_the_page_names_is_there():
    named = re.findall(r'(?:src|href)="([\w./-]+)(?:#\w+)?"', (STATIC / "index.html").read_text())
    for script in SCRIPTS:
        named += re.findall(r'from "\./([\w.]+)"', script.read_text())
    icons = (STATIC / "icons.svg").read_text()
    assert all((STATIC / name).is_file() for name in named)
    used = set(re.findall(r'icons\.svg#(\w+)"', (STATIC / "index.html").read_text()))
    for script in SCRIPTS:
        used |= set(re.findall(r'(?:icon: |\bicon(?:Button)?\()"(\w+)"', script.read_text()))
    assert used
    assert not {name for name in used if f'id="{name}"' not in icons}
