"""Stacks of which parts are lost: what is inferred of the rest raises no alarm that the whole would not."""

import pytest
from tests.kernlog.cuts import CUTS, is_recursion, logs

from ioflusher.kernlog.reading.console import parse_console

HARMLESS = [tuple(parse_console(path.read_bytes())) for path in logs("neg")]
HANGS = [tuple(parse_console(path.read_bytes())) for path in logs("pos")]


@pytest.mark.parametrize("cut", CUTS)
def test_no_harmless_log_becomes_an_alarm(cut: str) -> None:
    assert not any(is_recursion(records, CUTS[cut]) for records in HARMLESS)


@pytest.mark.parametrize(
    ("cut", "least"),
    [
        ("without the 3 outermost frames", 0.85),
        ("the inner 60 % alone", 0.45),
        ("without the 2 innermost frames", 0.8),
        ("without the tasks' names", 0.8),
    ],
)
def test_most_hangs_are_found_all_the_same(cut: str, least: float) -> None:
    assert sum(is_recursion(records, CUTS[cut]) for records in HANGS) >= least * len(HANGS)
