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


# what else is written as the kernel writes functions: locks, drivers, types, settings, fields, tracepoints,
# and the two functions that a remedy recommends to authors of kernel code
AS_FUNCTIONS_ARE = frozenset(
    {
        *("fs_reclaim", "s_umount", "shrinker_mutex", "shrinker_rwsem", "target_core_user", "ublk_drv"),
        *(
            "init_task",
            "nbd_device",
            "unix_sock",
            "drop_caches",
            "min_free_kbytes",
            "task_flags",
            "btask_flags",
            "sched_switch",
            "bprev_state",
        ),
        *(
            "functions_held",
            "functions_io",
            "functions_unnamed",
            "owner_mode",
            "short_message",
            "stack_trace",
        ),
        *("memalloc_nofs_save", "memalloc_noio_save"),
    }
)


def test_no_function_without_a_row_is_named_in_code_either() -> None:
    """Of all that is written as the kernel writes names, what is none is listed here."""
    texts = (text for path in MODULES if path not in TABLES_IN_PYTHON for text in strings(path))
    names = {name for text in texts for name in re.findall(r"(?<!\w)[a-z]\w*_[a-z]\w*", text)}
    assert names - AS_FUNCTIONS_ARE == set()


@pytest.mark.parametrize("path", [path for path in MODULES if path not in TABLES_IN_PYTHON], ids=str)
def test_no_function_is_named_in_code(path: Path) -> None:
    """A name that a row has, or the beginning or end of some: it belongs into a row."""
    patterns = {row.pattern.strip("*") for row in all_rows()} - PARTS
    words = {word for text in strings(path) for word in WORD.findall(text)}
    named = {
        word for word in words if word in patterns or ("_" in word and word not in PARTS and role_of(word))
    }
    assert named - NO_FUNCTIONS == set()
