"""What the pages say in Python is true: every block compiles, and what stands behind `#` is what the line gives."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if "```python" in page.read_text()]
NEEDS_MORE = ("Path(", "seams", "backbone")  # files, a model: these blocks are only compiled


def claimed(comment):
    """The literal that a comment states, or the comment itself if it is prose."""
    try:
        return ast.literal_eval(comment)
    except (SyntaxError, ValueError):
        return comment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_does_what_it_says(page):
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        tree = ast.parse(block)
        if any(word in block for word in NEEDS_MORE):
            continue
        for statement in tree.body:
            comment = block.splitlines()[statement.end_lineno - 1][statement.end_col_offset :].strip().lstrip("# ")
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), str(page), "eval"), names)
                assert not comment or value == claimed(comment), ast.unparse(statement)
            else:
                exec(compile(ast.Module([statement], []), str(page), "exec"), names)
