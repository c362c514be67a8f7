"""The short way for most lines changes nothing: the long way makes nothing of what it passes over."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernlog.benchmark import NOISE
from tests.kernlog.test_fuzz import TRIGGERS

from ioflusher.kernlog.reading.console import Reader
from ioflusher.kernlog.reading.lines import parse_line
from ioflusher.kernlog.reading.noise import MAX_SHAPES, is_noise
from ioflusher.kernlog.reading.scan import RawLine
from ioflusher.kernlog.records import Record

LOGS = [path.read_bytes() for path in sorted((Path(__file__).parent / "logs").glob("*.txt"))]
LINES = sorted({line for log in LOGS for line in log.splitlines()})
STAMP = b"[  120.000000] "


def read(lines: list[bytes], short: bool) -> list[Record]:
    reader = Reader()
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        raw = RawLine(line, number, number)
        if not (short and reader.passes(raw.data)):
            records += reader.feed(raw)
    return [*records, *reader.finish()]


def test_every_log_is_read_alike_on_both_ways() -> None:
    """All of them one after the other, as they are, and stamped as the kernel's own console."""
    for log in LOGS:
        lines = log.split(b"\n")
        assert read(lines, True) == read(lines, False)
    stamped = [STAMP + line for line in LINES]
    assert read(stamped, True) == read(stamped, False)


# what a line may change: it stands alone, in a stack, or before one
CONTEXTS = (
    ((), ()),
    ((b"INFO: task a:1 blocked for more than 9 seconds.", b" schedule+0x1/0x2"), (b" down_read+0x1/0x2",)),
    ((b"task:a state:D stack:0 pid:1",), (b" schedule+0x1/0x2", b" down_read+0x1/0x2")),
)
INERT = STAMP + b"usb: some new device was found"


def changes(line: bytes) -> bool:
    """Whether a line makes a difference in one of the contexts, read the long way."""
    for before, after in CONTEXTS:
        around = ([STAMP + one for one in before], [STAMP + one for one in after])
        if read([*around[0], line, *around[1]], False) != read([*around[0], INERT, *around[1]], False):
            return True
    return False


def test_a_line_that_changes_something_is_no_noise() -> None:
    """Every line of every log, with its numbers and without."""
    for line in {re.sub(rb"\d+", b"12", line) for line in LINES}:
        text = parse_line(STAMP + line).text
        if changes(STAMP + line):
            assert not is_noise(text), line
            assert not is_noise(re.sub(r"\d", "", text)), line


AROUND = ((b"", b""), (b"x ", b""), (b"", b" x"))
# digits come and go, since those are what one shape may have or not
numbered = st.builds(
    lambda line, digits: STAMP + re.sub(rb"\d+", lambda _: digits, line),
    st.sampled_from(
        [*LINES, *TRIGGERS, *(b"x " + one for one in TRIGGERS), *(one + b" x" for one in TRIGGERS)]
    ),
    st.sampled_from([b"", b"0", b"12", b"0x", b"345678"]),
)


@given(st.lists(st.one_of(st.sampled_from([STAMP + line for line in LINES]), numbered), max_size=40))
@settings(max_examples=300, deadline=None)
def test_lines_that_differ_in_numbers_are_read_alike_on_both_ways(lines: list[bytes]) -> None:
    """Also where the first of them said nothing, and whatever was open when they came."""
    twice = [*lines, *lines]
    assert read(twice, True) == read(twice, False)


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_known_by_its_shape(kind: bytes) -> None:
    """Once one such line was read, others are passed over, between stacks and in one."""
    reader = Reader()
    lines = [(kind % (number, number, number, number)).rstrip() for number in (1, 23, 456)]
    assert not reader.passes(lines[0])
    assert list(reader.feed(RawLine(lines[0], 1, 0))) == []
    assert reader.passes(lines[1])
    list(reader.feed(RawLine(STAMP + b"INFO: task x:1 blocked for more than 120 seconds.", 2, 1)))
    assert reader.passes(lines[2])


def test_frames_of_an_open_stack_go_the_short_way() -> None:
    """A stack's frames are most lines that are read at all."""
    reader = Reader()
    frame = STAMP + b" schedule+0x1/0x2"
    assert not reader.passes(frame)
    list(reader.feed(RawLine(STAMP + b"task:x state:D stack:0 pid:1", 1, 0)))
    assert reader.passes(frame)


# of each word a line that says something, and has no other word that would save it
TELLING = (
    "Kernel panic - not syncing: so it was",
    "Out of memory: Kill process 12 (x) score 9",
    "python invoked oom-killer: gfp_mask=0xd0",
    "INFO: task a:1 blocked for more than 120 seconds.",
    "see the hard LOCKUP of this machine, and a lockup",
    "rcu: INFO: rcu_sched detected stalls on CPUs",
    "x: page allocation failure: order:0, mode:0",
    "x: page allocation stalls for 10s and more",
    "XFS: x(1) possible memory allocation deadlock in kmem",
    "nfs: server a.b not responding, still trying",
    "blk_update_request: I/O error, dev sda, sector 1",
    "block nbd0: Connection timed out, retrying it",
    "connection1:0: detected conn error (1022) now",
    "session1: session recovery timed out after 9 secs",
    "sd 0:0:0:0: rejecting I/O to offline device now",
    "nvme nvme0: I/O 1 QID 2 timeout, aborting",
    "sd 0:0:0:0: some task abort: SUCCESS here",
    "Node 0 DMA32 free:1kB min:2kB low:3kB",
    "one held: (&a){+.+.}, x and y",
)


