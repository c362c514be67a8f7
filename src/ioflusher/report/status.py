"""The IO_FLUSHER state of processes, for programs: one record a process, and in which order."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ioflusher.kernel.capability import CAP_IPC_LOCK, CAP_SYS_NICE, CAP_SYS_RESOURCE
from ioflusher.kernel.flags import PF_IO_FLUSHER
from ioflusher.machine.process import Policy, Process, Thread

# What the state, locked memory and real-time scheduling need.
CAPABILITIES = {
    "CAP_SYS_RESOURCE": CAP_SYS_RESOURCE,
    "CAP_IPC_LOCK": CAP_IPC_LOCK,
    "CAP_SYS_NICE": CAP_SYS_NICE,
}

_REALTIME = (Policy.FIFO, Policy.RR, Policy.DEADLINE)

SORT_KEYS: dict[str, Callable[[Process], Any]] = {
    "pid": lambda process: process.pid,
    "name": lambda process: process.comm,
    "covered": lambda process: covered(process) / (len(process.living) or 1),
    "threads": lambda process: len(process.living),
    "half": lambda process: half_set(process),
    "locked": lambda process: process.locked_kib or 0,
    "swapped": lambda process: process.swapped_kib or 0,
    "resident": lambda process: process.resident_kib or 0,
    "oom": lambda process: process.oom_score_adj or 0,
    "sched": lambda process: max((_urgency(thread) for thread in process.living), default=(0, 0, 0)),
}


def covered(process: Process) -> int:
    """How many of its living threads carry the state."""
    return sum(thread.io_flusher for thread in process.living)


def half_set(process: Process) -> int:
    """How many of its living threads carry one of the two bits alone."""
    return sum(thread.half_set for thread in process.living)


def scheduling(process: Process) -> list[tuple[Policy, int, int, int]]:
    """How its living threads are scheduled: policy, priority, nice and how many, the most urgent first."""
    threads = sorted(process.living, key=_urgency, reverse=True)
    counts = Counter((thread.policy, thread.priority, thread.nice) for thread in threads)
    return [(*kind, count) for kind, count in counts.items()]


def held_capabilities(process: Process) -> list[str] | None:
    """Those of CAPABILITIES that are in its effective set; None for unknown."""
    sets = process.capabilities
    if sets is None:
        return None
    return [name for name, number in CAPABILITIES.items() if sets.effective >> number & 1]


def sorted_by(processes: Iterable[Process], key: str) -> list[Process]:
    """In the order of a key of SORT_KEYS, with - before it the largest first; by number where it is equal."""
    by_number = sorted(processes, key=SORT_KEYS["pid"])
    return sorted(by_number, key=SORT_KEYS[key.lstrip("+-")], reverse=key.startswith("-"))


def status_record(process: Process) -> dict[str, Any]:
    """The process as `ioflusher status --json` prints it."""
    return {
        "pid": process.pid,
        "comm": process.comm,
        "threads": [
            {
                "tid": thread.tid,
                "comm": thread.comm,
                "flags": thread.flags,
                "io_flusher": thread.flags & PF_IO_FLUSHER == PF_IO_FLUSHER,
            }
            for thread in process.threads
        ],
        "ppid": process.ppid,
        "uid": process.uid,
        "threads_living": len(process.living),
        "threads_covered": covered(process),
        "threads_half_set": half_set(process),
        "locked_kib": process.locked_kib,
        "swapped_kib": process.swapped_kib,
        "resident_kib": process.resident_kib,
        "oom_score_adj": process.oom_score_adj,
        "scheduling": [
            {"policy": policy.value, "priority": priority, "nice": nice, "threads": count}
            for policy, priority, nice, count in scheduling(process)
        ],
        "capabilities": held_capabilities(process),
    }


def _urgency(thread: Thread) -> tuple[int, int, int]:
    return (thread.policy in _REALTIME, thread.priority, -thread.nice)
