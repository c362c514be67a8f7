"""Long logs: what matters is found wherever it stands, in constant memory."""

import io
import tracemalloc

import pytest

from ioflusher.kernlog.reading import scan
from ioflusher.kernlog.reading.scan import BEGINNING, CHUNK, MAX_RAW_LINE, RawLine, relevant_lines

NOISE = b"[    1.000000] usb 1-1: new high-speed USB device number 5 using xhci_hcd\n"
STACK = b"task:a state:D stack:0 pid:1\nCall Trace:\n schedule+0x1/0x2\n </TASK>\n"


class Slow(io.RawIOBase):
    """A stream that gives a byte at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.rest = data

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]
        """One byte, or none at the end."""
        piece, self.rest = self.rest[:1], self.rest[1:]
        buffer[: len(piece)] = piece
        return len(piece)


def lines(data: bytes) -> list[RawLine]:
    return list(relevant_lines(io.BytesIO(data)))


def test_a_short_log_around_a_stack_is_given_out_whole() -> None:
    """Lines come with their numbers and offsets."""
    data = NOISE * 3 + STACK
    found = lines(data)
    assert [line.data + b"\n" for line in found] == data.splitlines(keepends=True)
    assert [line.line for line in found] == list(range(1, 8))
    assert all(data[line.offset :].startswith(line.data) for line in found)


def test_empty_lines_are_given_out() -> None:
    """They part stacks, so they matter."""
    data = STACK + b"\n" + STACK
    assert [line.data + b"\n" for line in lines(data)] == data.splitlines(keepends=True)


def test_a_log_without_anything_is_passed_over() -> None:
    """Behind the beginning, which may be a whole mail, noise alone is no line that matters."""
    data = NOISE * 10000
    assert lines(data) == lines(data[: data.index(b"\n", BEGINNING - 1) + 1])


@pytest.mark.parametrize("before", [0, 1, 7, 3000, 3500, 7000, 40000, 120000])
def test_a_stack_is_found_wherever_it_stands(before: int) -> None:
    """Chunk borders, lines that are counted and lines that are not: the stack is whole, its number right."""
    data = NOISE * before + STACK + NOISE * 50000
    found = {line.data: line for line in lines(data)}
    for number, text in enumerate(STACK.splitlines(), before + 1):
        assert found[text].line in (number, None)
        assert data[found[text].offset :].startswith(text)


def test_borders_of_chunks_cut_nothing() -> None:
    """The stack is moved over the border byte by byte."""
    for shift in range(-len(STACK) - 2, 3):
        data = b"x" * (CHUNK + shift - 1) + b"\n" + STACK
        assert STACK.splitlines() == [line.data for line in lines(data)][-len(STACK.splitlines()) :]


def test_a_slow_stream_gives_the_same_lines() -> None:
    """How much comes at once changes nothing."""
    data = NOISE * 5 + STACK + NOISE * 40 + STACK
    assert [line.data for line in relevant_lines(Slow(data))] == [line.data for line in lines(data)]


def test_behind_the_counted_part_only_offsets_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting lines of gigabytes would take longer than searching them."""
    monkeypatch.setattr(scan, "THOROUGH", CHUNK)
    data = NOISE * (3 * CHUNK // len(NOISE)) + STACK
    found = lines(data)
    assert found[-1].line is None
    assert data[found[-1].offset :] == b" </TASK>\n"


def test_stacks_of_other_forms_keep_the_search_thorough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump of crash has no "+0x"; its beginning tells."""
    monkeypatch.setattr(scan, "THOROUGH", CHUNK)
    crash = b'PID: 1  TASK: ffff8813e11f4600  CPU: 1  COMMAND: "a"\n'
    crash += b" #0 [ffff8813dedfb938] schedule at ffffffff8173\n"
    data = crash + NOISE * (3 * CHUNK // len(NOISE)) + crash
    assert sum(b"COMMAND" in line.data for line in lines(data)) == 2


def test_a_line_without_an_end_is_cut() -> None:
    """A gigabyte without a newline is one line, of which the beginning is kept."""
    found = lines(b"+0x" * CHUNK)
    assert max(len(line.data) for line in found) <= MAX_RAW_LINE


def test_memory_stays_constant() -> None:
    """100 MiB of stacks need no more memory than 10 MiB."""

    class Endless(io.RawIOBase):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.left = size

        def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]
            block = (STACK + NOISE * 200)[: min(len(buffer), self.left)]
            buffer[: len(block)] = block
            self.left -= len(block)
            return len(block)

    def peak(size: int) -> int:
        tracemalloc.start()
        for _ in relevant_lines(Endless(size)):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(2 << 20), peak(20 << 20)
    assert large < small * 1.2
