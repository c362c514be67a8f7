"""One stack in every form in which a log may carry it: the same answer from each, read as a user's file."""

import bz2
import gzip
import json
import lzma
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.needs import need

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.fleet import Options, diagnose_file
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.records import Source

LOG = Path(__file__).parent / "logs" / "pos_nbd_xfs_inode_write.txt"


def messages() -> list[tuple[float, str]]:
    """The log's lines as the kernel printed them: seconds, text."""
    found = (re.match(r"\[ *([\d.]+)\] ?(.*)", line) for line in LOG.read_text("utf-8").splitlines())
    return [(float(line[1]), line[2]) for line in found if line]


def lines(form: str) -> str:
    """Each message in a form; `us` is microseconds."""
    return "".join(
        form.format(s=seconds, us=int(seconds * 1e6), m=text, i=number) + "\n"
        for number, (seconds, text) in enumerate(messages())
    )


def journal_export() -> str:
    field = "__CURSOR=s=a;i={i}\n_TRANSPORT=kernel\nPRIORITY=3\n_SOURCE_MONOTONIC_TIMESTAMP={us}\n"
    return lines(field + "MESSAGE={m}\n_HOSTNAME=box\n")


def journal_json(indent: int | None = None, before: str = "") -> str:
    entries = ({"__CURSOR": "x", "MESSAGE": text, "_TRANSPORT": "kernel"} for _, text in messages())
    return "".join(before + json.dumps(entry, indent=indent) + "\n" for entry in entries)


FORMS = {
    "dmesg": "[{s:12.6f}] {m}",
    "dmesg, calling thread": "[{s:12.6f}][ T1026] {m}",
    "dmesg, calling processor": "[{s:12.6f}][    C1] {m}",
    "dmesg --ctime": "[Wed Nov 25 01:02:03 2026] {m}",
    "dmesg --time-format iso": "2026-11-25T01:02:03,123456+01:00 {m}",
    "dmesg --reltime": "[  +0.000123] {m}",
    "dmesg --show-delta": "[{s:12.6f} <    0.000002>] {m}",
    "dmesg --decode": "kern  :err   : [{s:12.6f}] {m}",
    "/dev/kmsg": "3,{i},{us},-;{m}",
    "netconsole": "6,{i},{us},-,ncfrag=0/20;{m}",
    "console with priorities": "<3>[{s:12.6f}] {m}",
    "console with colours": "\x1b[32m[{s:12.6f}]\x1b[0m \x1b[33m{m}\x1b[0m\x1b[K",
    "console, carriage returns": "[{s:12.6f}] {m}\r",
    "console, double spaced": "[{s:12.6f}] {m}\r\r\n",
    "mail, quoted printable": "[{s:12.6f}] {m}=20",
    "mail, quoted printable, hard blanks": "[{s:12.6f}]=A0{m}=0A=",
    "mail, quoted printable, cited": "> > [{s:12.6f}] {m}=20=20",
    "console recorded with time": "[2026-11-25 01:02:03] [{s:12.6f}] {m}",
    "journal short": "Nov 25 01:02:03 box kernel: {m}",
    "journal short-precise": "Nov 25 01:02:03.123456 box kernel: {m}",
    "journal short-iso": "2026-11-25T01:02:03+0100 box kernel: {m}",
    "journal short-full": "Wed 2026-11-25 01:02:03 UTC box kernel: {m}",
    "journal short-unix": "1700000000.123456 box kernel: {m}",
    "journal short-monotonic": "[{s:12.6f}] box kernel: {m}",
    "journal cat": "{m}",
    "rsyslog": "Nov 25 01:02:03 box kernel: [{s:12.6f}] {m}",
    "rsyslog, new times": "2026-11-25T01:02:03.123456+01:00 box kernel: [{s:12.6f}] {m}",
    "syslog protocol": "<6>1 2026-11-25T01:02:03.123456+01:00 box kernel - - - [{s:12.6f}] {m}",
    "a container's log": "2026-11-25T01:02:03.123456789Z stdout F [{s:12.6f}] {m}",
    "logcat": "11-25 01:02:03.456  1026  1026 E KERNEL  : [{s:12.6f}] {m}",
    "quoted in a mail": "> >> [{s:12.6f}] {m}",
}
TEXTS: dict[str, Callable[[], str]] = {
    "journal export": journal_export,
    "journal json": journal_json,
    "journal json-pretty": lambda: journal_json(8),
    "journal json-seq": lambda: journal_json(before="\x1e"),
    "journal json-sse": lambda: journal_json(before="data: "),
    "a container's json": lambda: "".join(json.dumps({"log": text + "\n"}) + "\n" for _, text in messages()),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
}


def only_episode(path: Path) -> Episode:
    result = diagnose_file(str(path), Options())
    assert result.trouble is None
    (episode,) = result.diagnosis.episodes
    return episode


def expect_the_same(path: Path) -> None:
    found, expected = only_episode(path), only_episode(LOG)
    assert found.recursion
    assert found.sentence == expected.sentence
    assert [step.frame for step in found.chain] == [step.frame for step in expected.chain]
    assert (found.tasks[0].comm, found.tasks[0].tid) == ("msgr-worker-1", 1026)


