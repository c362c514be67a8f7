"""A kernel's memory: what cannot be used is told, and what memory tells decides before any guess."""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.kernlog.stacks import DEFINED, log

from ioflusher.kernlog.diagnose import Diagnoser
from ioflusher.kernlog.diagnosis import Diagnosis
from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.fleet import Options, diagnose_records
from ioflusher.kernlog.judging.findings import Confidence, Kind
from ioflusher.kernlog.memory.edges import first_answer
from ioflusher.kernlog.memory.kernel import kernel_records, open_kernel
from ioflusher.kernlog.reading.console import parse_console, task_reports
from ioflusher.kernlog.records import DeviceServer, TaskReport

LOGS = Path(__file__).parent / "logs"
DUMP = os.environ.get("IOFLUSHER_VMCORE")
DEBUG_INFO = os.environ.get("IOFLUSHER_DEBUG_INFO")


def in_memory(log: str, device: str | None, servers: tuple[DeviceServer, ...]) -> Diagnosis:
    """The diagnosis of a log's stacks, as if a kernel's memory had told the device and who serves it."""
    diagnoser = Diagnoser()
    for server in servers:
        diagnoser.take(server)
    for record in parse_console((LOGS / log).read_bytes()):
        if isinstance(record, TaskReport):
            diagnoser.take(replace(record, pid=record.tid, device=device))
    return diagnoser.result()


def first_pid(log: str) -> int:
    """Of the log's first task, for a server that is the task itself."""
    records = parse_console((LOGS / log).read_bytes())
    return next(record.tid for record in records if isinstance(record, TaskReport) and record.tid)


NBD = "pos_nbd_xfs_inode_write.txt"
QUEUE = "neg_xfs_reclaim_queue.txt"


def test_a_process_that_waits_for_its_own_device_is_certain() -> None:
    """Both ends are known: the device that is waited for and the process that completes its requests."""
    served = DeviceServer("nbd0", first_pid(NBD), "msgr-worker-1")
    episode = in_memory(NBD, "nbd0", (served,)).episodes[0]
    assert (episode.recursion, episode.confidence, episode.device) == (True, Confidence.CERTAIN, "nbd0")
    assert any("IO_FLUSHER" in remedy for remedy in episode.remedies)


def test_an_ordinary_process_is_a_server_where_memory_says_so() -> None:
    """Its name need not be known: any program may serve a device."""
    assert not in_memory(QUEUE, None, ()).recursion
    served = DeviceServer("nbd3", first_pid(QUEUE), "anything")
    assert in_memory(QUEUE, "nbd3", (served,)).episodes[0].confidence is Confidence.CERTAIN


def test_a_daemon_that_waits_for_anothers_device_is_no_recursion() -> None:
    """A name alone made it one; memory shows that another process, or none, serves what it waits for."""
    assert in_memory(NBD, None, ()).recursion
    other = DeviceServer("nbd1", 4242, "qemu-nbd")
    episode = in_memory(NBD, "nbd1", (other,)).episodes[0]
    assert (episode.recursion, episode.kind) == (False, Kind.RECLAIM_BEHIND_DEVICE)
    assert "qemu-nbd (4242) serves" in episode.why
    assert "the kernel's own driver serves" in in_memory(NBD, "sda", (other,)).episodes[0].why


def test_an_owner_and_a_device_close_a_cycle_of_two() -> None:
    """The server waits for a lock, its owner's allocation for the server's device: memory names both."""
    diagnoser = Diagnoser()
    diagnoser.take(DeviceServer("nbd0", 7, "store"))
    waits = log("store", DEFINED["SLEEP"] + " mutex_lock ext4_file_write_iter vfs_write")
    allocates = log("hog", DEFINED["SWAP"] + DEFINED["FAULT"])
    (server,) = task_reports(waits)
    (owner,) = task_reports(allocates)
    diagnoser.take(replace(server, pid=7, tid=8, owner=("hog", 9)))
    diagnoser.take(replace(owner, pid=9, tid=9, device="nbd0"))
    first, second = diagnoser.result().episodes
    assert {first.confidence, second.confidence} == {Confidence.CERTAIN}
    edges = {(edge.waiter, edge.thing, edge.giver, edge.missing) for edge in first.edges}
    assert edges == {
        ("store (8)", "owned-lock", "hog (9)", None),
        ("hog (9)", "io", "store (8)", None),
    }
    assert edges == {(edge.waiter, edge.thing, edge.giver, edge.missing) for edge in second.edges}


def test_an_answer_is_the_innermost_that_can_be_read() -> None:
    """A variable that the compiler removed is passed over, a function's beginning is enough."""
    drgn = pytest.importorskip("drgn", reason="install the extra drgn to run this")

    class Frame(dict[str, object]):
        def __init__(self, name: str | None, **variables: object) -> None:
            super().__init__(variables)
            self.name = name

    def gone(value: object) -> str:
        raise drgn.ObjectAbsentError(str(value))

    table = (("wait_", "x", gone), ("wait_", "y", str), ("send", "y", lambda _: None), ("sub", "z", str))
    trace = [Frame(None), Frame("send", y=1), Frame("wait_on_it", x=1), Frame("submit", z=5)]
    assert first_answer(trace, table) == "5"
    assert first_answer([SimpleNamespace(name="other")], table) is None


def test_drgn_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user learns which extra to install."""
    monkeypatch.setitem(sys.modules, "drgn", None)
    with pytest.raises(LogUnreadableError, match="drgn, which is not installed") as caught:
        open_kernel(None, ())
    assert "ioflusher[drgn]" in (caught.value.hint or "")
    result = diagnose_records("x", lambda: kernel_records(lambda: open_kernel(None, ())), Options())
    assert "not installed" in (result.trouble or "")


def test_what_is_no_dump_is_told(tmp_path: Path) -> None:
    """A missing file, and a file of something else, each with its name."""
    pytest.importorskip("drgn", reason="install the extra drgn to run this")
    with pytest.raises(LogUnreadableError, match=r"cannot read .*missing: No such file"):
        open_kernel(tmp_path / "missing", ())
    (tmp_path / "text").write_text("no core" * 100)
    with pytest.raises(LogUnreadableError, match=r"cannot use .*text: ") as caught:
        open_kernel(tmp_path / "text", ())
    assert "-device vmcoreinfo" in (caught.value.hint or "")


@pytest.mark.dump
def test_a_frozen_machines_dump_is_certain() -> None:
    """The lab's scenario swap-on-nbd, dumped by QEMU while it hung (docs/diagnose.md says how)."""
    opened = partial(open_kernel, Path(str(DUMP)), (Path(str(DEBUG_INFO)),))
    result = diagnose_records("dump", partial(kernel_records, opened), Options())
    assert result.trouble is None
    first = result.diagnosis.episodes[0]
    assert (first.recursion, first.confidence, first.device) == (True, Confidence.CERTAIN, "nbd0")
    assert result.diagnosis.memory
