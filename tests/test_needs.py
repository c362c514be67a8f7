"""A missing program skips its tests and says how to get it; one variable makes that a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs


@pytest.mark.parametrize("name", needs.PACKAGES)
def test_what_is_missing_is_said_with_its_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, and the command that installs it."""
    monkeypatch.setattr(needs, "PATH", "/nowhere")
    assert f"needs {name}: apt-get install {needs.PACKAGES[name]}" in (needs.missing(name) or "")


@pytest.mark.parametrize(("no_skip", "status"), [("", 0), ("1", 1)])
def test_one_variable_turns_skips_into_failures(no_skip: str, status: int, tmp_path: Path) -> None:
    """By default pytest ends with 0 and says what it skipped; with the variable it fails and says why."""
    file = tmp_path / "test_it.py"
    file.write_text('import pytest\n@pytest.mark.skip(reason="lacks a thing")\ndef test_it():\n    pass\n')
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-ra",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            str(file),
        ],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "IOFLUSHER_TESTS_NO_SKIP": no_skip},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout
    assert "lacks a thing" in done.stdout
    assert ("IOFLUSHER_TESTS_NO_SKIP=1 forbids" in done.stdout) == bool(status)
