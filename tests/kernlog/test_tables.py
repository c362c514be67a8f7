"""Kernel functions stand in the tables and nowhere else, so adding knowledge is adding a row."""

import ast
import re
from pathlib import Path

import pytest

from ioflusher import kernlog
from ioflusher.kernlog.stacks.roles import all_rows, role_of

ROOM = Path(kernlog.__file__).parent
# a table itself: functions whose variables a kernel's memory is asked for
TABLES_IN_PYTHON = {Path("memory/edges.py")}
MODULES = sorted(path.relative_to(ROOM) for path in ROOM.rglob("*.py"))
WORD = re.compile(r"[A-Za-z_]\w{4,}")
# our own words, and types of the kernel, that rows fit by chance
NO_FUNCTIONS = frozenset({"syscall", "schedule", "panic", "kswapd", "nbd_device", "unix_sock"})
PARTS = frozenset(row.part for row in all_rows())


def strings(path: Path) -> list[str]:
    """The text constants of a module, without docstrings."""
    tree = ast.parse((ROOM / path).read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    texts = (
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [str(node.value) for node in texts if id(node) not in docstrings]


@pytest.mark.parametrize("path", [path for path in MODULES if path not in TABLES_IN_PYTHON], ids=str)
def test_no_function_is_named_in_code(path: Path) -> None:
    """A name that a row has, or the beginning or end of some: it belongs into a row."""
    patterns = {row.pattern.strip("*") for row in all_rows()} - PARTS
    words = {word for text in strings(path) for word in WORD.findall(text)}
    named = {
        word for word in words if word in patterns or ("_" in word and word not in PARTS and role_of(word))
    }
    assert named - NO_FUNCTIONS == set()
