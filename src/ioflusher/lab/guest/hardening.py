"""Inside the guest: what the daemons have besides the state, put upon them from outside once they serve.

So it works for any daemon. What a daemon has done itself is left as it is and told. The state, too, is looked
at here: it is what the half and the scenario say, also where a daemon sets it of its own accord.
"""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.flag.threads import thread_states
from ioflusher.kernel.status import parse_status
from ioflusher.kernel.task import Bits, Thread
from ioflusher.lab.guest.processes import SetupFailed
from ioflusher.scenario.records import HardeningTable

ATTACH_DEADLINE_S = 20.0  # for threads that do not stop; a guest under emulation is slow
CHILD_FAILED = 1


def harden(table: HardeningTable, pids: Sequence[int], carriers: Collection[int]) -> tuple[str, ...]:
    """Give each daemon what the scenario says; what was done, in words, one for each thing.

    Args:
        table: what the scenario says.
        pids: the daemons; all but the first may have ended meanwhile.
        carriers: those of them that are to carry the state.

    Raises:
        SetupFailed: where something cannot be done.
    """
    done: list[str] = []
    for pid in pids:
        io_flusher = pid in carriers
        try:
            left_alone = io_flusher and table.state == "own"
            carries = io_flusher
            if left_alone:
                carries = any(thread.bits is Bits.BOTH for thread in thread_states(pid))
            else:
                done += _state(table, pid, io_flusher)
            if table.lock_memory:
                done.append(_lock(pid, carries))
            done += _schedule(table, pid)
        except (IoflusherError, OSError) as error:
            if pid != pids[0] and not Path(f"/proc/{pid}").exists():
                continue  # a child that has done its work, as iscsid's that looks for disks
            raise SetupFailed(f"hardening of the daemon {pid}: {error}") from error
    return tuple(done)


def bearers(which: str, threads: Sequence[Thread]) -> frozenset[int]:
    """The threads that are to carry the state in the half with it; who started last has the highest number.

    Raises:
        SetupFailed: where there are too few threads for that.
    """
    tids = frozenset(thread.tid for thread in threads)
    if which == "all":
        return tids
    if len(tids) < 2:
        raise SetupFailed(f'hardening.state "{which}" needs a daemon of several threads, it has one')
    return frozenset({min(tids)}) if which == "first-thread" else tids - {max(tids)}


def _state(table: HardeningTable, pid: int, io_flusher: bool) -> list[str]:
    """Set and clear the state where it is not as it should be."""
    threads = [thread for thread in thread_states(pid) if not thread.ended]
    if any(thread.kernel_thread for thread in threads):
        return []  # the kernel sets the flags of its threads itself
    bear = bearers(table.state, threads) if io_flusher else frozenset[int]()
    lacking = frozenset(thread.tid for thread in threads if thread.tid in bear and not thread.io_flusher)
    too_many = frozenset(
        thread.tid for thread in threads if thread.tid not in bear and thread.bits is not Bits.NONE
    )
    for state, tids in ((False, too_many), (True, lacking)):
        if tids:
            _put_state(pid, state, tids)
    if not lacking and not too_many:
        return []
    return [f"the state put on {len(bear)} of {len(threads)} threads of {_named(pid)}"]


def _put_state(pid: int, state: bool, tids: frozenset[int]) -> None:
    def put() -> str:
        from ioflusher.flag.attach import put_state

        put_state(pid, state, threads=tids, timeout=ATTACH_DEADLINE_S).require_complete()
        return ""

    in_child(put)


def _lock(pid: int, io_flusher: bool) -> str:
    """Have the process lock its memory, where it has not done so; how that went, in words."""
    status = parse_status(Path(f"/proc/{pid}/status").read_bytes())
    if status.locked_kib:
        return f"memory of {_named(pid)} locked by itself: {status.locked_kib // 1024} MiB"
    as_they_are = frozenset(
        thread.tid
        for thread in thread_states(pid)
        if not thread.ended and thread.bits is (Bits.BOTH if io_flusher else Bits.NONE)
    )

    def lock() -> str:
        from ioflusher.flag.attach import put_state

        outcome = put_state(pid, io_flusher, threads=as_they_are, lock_memory=True, timeout=ATTACH_DEADLINE_S)
        outcome.require_complete()
        memory = outcome.memory
        method = memory.method.name.replace("_", "-").lower() if memory and memory.method else ""
        return f"{method}: {memory.detail if memory else ''}"

    return f"memory of {_named(pid)} locked, {in_child(lock)}"


def _schedule(table: HardeningTable, pid: int) -> list[str]:
    """Real-time priority of every thread, and the OOM score."""
    done = []
    if table.realtime:
        threads = [thread.tid for thread in thread_states(pid) if not thread.ended]
        for tid in threads:
            os.sched_setscheduler(tid, os.SCHED_FIFO, os.sched_param(table.realtime))
        done.append(f"SCHED_FIFO {table.realtime} for {len(threads)} threads of {_named(pid)}")
    if table.oom_score_adj is not None:
        Path(f"/proc/{pid}/oom_score_adj").write_text(f"{table.oom_score_adj}\n")
        done.append(f"oom_score_adj {table.oom_score_adj} for {_named(pid)}")
    return done


def _named(pid: int) -> str:
    return f"{pid} ({Path(f'/proc/{pid}/comm').read_bytes().decode('utf-8', 'backslashreplace').strip()})"


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns, done in a child: the thread that traces would stay in our locked memory for good.

    Raises:
        SetupFailed: where it raised an error of ours or the system's.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = CHILD_FAILED
        try:
            try:
                said = work()
                status = 0
            except (IoflusherError, OSError) as error:
                said = str(error)
            os.write(writer, said.encode("utf-8", "backslashreplace")[:4096])
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read().decode("utf-8", "replace")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SetupFailed(said or "the program that should do it ended")
    return said
