"""Locked memory: page faults of a daemon are allocations too, and swap may be the daemon's own device."""

import resource

from ioflusher.harden.errors import HardenError, denied
from ioflusher.kernel.syscalls import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, mlockall


def lock_memory(*, prefault: bool = True) -> None:
    """Lock all memory of the process, present and future, into RAM (mlockall MCL_CURRENT | MCL_FUTURE).

    That brings all of it into memory at once, thread stacks that are never used included: right before the
    process serves anything, and not later (`kernel.lock_plan` has why). Without `prefault` it brings only
    what is mapped now; what is mapped later is locked page by page when it is touched (MCL_ONFAULT).

    A child of fork does not inherit the lock, and execve drops it.

    Raises:
        HardenError: without CAP_IPC_LOCK where RLIMIT_MEMLOCK is too small.
    mm/mlock.c.
    """
    try:
        if prefault:
            mlockall(MCL_CURRENT | MCL_FUTURE)
        else:
            mlockall(MCL_CURRENT)
            mlockall(MCL_FUTURE | MCL_ONFAULT)  # which leaves locked what is
    except OSError as error:
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
        raise denied(
            "lock memory",
            f"CAP_IPC_LOCK or a memory lock limit above the process's size (it is {limit})",
            error,
            "systemd LimitMEMLOCK=infinity, docker run --ulimit memlock=-1 or --cap-add IPC_LOCK",
        ) from error


def set_memory_lock_limit(size: int | None) -> None:
    """Set RLIMIT_MEMLOCK, soft and hard, to `size` bytes (None: no limit); kept across execve.

    Raises:
        HardenError: without CAP_SYS_RESOURCE where the hard limit would rise.
    """
    value = resource.RLIM_INFINITY if size is None else size
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (value, value))
    except (OSError, ValueError) as error:
        # The resource module raises ValueError for EPERM.
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        wanted = "unlimited" if size is None else f"{size} bytes"
        raise HardenError(
            f"cannot set the memory lock limit to {wanted}: {error}; the hard limit is {hard} bytes",
            errno=getattr(error, "errno", None),
            hint="raising the hard limit needs CAP_SYS_RESOURCE; systemd has LimitMEMLOCK=",
        ) from error
