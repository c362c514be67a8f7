"""The IO_FLUSHER state of the calling thread."""

import os
from errno import EINVAL, ENOSYS, EPERM
from pathlib import Path

from ioflusher.flag.errors import (
    FlagError,
    InvalidStateError,
    NotPermittedError,
    NotSupportedError,
    StateUnreadableError,
    not_permitted,
)
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.syscalls import prctl
from ioflusher.kernel.task import TaskFlags, parse_stat

OWN_STAT = "/proc/thread-self/stat"
OWN_STATUS = "/proc/thread-self/status"


def set_io_flusher(state: bool) -> None:
    """Put the calling thread into the IO_FLUSHER state (True) or take it out (False).

    The thread's memory allocations then never wait for I/O or enter a file system. Threads and children
    started later inherit the state; threads that exist already do not get it.

    Raises:
        NotPermittedError: without CAP_SYS_RESOURCE in the first user namespace.
        NotSupportedError: before Linux 5.6, and where a seccomp filter hides the call.
        InvalidStateError: for anything but True and False.
    kernel/sys.c, PR_SET_IO_FLUSHER.
    """
    if state is not True and state is not False:
        raise InvalidStateError(state)
    try:
        prctl(PR_SET_IO_FLUSHER, state)
    except OSError as error:
        verb = "set" if state else "clear"
        raise refused(error, f"{verb} the IO_FLUSHER state") from error


def get_io_flusher() -> bool:
    """Whether the calling thread is in the IO_FLUSHER state (carries both of its bits).

    Works without privilege: where the kernel refuses PR_GET_IO_FLUSHER, the task flags in /proc tell.

    Raises:
        StateUnreadableError: where /proc cannot be read either.
    kernel/sys.c, PR_GET_IO_FLUSHER; fs/proc/array.c.
    """
    try:
        return prctl(PR_GET_IO_FLUSHER) == 1
    except OSError:
        return own_task_flags().io_flusher


def own_task_flags() -> TaskFlags:
    """The calling thread's task flags, from /proc; needs no privilege.

    Raises:
        StateUnreadableError: where /proc is not mounted or may not be read.
    """
    try:
        return parse_stat(Path(OWN_STAT).read_bytes()).flags
    except OSError as error:
        raise StateUnreadableError(OWN_STAT, error) from error


def refused(error: OSError, action: str) -> FlagError:
    """What the kernel's refusal of a prctl of the calling thread means."""
    if error.errno == EPERM:
        try:
            return not_permitted(Path(OWN_STATUS).read_bytes(), action)
        except OSError:
            return NotPermittedError(f"not permitted to {action}: it needs CAP_SYS_RESOURCE")
    if error.errno in (EINVAL, ENOSYS):
        release = f"{os.uname().sysname} {os.uname().release}"
        return NotSupportedError(
            f"cannot {action}: the kernel must know PR_SET_IO_FLUSHER (Linux 5.6), this is {release}",
            errno=error.errno,
            hint="boot a kernel of 5.6 or later",
        )
    return FlagError(f"cannot {action}: {error.strerror}", errno=error.errno)
