"""Whatever the bytes, the reader answers, and with nothing that a terminal could obey.

The invariant: for any bytes, `diagnose_log` returns; its texts are one line each after escaping; and the
part of a log that stands behind rubbish (ended by a newline) is still read.
"""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Diagnosis, episode_as_json
from ioflusher.kernlog.lines import parse_line
from ioflusher.report.diagnosis_text import render_diagnosis

LOGS = [path.read_bytes() for path in sorted((Path(__file__).parent / "logs").glob("*.txt"))]
LINES = sorted({line for log in LOGS for line in log.splitlines()})
TASK = b"\n[    9.000000] sane            D    0   777      1 0x00000000\n[    9.000000]  down_read+0x1/0x2\n"

rubbish = st.binary(max_size=400)
torn = st.sampled_from(LINES).flatmap(lambda line: st.integers(0, len(line)).map(lambda end: line[:end]))
noisy = st.lists(st.one_of(torn, st.sampled_from(LINES), rubbish), max_size=30).map(b"\n".join)


def sound(diagnosis: Diagnosis) -> None:
    for line in render_diagnosis(diagnosis):
        assert line.isprintable()
    for episode in diagnosis.episodes:
        assert episode.tasks
        assert episode_as_json(episode)["kind"]


@given(st.one_of(rubbish, noisy))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_answered(data: bytes) -> None:
    """No bytes make it fail, and what follows them is still read."""
    sound(diagnose_log(data))
    after = diagnose_log(data + TASK)
    assert any(task.comm == "sane" for episode in after.episodes for task in episode.tasks) or after.dropped


@given(st.sampled_from(LOGS), st.data())
@settings(max_examples=200, deadline=None)
def test_a_log_cut_anywhere_is_answered(log: bytes, data: st.DataObject) -> None:
    """The front, the back, a piece from the middle."""
    begin = data.draw(st.integers(0, len(log)))
    end = data.draw(st.integers(begin, len(log)))
    sound(diagnose_log(log[begin:end]))
    sound(diagnose_log(log[:begin] + log[end:]))


@given(rubbish)
@settings(max_examples=300, deadline=None)
def test_a_line_is_always_printable(data: bytes) -> None:
    """Control characters of both sets and escape sequences never come through."""
    assert "\x1b" not in parse_line(data).text
    assert all(ord(character) >= 0x20 for character in parse_line(data).text)
