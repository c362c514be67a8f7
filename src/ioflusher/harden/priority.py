"""Nice values and I/O priorities."""

import os
from enum import Enum

from ioflusher.harden.errors import HardenError, denied
from ioflusher.kernel.syscalls import ioprio_set

NICE_MIN, NICE_MAX = -20, 19
IO_LEVEL_MAX = 7

# include/uapi/linux/ioprio.h
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


class IoClass(Enum):
    """The I/O scheduling classes, include/uapi/linux/ioprio.h."""

    REALTIME = 1
    BEST_EFFORT = 2
    IDLE = 3


def set_nice(value: int) -> None:
    """Set the process's nice value: -20 is served first, 19 last.

    Raises:
        HardenError: out of range, or lower than allowed without CAP_SYS_NICE.
    """
    if not NICE_MIN <= value <= NICE_MAX:
        raise HardenError(f"a nice value lies between {NICE_MIN} and {NICE_MAX}, found {value}")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError as error:
        raise denied(
            f"set the nice value to {value}",
            "CAP_SYS_NICE or a limit RLIMIT_NICE of that height",
            error,
            "systemd Nice=, docker run --cap-add SYS_NICE",
        ) from error


def set_io_priority(io_class: IoClass, level: int = 4) -> None:
    """Set the calling thread's I/O class and level (0 first, 7 last; the idle class has none).

    Threads and children started later inherit it.

    Raises:
        HardenError: out of range, or for the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE.
    block/ioprio.c.
    """
    if not 0 <= level <= IO_LEVEL_MAX:
        raise HardenError(f"an I/O priority level lies between 0 and {IO_LEVEL_MAX}, found {level}")
    value = io_class.value << _IOPRIO_CLASS_SHIFT | (0 if io_class is IoClass.IDLE else level)
    try:
        ioprio_set(_IOPRIO_WHO_PROCESS, 0, value)
    except OSError as error:
        raise denied(
            f"set the I/O class {io_class.name.lower()}",
            "CAP_SYS_ADMIN, or CAP_SYS_NICE since 5.14, for the real-time class",
            error,
            "systemd IOSchedulingClass= and IOSchedulingPriority=",
        ) from error
