"""The threads of a process, read as cheaply as they can be: a machine may have tens of thousands."""

import os

from ioflusher.kernel.task import FLAGS, NICE, POLICY, PPID, RT_PRIORITY, STATE, split_stat
from ioflusher.machine.process import Policy, Thread
from ioflusher.machine.tree import text_of

# SCHED_* of include/uapi/linux/sched.h, as the text has them
_POLICIES = {
    b"0": Policy.OTHER,
    b"1": Policy.FIFO,
    b"2": Policy.RR,
    b"3": Policy.BATCH,
    b"5": Policy.IDLE,
    b"6": Policy.DEADLINE,
    b"7": Policy.EXT,
}
_STAT_BYTES = 1024  # a line has at most 52 numbers of 20 digits; the last ones are not needed

GONE = (FileNotFoundError, ProcessLookupError)


def read_threads(directory: str, most: int) -> tuple[int, int, tuple[Thread, ...]]:
    """The parent's number, how many threads there are, and the first `most` of them by number.

    `directory` is the process's own below /proc. Threads that end meanwhile are left out.

    Raises:
        OSError: as the system says; FileNotFoundError or ProcessLookupError where the process is gone.
        ValueError: where a thread's stat line is none.
    """
    tasks = os.open(f"{directory}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = os.listdir(tasks)
        names.sort(key=int)
        ppid, threads = 0, []
        for name in names[:most]:
            try:
                descriptor = os.open(f"{name}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tasks)
            except GONE:
                continue
            try:
                stat = os.read(descriptor, _STAT_BYTES)
            except GONE:
                continue
            finally:
                os.close(descriptor)
            comm, fields = split_stat(stat)
            if len(fields) > POLICY:
                policy = _POLICIES.get(fields[POLICY], Policy.UNKNOWN)
                priority, nice = int(fields[RT_PRIORITY]), int(fields[NICE])
            else:
                policy, priority, nice = Policy.UNKNOWN, 0, 0
            ppid = int(fields[PPID])
            threads.append(
                Thread(
                    int(name),
                    text_of(comm),
                    fields[STATE].decode(),
                    int(fields[FLAGS]),
                    policy,
                    priority,
                    nice,
                )
            )
        return ppid, len(names), tuple(threads)
    finally:
        os.close(tasks)
