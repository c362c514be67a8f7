"""The threads of a process, read as cheaply as they can be: a machine may have tens of thousands."""

import os

from ioflusher.kernel.task import Thread, parse_parent, parse_stat

_STAT_BYTES = 1024  # a line has 52 fields; the fields up to 41 fit, however long its numbers are

GONE = (FileNotFoundError, ProcessLookupError)


def read_threads(
    process: int, most: int, part: tuple[int, int] = (0, 1)
) -> tuple[int, int, tuple[Thread, ...]]:
    """The parent's number, how many threads there are, and the first `most` of them by number.

    `process` is a descriptor of its directory below /proc; `part` (n, m) takes from thread n on each m-th.
    Threads that end meanwhile are left out.

    Raises:
        OSError: as the system says; FileNotFoundError or ProcessLookupError where the process is gone.
        ValueError: where a thread's stat line is none.
    """
    tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=process)
    try:
        names = os.listdir(tasks)
        names.sort(key=int)
        threads: list[Thread] = []
        stat = b""
        for name in names[part[0] : most : part[1]]:
            try:
                descriptor = os.open(name + "/stat", os.O_RDONLY, dir_fd=tasks)
                try:
                    stat = os.read(descriptor, _STAT_BYTES)
                finally:
                    os.close(descriptor)
            except GONE:
                continue
            threads.append(parse_stat(stat))
        return parse_parent(stat) if threads else 0, len(names), tuple(threads)
    finally:
        os.close(tasks)
