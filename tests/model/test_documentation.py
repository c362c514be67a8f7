"""The snippets of docs/model.md do what the page says: all of them, in their order, as one program."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "model.md"


def test_the_snippets_run() -> None:
    """Each goes on where the one before has left off; what they assert is what the page claims."""
    text = PAGE.read_text()
    names: dict[str, object] = {"__name__": "docs_model"}
    found = 0
    for snippet in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        # as many empty lines before it as the page has, so that an error names the page's line
        lines = "\n" * text.count("\n", 0, snippet.start(1))
        exec(compile(lines + snippet[1], str(PAGE), "exec"), names)
        found += 1
    assert found >= 6