@pytest.mark.parametrize("form", FORMS)
def test_each_line_in_a_form(tmp_path: Path, form: str) -> None:
    """What the log put before each line makes no difference."""
    (tmp_path / "log").write_text(lines(FORMS[form]), "utf-8", newline="")
    expect_the_same(tmp_path / "log")


@pytest.mark.parametrize("form", TEXTS)
def test_each_message_in_a_record(tmp_path: Path, form: str) -> None:
    """Export formats carry a message a record."""
    (tmp_path / "log").write_text(TEXTS[form](), "utf-8")
    expect_the_same(tmp_path / "log")


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_log(tmp_path: Path, packer: str) -> None:
    """The first bytes tell how it is packed; its name does not matter."""
    (tmp_path / "log").write_bytes(PACKERS[packer](LOG.read_bytes()))
    expect_the_same(tmp_path / "log")


def test_a_log_packed_with_zstd(tmp_path: Path) -> None:
    """Python has no zstd before 3.14, the system's program does it."""
    program = need("zstd")
    subprocess.run([program, "-q", str(LOG), "-o", str(tmp_path / "log")], check=True, timeout=60)
    expect_the_same(tmp_path / "log")


def test_pykdump_prints_stacks_too() -> None:
    """crash's extension names the task with PID=, CPU= and CMD= and prints frames without sizes."""
    head = "    PID=1026  CPU=2 CMD=msgr-worker-1\n"
    frames = "".join(f"      #{number:<3} {name}+0x2a\n" for number, name in enumerate(PYKDUMP.split()))
    diagnosis = diagnose_log(
        (head + frames + "      #20  system_call_fastpath+0x16, 477 bytes of data\n").encode()
    )
    assert diagnosis.recursion
    assert diagnosis.episodes[0].chain[-1].frame.function == "system_call_fastpath"


@pytest.mark.parametrize(
    ("line", "comm"),
    [
        ("# cat /proc/$(pidof nbd-server)/stack", "nbd-server"),
        ("me@box:~$ sudo cat /proc/`pgrep -x -o nbd-server`/task/*/stack", "nbd-server"),
        ("# cat /proc/$(pgrep -f a-program-with-a-long-name)/stack", "a-program-with-"),
    ],
)
def test_a_shells_line_names_the_program(line: str, comm: str) -> None:
    """Whose number was asked for, as its stack was shown; a task's name has 15 characters."""
    (report,) = task_reports(f"{line}\n[<0>] io_schedule+0x1/0x2\n[<0>] swap_writepage+0x1/0x2\n".encode())
    assert (report.comm, report.source) == (comm, Source.PROC)


@pytest.mark.parametrize("offset", ["", "+42", "+0x2a"])
def test_crash_prints_offsets_where_asked(offset: str) -> None:
    """Its "bt", "bt -s" and "bt -sx"."""
    head = 'PID: 1026  TASK: ffff88e9c8ded100  CPU: 5   COMMAND: "msgr-worker-1"\n'
    form = " #{} [ffffb36648bc79a0] {}{} at ffffffffb72636e3\n"
    frames = "".join(form.format(number, name, offset) for number, name in enumerate(PYKDUMP.split()))
    assert diagnose_log((head + frames).encode()).recursion


PYKDUMP = (
    "__schedule schedule io_schedule wait_on_page_bit shrink_page_list shrink_inactive_list "
    "try_to_free_pages __alloc_pages_nodemask sk_page_frag_refill tcp_sendmsg sock_sendmsg"
)
HISTORY = (
    "write to 0xffffffff8b7174d8 of 8 bytes by task 6396 on cpu 103:",
    " read-write (marked) to 0xffff88804451d800 of 8 bytes by task 4821 on cpu 1:",
    "read to 0xffff88804451d800 of 8 bytes by interrupt on cpu 1:",
    "Freed by task 5:",
    "Second to last potentially related work creation:",
    "page last free pid 1 tgid 1 stack trace:",
    "Uninit was created at:",
    "  backtrace (crc 1234abcd):",
    "[1/387729] ALLOC: PFN:0xbffff~0xc0000 (1 page, 4KB) PID:68 [loop0] 00:09:46.3 (uptime)",
)


@pytest.mark.parametrize("head", HISTORY)
def test_history_is_no_wait(head: str) -> None:
    """Where a sanitizer says that memory was used, allocated or freed, nobody waits."""
    names = "xfs_buf_iowait xfs_bwrite xfs_reclaim_inode super_cache_scan shrink_slab do_try_to_free_pages "
    names += "__alloc_pages_slowpath kmem_cache_alloc lo_rw_aio loop_queue_work kthread_worker_fn kthread"
    frames = "".join(f"  {name}+0x2d0/0x344\n" for name in names.split())
    assert diagnose_log(("Call Trace:\n" + frames).encode()).recursion
    assert not diagnose_log(f"{head}\n{frames}".encode()).recursion
