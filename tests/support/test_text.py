"""Text for people: nothing steers the terminal, numbers agree with their nouns, names are found again."""

from hypothesis import given
from hypothesis import strategies as st

from ioflusher.support.text import counted, did_you_mean, printable, text_of


@given(st.text())
def test_nothing_steers_a_terminal(text: str) -> None:
    """What comes out is printable, and printable text is left alone."""
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_escapes_are_named() -> None:
    """Control characters, direction marks and lone surrogates are written as escapes."""
    assert printable("a\x1b[31m\n\u202e\udcff") == r"a\x1b[31m\n\u202e\udcff"


def test_names_of_any_bytes() -> None:
    """A name in UTF-8 is itself; bytes that are none become \\xNN, and no byte is lost."""
    assert text_of("nbd-sérver".encode()) == "nbd-sérver"
    assert text_of(b"a\xff\x1b") == "a\\xff\x1b"


def test_numbers_with_nouns() -> None:
    """One has the noun alone; every other number, none too, has its plural."""
    assert [counted(number, "thread") for number in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]


def test_near_names() -> None:
    """The nearest with its prefix, or all of them in order."""
    assert did_you_mean("staled_s", ["stalled_s", "other"], "frozen.") == "did you mean frozen.stalled_s?"
    assert did_you_mean("zzz", ["b", "a"]) == "it may be one of a, b"
