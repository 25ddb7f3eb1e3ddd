"""What a call is answered when it cannot be served: a code, one sentence that says what would do, and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

__all__ = ["STATUS", "Code", "Refusal", "missing", "scrubbed", "sentence"]

Code = Literal[
    "invalid_request", "not_found", "not_ready", "conflict", "lease_lost", "unauthorized", "forbidden", "too_large",
    "unsupported_media", "busy", "method_not_allowed", "server_error",
]  # fmt: skip
STATUS: dict[Code, int] = {
    "invalid_request": 422,
    "not_found": 404,
    "not_ready": 409,
    "conflict": 409,
    "lease_lost": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "too_large": 413,
    "unsupported_media": 415,
    "busy": 429,
    "method_not_allowed": 405,
    "server_error": 500,
}
PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/:;,'\"()]+/)+([^\s/:;,'\"()]*)")  # absolute, of two names at least


class Refusal(Exception):  # noqa: N818  it is no error of the program's
    """A call that is answered with an error."""

    def __init__(self, code: Code, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message, self.param = message, param

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    @property
    def data(self) -> dict[str, Any]:
        """As JSON says it."""
        return {"error": {"code": self.code, "message": self.message, "param": self.param}}


def missing(kind: str, name: str) -> Refusal:
    """The refusal of a thing that is not there."""
    return Refusal("not_found", f"there is no {kind} {name[:80]!r}; the list has those that there are")


def scrubbed(text: str, names: Mapping[str, str] | None = None) -> str:
    """A text without paths of this machine: known ones get a name, of others the last part stays.

    >>> scrubbed("/home/ann/studio/uploads/a.png: no picture", {"/home/ann/studio": "the studio"})
    'the studio/uploads/a.png: no picture'
    >>> scrubbed("cannot open /home/ann/model/config.json (no such file)")
    'cannot open config.json (no such file)'
    """
    for path in sorted(names or {}, key=len, reverse=True):
        text = text.replace(path, (names or {})[path])
    return PATH.sub(lambda found: found[1] or PurePath(found[0]).name, text)


def sentence(text: str) -> str:
    r"""A message of several lines as one; the caret of a message that shows a place stays behind its words.

    >>> sentence("f16k4_q2\n      ^ expected g")
    'f16k4_q2: expected g (at q2)'
    """
    lines = [line for line in text.splitlines() if line.strip()]
    out = list[str]()
    for above, line in zip(["", *lines], lines, strict=False):
        if line.lstrip().startswith("^"):
            at = line.index("^")
            out[-1] += f": {line[at + 1 :].strip()} (at {above[at : at + 20].strip() or 'the end'})"
        else:
            out.append(line.strip())
    return " ".join(out)
