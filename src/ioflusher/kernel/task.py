"""A task's flags and the text of /proc/PID/stat.

`task->flags` is field 9 of /proc/PID/stat and /proc/PID/task/TID/stat (fs/proc/array.c, do_task_stat),
readable by everybody who may see the process. The bits are those of include/linux/sched.h.
"""

from dataclasses import dataclass

PF_MEMALLOC = 0x00000800
PF_MEMALLOC_NOFS = 0x00040000  # since 4.12, commit 7dea19f9ee63; before, the bit was PF_KSWAPD
PF_MEMALLOC_NOIO = 0x00080000  # since 3.9, commit 21caf2fc1931
# a37b0715ddf3 "mm/writeback: replace PF_LESS_THROTTLE with PF_LOCAL_THROTTLE" (5.8): the same bit, a new name
PF_LOCAL_THROTTLE = 0x00100000
PF_LESS_THROTTLE = PF_LOCAL_THROTTLE
PF_KTHREAD = 0x00200000

# kernel/sys.c, PR_IO_FLUSHER
PF_IO_FLUSHER = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE

# include/linux/sched.h of 6.1 and 6.12; a bit that is not here is shown as its number
_NAMES = {
    0x00000001: "PF_VCPU",
    0x00000002: "PF_IDLE",
    0x00000004: "PF_EXITING",
    0x00000008: "PF_POSTCOREDUMP",
    0x00000010: "PF_IO_WORKER",
    0x00000020: "PF_WQ_WORKER",
    0x00000040: "PF_FORKNOEXEC",
    0x00000080: "PF_MCE_PROCESS",
    0x00000100: "PF_SUPERPRIV",
    0x00000200: "PF_DUMPCORE",
    0x00000400: "PF_SIGNALED",
    PF_MEMALLOC: "PF_MEMALLOC",
    0x00001000: "PF_NPROC_EXCEEDED",
    0x00002000: "PF_USED_MATH",
    0x00004000: "PF_USER_WORKER",
    0x00008000: "PF_NOFREEZE",
    0x00020000: "PF_KSWAPD",
    PF_MEMALLOC_NOFS: "PF_MEMALLOC_NOFS",
    PF_MEMALLOC_NOIO: "PF_MEMALLOC_NOIO",
    PF_LOCAL_THROTTLE: "PF_LOCAL_THROTTLE",
    PF_KTHREAD: "PF_KTHREAD",
    0x00400000: "PF_RANDOMIZE",
    0x04000000: "PF_NO_SETAFFINITY",
    0x08000000: "PF_MCE_EARLY",
    0x10000000: "PF_MEMALLOC_PIN",
    0x80000000: "PF_SUSPEND_TASK",
}


class TaskFlags(int):
    """The PF_* bits of one task: an int that knows its names."""

    __slots__ = ()

    @property
    def io_flusher(self) -> bool:
        """Whether the task carries both bits that PR_SET_IO_FLUSHER sets, as PR_GET_IO_FLUSHER judges."""
        return self & PF_IO_FLUSHER == PF_IO_FLUSHER

    @property
    def kernel_thread(self) -> bool:
        """Whether the task belongs to the kernel itself."""
        return bool(self & PF_KTHREAD)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bits that are set, lowest bit first; a bit without a known name as 0x...."""
        bits = (1 << position for position in range(self.bit_length()))
        return tuple(_NAMES.get(bit, f"{bit:#010x}") for bit in bits if self & bit)

    def __repr__(self) -> str:
        return f"TaskFlags({int(self):#010x})"


@dataclass(frozen=True, slots=True)
class TaskStat:
    """The first nine fields of a task's stat file.

    Attributes:
        pid: the number of the thread (in /proc/PID/task/TID/stat the TID).
        comm: its name, any bytes but NUL, at most 15 for a user thread.
        state: one letter: R S D T t Z X I ...
        ppid, pgrp, session, tty_nr, tpgid: as proc(5) tells them.
        flags: `task->flags`.
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
    )
