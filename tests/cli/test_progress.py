"""The progress bar: only for a terminal."""

import io
import sys

import pytest

from ioflusher.cli.progress import progress_bar


class Terminal(io.StringIO):
    """Text for a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, show: bool = True) -> str:
    """What standard error gets while a thousand steps are told."""
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("reading processes", show=show) as update:
        for done in range(1000):
            update(done + 1, 1000)
    return stream.getvalue()


def test_a_terminal_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the work and ends at the whole."""
    text = shown(Terminal(), monkeypatch)
    assert "reading processes" in text
    assert "100%" in text


def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error that goes to a log stays clean; so does a terminal where the work is short."""
    assert shown(io.StringIO(), monkeypatch) == ""
    assert shown(Terminal(), monkeypatch, show=False) == ""
