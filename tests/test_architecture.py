"""The house's rules hold: imports run downwards, the library stays light, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "ioflusher"

# room -> rooms that it may import (docs/design.md); `errors` and `support` are open to everybody
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "support": set(),
    "kernel": set(),
    "flag": {"kernel"},
    "harden": {"kernel"},
    "machine": {"kernel"},
    "audit": {"machine", "kernel"},
    "kernlog": {"kernel"},
    "watch": {"machine", "kernel"},
    "model": set(),
    "nbd": {"flag", "harden", "kernel"},
    "lab": {"kernlog", "kernel", "nbd", "flag", "harden"},
    "report": {"audit", "kernlog", "kernel", "lab", "machine", "watch", "model"},
    "__init__": {"flag", "harden", "kernel"},
    "__main__": {"cli"},
}
# the same inside `machine`, whose records lie beside these three
INSIDE_MACHINE = {"serving": {"serving"}, "collect": {"collect", "serving"}, "graph": {"graph", "serving"}}
THIRD_PARTY_FREE = {"errors", "support", "kernel", "flag", "harden", "__init__"}
MAX_LINES_OF_A_FILE = 420
MAX_LINES_OF_A_FUNCTION = 65


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    """Every module that the file imports, as absolute dotted names."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    """A room imports only the rooms that the design's table gives it."""
    own = room(path)
    if own == "cli":
        return
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "ioflusher":
            if own in THIRD_PARTY_FREE:
                assert parts[0] in sys.stdlib_module_names, f"{own} imports {name}"
            continue
        target = parts[1]
        if target in (own, "errors", "support", "__version__"):
            continue
        assert target in ALLOWED[own], f"{own} must not import {target} ({name})"


@pytest.mark.parametrize("inside", [*INSIDE_MACHINE, "records"])
def test_the_rooms_inside_machine(inside: str) -> None:
    """Inference and graph are pure: neither they nor the records import what reads the machine."""
    pattern = "*.py" if inside == "records" else f"{inside}/*.py"
    files = list((PACKAGE / "machine").glob(pattern))
    assert len(files) > 3
    for path in files:
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[:2] == ["ioflusher", "machine"] and parts[2] in INSIDE_MACHINE:
                assert parts[2] in INSIDE_MACHINE.get(inside, ()), f"{path} must not import {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """A file or a function that outgrows its limit lacks a concept."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES_OF_A_FILE, path
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_LINES_OF_A_FUNCTION, f"{path}: {node.name} has {length} lines"


def test_import_loads_the_standard_library_alone() -> None:
    """`import ioflusher` in a fresh interpreter brings no third-party module."""
    code = "import sys; before = set(sys.modules); import ioflusher; print(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    foreign = {
        name.split(".")[0]
        for name in out.stdout.split()
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("ioflusher")
    }
    assert not foreign