@pytest.mark.parametrize("line", TELLING)
def test_what_reports_something_is_no_noise(line: str) -> None:
    """Nor what would with other numbers."""
    assert not is_noise(line)
    assert not is_noise(re.sub(r"\d", "", line))


@pytest.mark.parametrize(
    "line",
    [
        *(
            "of that: f+0x1/0x2 and so",
            "[<c0>] (schedule) from [<c1>] (x) and",
            "(schedule) from (x) and so on",
        ),
        *("schedule at ffff and so on", "see it at: there or not", "and so on #1 [ff] schedule"),
        *("schedule mm/x.c:12 and so on", "schedule mm/x.h:12 and so on", "schedule mm/x.S:12 and so on"),
        *("or that task:a and so on", "Task name: a b [affinity: f]", "one more with state:D in it"),
        *("CPU: 1 Comm: x or so", "and so on, PID: 1 it is", "and so on, a pid: 1 it is"),
        *("TID: 12 or any other", "and tid: 12 or any other", "see COMMAND: or so it says"),
        *("this is /proc/1/stack of x", "this is a Call Trace: of it", "this is /proc/1/comm : x"),
        *("for more than 120 seconds now", "Freed by them or others", "and its related work creation: is"),
        *("page last free pid and so", "Uninit was created at it", "and ALLOC: PFN and so on"),
        *("x D 1 (NOTLB) or more", "possible circular locking of it", "an inconsistent lock state of it"),
        *("a-safe lock order of it", "Chain exists of: a or b", "the existing dependency chain (is"),
        *("inconsistent {a} usage of it", "Possible unsafe scenario of it", "a BUG: of this kind here"),
        *(
            "Unable to handle kernel paging",
            "Internal error: Oops: 5 it is",
            "a general protection fault: of it",
        ),
        *("a WARNING: of this kind here", "it was Not tainted 5.10.0 then", "Linux version 5.10.0 of it"),
        *(
            "its Workqueue: a b and c",
            "and RIP: 0010:x of it",
            "and </IRQ> of all this",
            "and </NMI> of all this",
        ),
        *(
            "and <TASK> of all this",
            "and <EOI> of all this",
            "and Code: 0f of it",
            "---[ end trace of all this",
        ),
        *(
            'see "MESSAGE" : [ of it',
            "Call Trace:",
            " ? foo+0x1/0x2",
            "name",
            '"swapper"',
            "]:",
            "?",
            "a 1  2 3",
        ),
        *(" [...]", "and so on and on ...", "a lot of it \u2026", "  --- 8< --- a cut: Snip ---"),
        " ``` and that is it",
    ],
)
def test_what_belongs_to_a_stack_is_no_noise(line: str) -> None:
    """Frames, heads, lockdep's words, marks; a name alone or in quotes, doubt, numbers at the end."""
    assert not is_noise(line)
    assert not is_noise(re.sub(r"\d", "", line))


def test_shapes_are_bounded() -> None:
    """A log of nothing but different lines takes no more memory than any other."""
    reader = Reader()
    for number in range(MAX_SHAPES + 100):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        list(reader.feed(RawLine(STAMP + f"usb: some new {word} device was found".encode(), None, number)))
    assert not reader.passes(STAMP + f"usb: some new {word} device was found".encode())
    assert reader.passes(STAMP + b"usb: some new bc device was found")


def test_rows_of_a_list_of_processes_are_no_noise() -> None:
    """Neither those that show it by themselves nor those below a head, however often their shape came."""
    aux = STAMP + b"root      2787  0.0  0.0      0     0 ?        D    May11   0:02 [eio_clean_threa]"
    columns = [STAMP + b"1 D some -1 word", STAMP + b"PID S WCHAN NICE COMM", STAMP + b"2 D some -1 word"]
    frame = STAMP + b"[<0>] __fuse_simple_request+0xd8/0x2c0"
    for lines in ([aux, frame, aux, frame], [INERT, aux, INERT, frame], [*columns, frame, *columns, frame]):
        assert read(lines, True) == read(lines, False)


@pytest.mark.parametrize("waiting", [b"down_read", b" down_read+0x1/0x2=20="])
def test_a_frame_comes_behind_what_is_still_unread(waiting: bytes) -> None:
    """A name alone, which may become a frame, and a line of which a mail may have the rest."""
    texts = (b"task:a state:D stack:0 pid:1", b" schedule+0x1/0x2", waiting, b" ext4_sync_file+0x1/0x2")
    lines = [STAMP + text for text in texts]
    assert read(lines, True) == read(lines, False)


LOCKDEP = (
    b"WARNING: possible circular locking dependency detected",
    b"-> #1 (fs_reclaim){+.+.}-{0:0}:",
    b" fs_reclaim_acquire+0x1/0x2",
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((b"nbd-server      D",), (b"    0    77      1 0x00000080", b" down_read+0x1/0x2")),
        (LOCKDEP, (b" down_read+0x1/0x2",)),
    ],
    ids=["a head that a mail broke", "a report of lockdep"],
)
def test_noise_parts_what_the_line_before_and_behind_it_say(
    before: tuple[bytes, ...], after: tuple[bytes, ...]
) -> None:
    """It is no noise there: a head's rest stands right behind, and lockdep's stacks have lines between."""
    noise = b"usb: some new device was found"
    lines = [STAMP + text for text in (noise, *before, noise, *after)]
    assert read(lines, True) == read(lines, False)
