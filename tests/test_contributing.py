"""CONTRIBUTING.md is true: what it names exists, and the subject of a commit is looked at."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", TEXT))))
def test_a_file_that_is_named_exists(path: str) -> None:
    """From the top of the repository, or from the package."""
    assert (ROOT / path).exists() or (ROOT / "src" / "ioflusher" / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z0-9]+)", TEXT))))
def test_a_target_that_is_named_exists(target: str) -> None:
    """In the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("subject", "complaint"),
    [
        ("audit: a rule on control groups", ""),
        ("lab, report: every run is kept", ""),
        ("Merge branch 'x'", ""),
        ("Audit: a rule", "area: what"),
        ("a rule on control groups", "area: what"),
        ("audit: a rule.", "area: what"),
        ("audit: " + 65 * "x", "fewer than 72 characters, found 72"),
    ],
)
def test_the_subject_of_a_commit(subject: str, complaint: str, tmp_path: Path) -> None:
    """What the hook accepts, and what it says of the rest."""
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\nWhy.\n")
    done = subprocess.run(
        [str(ROOT / "tools" / "commit-subject"), str(message)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == bool(complaint)
    assert complaint in done.stderr
