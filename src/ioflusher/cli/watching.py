"""What `ioflusher watch` and `ioflusher export` do before they begin: go on in a machine without memory."""

import threading

from ioflusher.cli.messages import remark
from ioflusher.errors import IoflusherError

STACK_BYTES = 512 << 10  # of a thread: locked memory is there as a whole


def prepare() -> list[str]:
    """Have this program go on in a machine without memory, as far as it may; what it may not."""
    from ioflusher.flag import FlagError, set_io_flusher
    from ioflusher.harden import HardenError, lock_memory

    notes = []
    threading.stack_size(STACK_BYTES)
    # what is loaded late would be read from a disk when it is needed
    import rich.live
    import rich.table  # noqa: F401

    import ioflusher.report.watch_screen  # noqa: F401

    try:
        set_io_flusher(True)
    except FlagError as error:
        notes.append(f"this program itself goes on unprotected: {error}")
    try:
        lock_memory()
    except HardenError as error:
        notes.append(f"memory of this program is not locked: {error}")
    return notes


def swept() -> None:
    """Remove the tracefs instances that were left behind.

    Raises:
        IoflusherError: tracefs cannot be looked at.
    """
    from ioflusher.watch.instance import TRACEFS, sweep

    try:
        for name in sweep():
            remark(f"removed {TRACEFS}/instances/{name}")
    except OSError as error:
        raise IoflusherError(
            f"cannot look at {TRACEFS}/instances: {error.strerror}",
            errno=error.errno,
            hint="it takes root, and tracefs mounted there",
        ) from error
