"""The text of /proc/PID/stat (fs/proc/array.c, do_task_stat); the PF_* bits are `ioflusher.kernel.flags`."""

from dataclasses import dataclass

from ioflusher.kernel.flags import (
    PF_IO_FLUSHER,
    PF_IO_WORKER,
    PF_KTHREAD,
    PF_LESS_THROTTLE,
    PF_LOCAL_THROTTLE,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    PF_USER_WORKER,
    TaskFlags,
)

__all__ = [
    "PF_IO_FLUSHER",
    "PF_IO_WORKER",
    "PF_KTHREAD",
    "PF_LESS_THROTTLE",
    "PF_LOCAL_THROTTLE",
    "PF_MEMALLOC",
    "PF_MEMALLOC_NOFS",
    "PF_MEMALLOC_NOIO",
    "PF_USER_WORKER",
    "TaskFlags",
    "TaskStat",
    "parse_stat",
    "split_stat",
]


@dataclass(frozen=True, slots=True)
class TaskStat:
    """The first nine fields of a task's stat file, and how it is scheduled.

    Attributes:
        pid: the number of the thread (in /proc/PID/task/TID/stat the TID).
        comm: its name, any bytes but NUL, at most 15 for a user thread.
        state: one letter: R S D T t Z X I ...
        ppid, pgrp, session, tty_nr, tpgid: as proc(5) tells them.
        flags: `task->flags`.
        nice: field 19, -20 to 19.
        rt_priority: field 40, 1 to 99; 0 for a task that is not real-time.
        policy: field 41, SCHED_* of include/uapi/linux/sched.h; None where the line ends before it.
    """

    pid: int
    comm: bytes
    state: str
    ppid: int
    pgrp: int
    session: int
    tty_nr: int
    tpgid: int
    flags: TaskFlags
    nice: int = 0
    rt_priority: int = 0
    policy: int | None = None


# Where split_stat() has the fields that proc(5) numbers 3, 4, 9, 19, 40 and 41.
STATE, PPID, FLAGS, NICE, RT_PRIORITY, POLICY = 0, 1, 6, 16, 37, 38


def split_stat(stat: bytes) -> tuple[bytes, list[bytes]]:
    """The name in a stat line, and the fields after it from the state to the policy; the cheap way.

    Raises:
        ValueError: where the text is not such a line.
    """
    # A name may hold spaces, newlines and parentheses: it ends at the last parenthesis of the text.
    opening, closing = stat.find(b"("), stat.rfind(b")")
    fields = stat[closing + 1 :].split(None, POLICY + 1)  # what is left of the line is the last of them
    if not 0 < opening < closing or len(fields) < 7:
        raise ValueError(f"expected 'PID (comm) state' and six numbers or more, found {stat[:80]!r}")
    return stat[opening + 1 : closing], fields


def parse_stat(stat: bytes | str) -> TaskStat:
    """The record in the text of /proc/PID/stat or /proc/PID/task/TID/stat.

    Raises:
        ValueError: where the text is not such a line.
    """
    line = stat.encode("utf-8", "surrogateescape") if isinstance(stat, str) else stat
    comm, fields = split_stat(line)
    ppid, pgrp, session, tty_nr, tpgid, flags = map(int, fields[1:7])
    has_policy = len(fields) > POLICY
    return TaskStat(
        pid=int(line[: line.index(b"(")]),
        comm=comm,
        state=fields[STATE].decode("ascii"),
        ppid=ppid,
        pgrp=pgrp,
        session=session,
        tty_nr=tty_nr,
        tpgid=tpgid,
        flags=TaskFlags(flags),
        nice=int(fields[NICE]) if len(fields) > NICE else 0,
        rt_priority=int(fields[RT_PRIORITY]) if has_policy else 0,
        policy=int(fields[POLICY]) if has_policy else None,
    )
