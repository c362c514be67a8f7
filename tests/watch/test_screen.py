"""The screen: every number in its place, unknown said to be unknown, and nothing that steers a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from ioflusher.kernel.stall import SelfWait
from ioflusher.report.watch_screen import screen, seconds, size
from ioflusher.watch.alarms import judge
from ioflusher.watch.record import Heading, ToldAlarm, WatchRecord
from ioflusher.watch.sample import (
    CountedBy,
    DeviceSample,
    MachineSample,
    MemorySample,
    PressureSample,
)
from tests.watch.samples import COVERED, KERNEL, NOIO, entries, sample, thread

HEADING = Heading("ioflusher-watch", 1, "host", "6.12", "2026-11-30T00:00:00Z")


def shown(
    now: MachineSample,
    *,
    stack: str | None = None,
    width: int = 200,
    heading: Heading = HEADING,
    height: int | None = None,
) -> str:
    """The screen as text, wide enough."""
    told = [(now.time, ToldAlarm(each, each.what, each.advice, stack)) for each in judge(None, now)]
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    console.print(screen(heading, WatchRecord(now), told, height=height))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def words(text: str, of: str) -> list[str]:
    """The words of the first line that begins with it."""
    return next(line for line in text.splitlines() if line.lstrip().startswith(of)).split()


def test_a_daemon() -> None:
    """Coverage, entries by flags, seconds, requests; without the threads that need no state."""
    now = sample(
        thread(11, reclaim=(entries(KERNEL, 3), entries(NOIO, 2)), reclaim_s=1.25, dirty_pauses=4),
        thread(12, flags=COVERED, reclaim=(entries(KERNEL, 1),), reclaim_s=0.5, dirty_paused_s=0.75),
        thread(13, aside=True),
    )
    daemon = replace(now.daemons[0], locked_kib=2048, swapped_kib=0)
    text = shown(replace(now, daemons=(daemon,)))
    assert words(text, "1/2") == ["1/2", "4", "2", "1.75s", "4", "0.75s", "0", "0.00s", "2", "MiB", "0"]
    assert "4 GFP_KERNEL" in text
    assert "2 GFP_NOIO" in text
    assert "10 nbd-server  NBD server of /dev/nbd0" in text


def test_memory() -> None:
    """Against its watermarks and limits."""
    memory = MemorySample(
        total_kib=1 << 20, free_kib=2 << 10, min_kib=3 << 10, low_kib=4 << 10, high_kib=5 << 10,
        dirty_kib=8 << 10, writeback_kib=0, dirty_limit_kib=8 << 10, dirty_background_kib=4 << 10,
        swap_total_kib=1 << 10, swap_free_kib=1 << 9,
    )  # fmt: skip
    pressure = (PressureSample("memory", "some", 12.0, 1.0), PressureSample("io", "full", 0.1, 1.0))
    text = shown(replace(sample(), memory=memory, pressure=pressure))
    assert "2 MiB (min 3 MiB, low 4 MiB, high 5 MiB)" in text
    assert "[################] 8 MiB, 0 under writeback, limit 8 MiB" in text
    assert "512 KiB of 1 MiB" in text
    assert "memory some 12 %" in text
    assert "io full" not in text


def test_unknown() -> None:
    """A question mark, and the reason."""
    bare = thread(reclaim_s=None, dirty_pauses=None, dirty_paused_s=None)
    now = replace(
        sample(bare),
        counted_by=CountedBy.SAMPLED,
        notes=("reclaim and throttling are only sampled: why",),
        devices=(DeviceSample("nbd0", None, None, None),),
    )
    text = shown(now)
    assert "sampled, not counted" in text
    assert "only sampled: why" in text
    assert words(text, "0/1")[1:] == ["0", "0", "?", "?", "?", "?", "?", "?", "?"]


def test_alarms() -> None:
    """The stall with its stack and what to do, what goes on in the row, and lost events."""
    held = thread(wait=SelfWait.DIRTY_THROTTLING, wait_s=7.4, dirty_pauses=9)
    now = replace(sample(held, oldest_s=8.0), lost=3)
    text = shown(now, stack="[<0>] balance_dirty_pages+0x3e7/0x9d0\n")
    assert "STALL: nbd-server (10), thread worker (11), is in dirty throttling while" in text
    assert "ioflusher rescue --plan /dev/nbd0" in text
    assert "[<0>] balance_dirty_pages+0x3e7/0x9d0" in text
    assert "dirty throttling, 1 thread, 7 s" in text
    assert "3 events lost" in text
    assert "no alarm so far" in shown(sample())


def test_a_console_of_80_columns() -> None:
    """No line of numbers or memory is folded there."""
    memory = MemorySample(*[999 << 10] * 12)
    held = thread(reclaim=(entries(KERNEL, 12345),), reclaim_s=99.99, dirty_pauses=12345, dirty_paused_s=99.9)
    now = sample(held, oldest_s=99.9)
    daemon = replace(now.daemons[0], locked_kib=123 << 10, swapped_kib=123 << 10)
    now = replace(now, memory=memory, daemons=(daemon,))
    narrow, wide = (shown(now, width=width).splitlines()[1:9] for width in (80, 200))
    assert [line.rstrip() for line in narrow] == [line.rstrip() for line in wide]
    assert words("\n".join(narrow), "0/1")[:2] == ["0/1", "12345"]


@pytest.mark.parametrize(
    ("hostname", "release", "begins"),
    [
        ("vm", "6.12", "vm  Linux 6.12  "),
        ("vm", "6.12.117+deb12-cloud-amd64", "vm  Linux 6.12.117+deb12-cloud-"),
        ("ip-10-0-0-12.eu-central-1.compute.internal", "6.12.117+deb12-cloud-amd64", "ip-10-0-0"),
    ],
)
def test_the_title_is_one_line(hostname: str, release: str, begins: str) -> None:
    """Of a long name the end is left out; when it was, who counted and what was lost are always there."""
    heading = replace(HEADING, hostname=hostname, release=release)
    for lost, told in ((0, ""), (3, ", 3 events lost")):
        now = replace(sample(), lost=lost)
        narrow, wide = (shown(now, width=width, heading=heading).splitlines() for width in (80, 200))
        assert wide[0].startswith(f"{hostname}  Linux {release}  ")
        assert narrow[0].startswith(begins[: 8 if lost else None])
        assert narrow[0].rstrip().endswith(f"counted by the kernel{told}")
        assert wide[0].split("  ")[2] in narrow[0]
        assert narrow[1].startswith("memory free")


@pytest.mark.parametrize("number", [2, 10])
def test_an_alarm_is_seen_beside_many_daemons(number: int) -> None:
    """On a console of 24 lines it stands before them where they would push it out."""
    held = thread(wait=SelfWait.DIRTY_THROTTLING, wait_s=7.4, dirty_pauses=9)
    now = sample(held, oldest_s=8.0)
    others = tuple(replace(now.daemons[0], pid=100 + each, threads=(thread(),)) for each in range(number - 1))
    now = replace(now, daemons=(*now.daemons, *others))
    lines = shown(now, width=80, height=24).splitlines()
    place = {what: next(n for n, line in enumerate(lines) if what in line) for what in ("STALL", "no I/O")}
    assert place["STALL"] + 2 < 24
    assert (place["STALL"] < place["no I/O"]) is (number == 10)
    anywhere = shown(now, width=80).splitlines()
    assert sorted(anywhere) == sorted(lines)
    assert "STALL" not in "".join(anywhere[: 6 + 2 * number])


def test_several_devices() -> None:
    """Their requests together, the oldest of all, and each that has some."""
    devices = (DeviceSample("sda", 1, 2, 1.5), DeviceSample("sdb", 1, 0, 0.0), DeviceSample("sdc", 1, 3, 7.0))
    now = sample()
    now = replace(now, devices=devices, daemons=(replace(now.daemons[0], devices=("sda", "sdb", "sdc")),))
    text = shown(now)
    assert words(text, "0/1")[6:8] == ["5", "7.00s"]
    assert "sda: 2, 1.50s" in text
    assert "sdc: 3, 7.00s" in text
    assert "sdb" not in text


def test_names_cannot_steer_the_terminal() -> None:
    """Names of processes and threads are anybody's."""
    bad = "\x1b[2J\u202e"
    now = sample(thread(comm=bad, wait=SelfWait.RECLAIM))
    now = replace(now, daemons=(replace(now.daemons[0], comm=bad, serves=bad),), notes=(bad,))
    text = shown(now, stack=bad)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J\\u202e" in text


def test_no_daemon() -> None:
    """Is said."""
    assert "no daemon in the I/O path was found" in shown(replace(sample(), daemons=()))


def test_sizes() -> None:
    """From KiB up."""
    assert [size(kib) for kib in (None, 0, 7, 2048, 3 << 19)] == ["?", "0", "7 KiB", "2 MiB", "1.5 GiB"]
    assert [seconds(value) for value in (None, 0.0, 1.256, 400.0)] == ["?", "0.00s", "1.26s", "400s"]
