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


def parse_stat(stat: bytes | str) -> TaskStat:
    """The record in the text of /proc/PID/stat or /proc/PID/task/TID/stat.

    Raises:
        ValueError: where the text is not such a line.
    """
    text = stat.encode("utf-8", "surrogateescape") if isinstance(stat, str) else stat
    # A name may hold spaces, newlines and parentheses: it ends at the last parenthesis of the text.
    head, closing, tail = text.rpartition(b")")
    pid, opening, comm = head.partition(b"(")
    fields = tail.split()
    if not (opening and closing) or len(fields) < 7:
        raise ValueError(f"expected 'PID (comm) state' and six numbers or more, found {text[:80]!r}")
    ppid, pgrp, session, tty_nr, tpgid, flags = map(int, fields[1:7])
    # fields[0] is field 3
    nice = int(fields[16]) if len(fields) > 16 else 0
    rt_priority, policy = (int(fields[37]), int(fields[38])) if len(fields) > 38 else (0, None)
    return TaskStat(
        pid=int(pid),
        comm=comm,
        state=fields[0].decode("ascii"),
        ppid=ppid,
        pgrp=pgrp,
        session=session,
        tty_nr=tty_nr,
        tpgid=tpgid,
        flags=TaskFlags(flags),
        nice=nice,
        rt_priority=rt_priority,
        policy=policy,
    )
