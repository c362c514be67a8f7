"""The IO_FLUSHER state of the calling thread."""

import os

from ioflusher.flag.errors import FlagError, InvalidStateError, StateUnreadableError, refusal
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.syscalls import ZERO, prctl, prctl_raw
from ioflusher.kernel.task_flags import TaskFlags, parse_flags

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
        prctl(PR_SET_IO_FLUSHER, state)  # the arguments that it does not use must be zero
    except OSError as error:
        raise refused(error, f"{'set' if state else 'clear'} the IO_FLUSHER state") from error


def get_io_flusher() -> bool:
    """Whether the calling thread is in the IO_FLUSHER state (carries both of its bits).

    Works without privilege: where the kernel refuses PR_GET_IO_FLUSHER, the task flags in /proc are read.

    Raises:
        StateUnreadableError: where /proc cannot be read either.
    kernel/sys.c, PR_GET_IO_FLUSHER; fs/proc/array.c.
    """
    answer = prctl_raw(PR_GET_IO_FLUSHER, ZERO, ZERO, ZERO, ZERO)
    return own_task_flags().io_flusher if answer == -1 else answer == 1


def own_task_flags() -> TaskFlags:
    """The calling thread's task flags, from /proc; needs no privilege.

    Raises:
        StateUnreadableError: where /proc is not mounted or may not be read.
    """
    try:
        with open(OWN_STAT, "rb", buffering=0) as file:
            return parse_flags(file.read())
    except OSError as error:
        raise StateUnreadableError(OWN_STAT, error) from error


def refused(error: OSError, action: str) -> FlagError:
    """What the kernel's refusal of a prctl of the calling thread means."""
    try:
        with open(OWN_STATUS, "rb") as file:
            status = file.read()
    except OSError:
        status = b""
    system = os.uname()
    return refusal(error.errno or 0, action, system=f"{system.sysname} {system.release}", status=status)
