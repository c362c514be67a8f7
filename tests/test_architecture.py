"""The tables of docs/design.md hold: imports run downwards, a name means one thing, a light library."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ioflusher"
DESIGN = ROOT / "docs" / "design.md"
EVERYBODY = {"errors", "support", "__version__"}  # what every package may import

# The same name in two packages: `kernlog` is to be rebuilt, and takes names of its own then.
KNOW_THE_LAB = (
    *("lab/", "comparison/", "report/experiment_", "cli/lab"),
    *("cli/model_check", "cli/model_compare"),
)
CLASSES_MAY_REPEAT_IN = {"kernlog"}


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the table in docs/design.md whose first column has that heading, by column."""
    lines = DESIGN.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    columns, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines[first : lines.index("", first)]
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def names(cell: str) -> set[str]:
    """The names that stand in backticks."""
    return set(re.findall(r"`([^`]+)`", cell))


PACKAGES = {names(row["package"]).pop(): row for row in table("package")}
INSIDE_MACHINE = {names(row["inside `machine`"]).pop(): row for row in table("inside `machine`")}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def inside_machine(parts: tuple[str, ...]) -> str:
    """The package inside `machine` that a module belongs to, by its name's parts after `machine`."""
    return parts[0] if parts and parts[0] in INSIDE_MACHINE else "records"


def imported_modules(path: Path) -> list[str]:
    """Every module that the file imports, as absolute dotted names."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_the_tables_list_what_exists() -> None:
    """Every package has a row, and no row is about nothing."""
    assert {package(path) for path in sources()} == PACKAGES.keys()
    there = {path.name for path in (PACKAGE / "machine").iterdir() if (path / "__init__.py").exists()}
    assert there | {"records"} == INSIDE_MACHINE.keys()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_may_import_lower_ones_only(name: str) -> None:
    """The table itself runs downwards."""
    for other in names(PACKAGES[name]["may import"]):
        assert int(PACKAGES[other]["level"]) < int(PACKAGES[name]["level"])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    """A package imports only what its row allows."""
    own = package(path)
    row = PACKAGES[own]
    may = PACKAGES.keys() if row["may import"] == "everything" else names(row["may import"])
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "ioflusher":
            if row["standard library only"] == "yes":
                assert parts[0] in sys.stdlib_module_names, f"{own} imports {name}"
        elif parts[1] not in EVERYBODY | {own}:
            assert parts[1] in may, f"{own} must not import {parts[1]} ({name})"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "machine").rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_inside_machine(path: Path) -> None:
    """Inference and graph are pure: neither they nor the records import what reads the machine."""
    own = inside_machine(path.relative_to(PACKAGE / "machine").parts[:-1])
    may = names(INSIDE_MACHINE[own]["may import"])
    for name in imported_modules(path):
        if name.startswith("ioflusher.machine."):
            other = inside_machine(tuple(name.split(".")[2:]))
            assert other in may | {own}, f"{path} must not import {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_lab_and_what_shows_it_know_the_lab(path: Path) -> None:
    """What `run`, `unit` or `map` need lies lower; the lab can change without them."""
    where = path.relative_to(PACKAGE).as_posix()
    if not where.startswith(KNOW_THE_LAB):
        used = [name for name in imported_modules(path) if name.startswith("ioflusher.lab")]
        assert not used, f"{where} imports {', '.join(used)}"


def test_a_class_name_means_one_thing() -> None:
    """No two packages define a class of one name, private ones excepted."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for path in sources():
        if package(path) in CLASSES_MAY_REPEAT_IN:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(package(path))
    assert not {name: sorted(where) for name, where in places.items() if len(where) > 1}


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


def test_files_that_the_design_names_exist() -> None:
    """A path in docs/design.md is a file of the package, so that who looks for a step finds it."""
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml))`", DESIGN.read_text()):
        places = (ROOT / path, PACKAGE / path)
        assert any(place.exists() for place in places), path


def test_the_ways_through_the_project_exist() -> None:
    """Each file that docs/design.md names is there; the lists of stages name it from its package on."""
    text = (PACKAGE.parent.parent / "docs" / "design.md").read_text()
    ways = text.partition("## Two ways through the project")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", ways)
    assert len(named) > 20
    assert [name for name in named if not (PACKAGE / name).is_file()] == []
    beside = re.findall(r"`([a-z_]+\.py)`", text)
    known = {path.name for path in PACKAGE.rglob("*.py")}
    assert [name for name in beside if name not in known and not name.startswith("test_")] == []
