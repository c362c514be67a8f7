"""The plug-in in projects of others, which know nothing of this repository."""

import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

import pytest_ioflusher

SOURCE = Path(pytest_ioflusher.__file__).parents[1]
# under its own name: the entry point may be installed or not
PYTEST = [
    sys.executable,
    "-m",
    "pytest",
    "-p",
    "no:ioflusher",
    "-p",
    "pytest_ioflusher",
    "-p",
    "no:cacheprovider",
]
STRICT = "[pytest]\naddopts = --strict-markers --strict-config -W error\n"
NOT_USED = """
import sys

def test_nothing():
    assert not [name for name in sys.modules if name.split(".")[0] == "ioflusher"]
"""
USED = """
def test_it(reclaim_lab):
    reclaim_lab.run("swap-on-nbd").assert_survives()

def test_another():
    pass
"""
# a lab whose guest has played already
PLAYED = """
import contextlib
import pytest
from tests.lab.halves import FINISHED
from tests.cli.test_lab_run import ReadyLab
from ioflusher.lab import repeat

@pytest.fixture(autouse=True)
def played(monkeypatch):
    from pytest_ioflusher import trial

    monkeypatch.setattr(repeat, "run_half", lambda *_, **__: FINISHED)
    monkeypatch.setattr(trial, "Lab", ReadyLab)
    for name in ("find_qemu", "find_kernel", "check_programs"):
        monkeypatch.setattr(trial, name, lambda *_, **__: None)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own."""
    (tmp_path / "pytest.ini").write_text(STRICT)
    return tmp_path


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Its tests."""
    variables = {
        **os.environ,
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{Path.cwd()}",
        "XDG_STATE_HOME": str(project / "state"),
        "XDG_CACHE_HOME": str(project / "cache"),
        **environment,
    }
    return subprocess.run(
        [*PYTEST, "-q", *words], cwd=project, env=variables, capture_output=True, text=True, timeout=120
    )


def test_a_project_that_does_not_use_it(project: Path) -> None:
    """Nothing of ioflusher is imported, also where there is no QEMU."""
    (project / "test_it.py").write_text(NOT_USED)
    done = run(project, PATH="/nonexistent")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_without_qemu(project: Path) -> None:
    """Skipped, with what to install; a failure where that must not be; the rest of the project goes on."""
    (project / "test_it.py").write_text(USED)
    done = run(project, "-rs", PATH="/nonexistent")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    said = " ".join(done.stdout.split())
    assert "the reclaim lab cannot play here: the program qemu-system-" in said
    assert "run `ioflusher lab setup` as root, or install the package qemu-system-" in said
    done = run(project, PATH="/nonexistent", IOFLUSHER_LAB_REQUIRE="1")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout


def test_its_tests_can_be_chosen(project: Path) -> None:
    """By a marker that is known, which nobody has to write."""
    (project / "test_it.py").write_text(USED)
    done = run(project, "-m", "not reclaim_lab", "-v", PATH="/nonexistent")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 deselected" in done.stdout
    assert "@pytest.mark.reclaim_lab: boots virtual machines" in run(project, "--markers").stdout


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")])
def test_junit(project: Path, workers: tuple[str, ...]) -> None:
    """The properties are in the XML, from a worker of xdist, too."""
    (project / "test_it.py").write_text(USED)
    (project / "conftest.py").write_text(PLAYED)
    done = run(project, *workers, "--junitxml=junit.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one.get("name"): one.get("value") for one in xml.parse(project / "junit.xml").iter("property")}
    assert (found["reclaim_lab.kernel"], found["reclaim_lab.outcome"]) == ("6.12.117", "finished")
    assert (found["reclaim_lab.when_s"], found["reclaim_lab.run"]) == ("10.1", "1")


def test_the_package_says_where_the_plugin_is() -> None:
    """The entry point by which pytest finds it."""
    import tomllib

    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"ioflusher": "pytest_ioflusher"}


def test_the_example(project: Path) -> None:
    """Its tests are found, with the marker that the CI files choose; those name what this package has."""
    examples = SOURCE.parent / "examples" / "pytest"
    (project / "test_reclaim.py").write_text((examples / "test_reclaim.py").read_text())
    done = run(project, "--collect-only", "-m", "reclaim_lab")
    assert done.returncode == 0, done.stdout
    assert "4 tests collected" in done.stdout
    for name in ("github-actions.yml", "gitlab-ci.yml"):
        text = (examples / name).read_text()
        assert "IOFLUSHER_LAB_REQUIRE" in text
        assert "ioflusher lab setup" in text
        assert "-m reclaim_lab" in text
