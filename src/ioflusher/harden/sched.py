"""Scheduling: a real-time thread is not starved by its clients and may use part of the reserve."""

import os
from enum import Enum

from ioflusher.harden.errors import HardenError, denied


class RealtimePolicy(Enum):
    """The real-time scheduling policies, include/uapi/linux/sched.h."""

    FIFO = 1
    RR = 2


def set_realtime(policy: RealtimePolicy, priority: int) -> None:
    """Schedule the calling thread (and the threads and children it starts later) in real time.

    `priority` goes from 1 (lowest) to 99.

    Raises:
        HardenError: for a priority out of range, or without CAP_SYS_NICE where RLIMIT_RTPRIO is too small.
    kernel/sched/core.c, sched_setscheduler.
    """
    lowest, highest = os.sched_get_priority_min(policy.value), os.sched_get_priority_max(policy.value)
    if not lowest <= priority <= highest:
        raise HardenError(
            f"a priority of SCHED_{policy.name} lies between {lowest} and {highest}, found {priority}",
            hint="1 is enough to come before every ordinary thread",
        )
    try:
        os.sched_setscheduler(0, policy.value, os.sched_param(priority))
    except OSError as error:
        raise denied(
            f"schedule as SCHED_{policy.name} with priority {priority}",
            "CAP_SYS_NICE or a limit RLIMIT_RTPRIO of that height, and a cgroup with real-time run time",
            error,
            "systemd CPUSchedulingPolicy= and CPUSchedulingPriority=, docker run --cap-add SYS_NICE",
        ) from error
