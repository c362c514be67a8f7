"""The progress line: only for a terminal, only for long work, and gone at the end."""

import io
import sys

import pytest

from ioflusher.cli import progress
from ioflusher.cli.progress import ProgressLine


class Terminal(io.StringIO):
    """Text for a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, patience: float) -> str:
    """What standard error gets while a thousand steps are told."""
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", patience)
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressLine("processes") as line:
        for done in range(1000):
            line.show(done + 1, 1000)
    return stream.getvalue()


def test_a_terminal_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that is wiped away."""
    text = shown(Terminal(), monkeypatch, patience=-1)
    assert "1000 of 1000 processes" in text
    assert "\n" not in text
    assert text.endswith("\r\x1b[K")


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing flickers."""
    assert shown(Terminal(), monkeypatch, patience=60) == ""


def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error that goes to a log stays clean."""
    assert shown(io.StringIO(), monkeypatch, patience=-1) == ""
