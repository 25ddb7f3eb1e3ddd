"""Shows the examples of docstrings as code: griffe leaves `>>>` lines to Markdown, which takes them for quotations."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", flags=re.MULTILINE)


class Doctests(Extension):
    """Puts a fence around every run of lines that begins with `>>>`."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
