"""Logs that were read by a person before diagnose saw them: the same verdict, task and wait come out."""

import tomllib
from pathlib import Path

import pytest

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.judging.findings import Kind

HERE = Path(__file__).parent
NOBODY_WAITS = {Kind.LOCKDEP, Kind.LOCKUP, Kind.MEMORY_EXHAUSTION, Kind.OTHER}
READINGS = tomllib.loads((HERE / "readings.toml").read_text("utf-8"))


@pytest.mark.parametrize("name", READINGS)
def test_what_a_person_read_comes_out(name: str) -> None:
    """The episode of the task that was meant shows the function in which it waits, and is judged alike."""
    reading = READINGS[name]
    diagnosis = diagnose_log((HERE / "logs" / f"{name}.txt").read_bytes())
    assert diagnosis.recursion is reading["recursion"]
    if not reading["where"]:
        # lockdep's locks are waited for by nobody, and whoever runs waits for nothing
        assert {episode.kind for episode in diagnosis.episodes} <= NOBODY_WAITS
        return
    meant = [
        episode
        for episode in diagnosis.episodes
        if episode.recursion is reading["recursion"]
        and (not reading["who"] or any(task.comm == reading["who"] for task in episode.tasks))
    ]
    assert any(step.frame.name == reading["where"] for episode in meant for step in episode.chain)
