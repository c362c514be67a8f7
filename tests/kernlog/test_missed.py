"""Real hangs that a person read and diagnose does not find: kept to learn from, until each is found."""

import tomllib
from pathlib import Path

import pytest

from ioflusher.kernlog.diagnose import diagnose_log

MISSED = Path(__file__).parent / "missed"
READINGS = tomllib.loads((MISSED / "readings.toml").read_text("utf-8"))


def test_each_has_its_reading() -> None:
    assert {path.stem for path in MISSED.glob("*.txt")} == READINGS.keys()
    assert all(reading["cycle"] and reading["source"] for reading in READINGS.values())


@pytest.mark.parametrize("name", READINGS)
def test_it_is_still_missed(name: str) -> None:
    """One that is found belongs to the logs, with its answers."""
    diagnosis = diagnose_log((MISSED / f"{name}.txt").read_bytes())
    assert not diagnosis.recursion, "it is found now: move it to logs, with its answer and reading"
