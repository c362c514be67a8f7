"""Prefixes of every usual log are taken off, and nothing else."""

import unicodedata

import pytest

from ioflusher.kernlog.reading.lines import Line, breaks_softly, parse_line

TEXT = " schedule+0x30/0xb0"


@pytest.mark.parametrize(
    "prefix",
    [
        "[ 1626.609198] ",
        "<6>[ 1626.609198] ",
        "[ 1626.609198][  T123] ",
        "[ 1626.609198][    C1] ",
        "[So Feb 28 19:50:42 2021] ",
        "[Mo M\u00e4r  1 14:16:19 2021] ",
        "Oct 04 10:34:58 enhorning kernel: ",
        "Oct  4 10:34:58 enhorning kernel: [ 1626.609198] ",
        "2024-01-01T12:00:00.123456+00:00 node7 kernel: [ 1626.609198] ",
        "2024-01-01 12:00:00 node7 kernel: ",
        "kern.err kernel: [ 1626.609198] ",
        "kern: kern.notice: Jan 13 02:49:23 kernel: ",
        "4,20651,429868313,-; ",
        "2017-02-14T00:12:59.813388+03:00 storage9 [ 1626.609198] ",
        "MESSAGE=[ 1626.609198] ",
        "> > [ 1626.609198] ",
        "\x1b[31m[ 1626.609198] \x1b[0m",
        "\x00\x00[ 1626.609198] ",
        "01-02 03:04:05.678     0     0 W         : ",
        "",
    ],
)
def test_a_prefix_comes_off(prefix: str) -> None:
    """What the log added goes, what the kernel printed stays, the indent included."""
    line = parse_line((prefix + TEXT + "\r\n").encode())
    assert line.text == TEXT
    assert line.seconds in (None, 1626.609198, 429.868313)


def test_the_caller_column_is_kept_apart() -> None:
    """Stacks of several processors are told apart by it."""
    assert parse_line(b"[    5.000001][   T42] hello") == Line("hello", 5.000001, "T42")


@pytest.mark.parametrize(
    "text", ["[<0>] foo+0x1/0x2", " [<ffffffff8173f405>] ? foo+0x1/0x2", "[c0f] [c0e] .a+0x1/0x2"]
)
def test_an_address_is_no_prefix(text: str) -> None:
    """Old kernels begin a frame's line with its address."""
    assert parse_line(text.encode()).text == text


def test_the_journals_json_is_read() -> None:
    """`journalctl -o json` writes text, or numbers where the text is not valid UTF-8."""
    assert parse_line(b'{"_TRANSPORT":"kernel","MESSAGE":"task:a"}').text == "task:a"
    assert parse_line(b'{"MESSAGE":[116,97,115,107,58,255]}').text == "task:\ufffd"
    assert parse_line(b'{"MESSAGE":null}').text == '{"MESSAGE":null}'


def test_nothing_that_steers_a_terminal_remains() -> None:
    """Escape sequences whole and in pieces, both sets of control characters, all go."""
    text = parse_line(b"a\x1b[2Jb\x1b]0;title\x07c\x9b31md\x1b").text
    assert text.isprintable()
    assert text.startswith("abc")
    controls = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t")}
    assert {parse_line(f"a{chr(code)}b".encode()).text for code in controls} == {"ab"}
    assert parse_line(b"a\tb").text == "a b"


def test_every_blank_is_a_blank_and_what_has_no_width_goes() -> None:
    """Web pages and word processors put them into logs; U+2028 and U+2029 end lines there."""
    blanks = {chr(code) for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) == "Zs"}
    assert {parse_line(f"a{blank}b".encode()).text for blank in blanks} == {"a b"}
    assert parse_line(b"a\xa0b").text == "a b"
    nothing = "\xad\u200b\u200c\u200d\u2060\ufeff"
    assert parse_line(f"a{nothing}b".encode()).text == "ab"


def test_a_byte_that_is_no_utf8_is_seen_to_be_none() -> None:
    """Each alone, the lowest and the highest too; Latin-1's blank is one."""
    odd = set(range(0x80, 0x100)) - {0xA0}
    assert {parse_line(b"a" + bytes([byte]) + b"b").text for byte in odd} == {"a\ufffdb"}


@pytest.mark.parametrize(
    ("line", "breaks"),
    [
        (b"x" * 75 + b"=", True),  # as long as RFC 2045 allows
        (b"x" * 75 + b"=\r", True),
        (b"x" * 74 + b"=", True),
        (b"x" * 73 + b"=", False),  # nothing broke it there
        (b"=20" + b"x" * 70 + b"=", True),  # but a mail's code says who wrote it
        (b"=20" + b"x" * 73 + b"=", False),  # too long for a mail
        (b"x" * 71 + b"=0A=", False),  # the text's own line ends there
        ("\u00fc".encode() + b"x" * 73 + b"=", False),
        (b"x" * 76, False),
    ],
)
def test_where_a_mails_coding_breaks_a_line(line: bytes, breaks: bool) -> None:
    """Logs have lines with "=" at their end, too."""
    assert breaks_softly(line) is breaks
