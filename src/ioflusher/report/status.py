"""The IO_FLUSHER state of processes, for programs: one record a process, and in which order."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ioflusher.kernel.capability import CAP_IPC_LOCK, CAP_SYS_NICE, CAP_SYS_RESOURCE
from ioflusher.kernel.coverage import Coverage
from ioflusher.kernel.task import Policy
from ioflusher.kernel.task_flags import PF_IO_FLUSHER
from ioflusher.machine.process import Process

# What the state, locked memory and real-time scheduling need.
CAPABILITIES = {
    "CAP_SYS_RESOURCE": CAP_SYS_RESOURCE,
    "CAP_IPC_LOCK": CAP_IPC_LOCK,
    "CAP_SYS_NICE": CAP_SYS_NICE,
}

_REALTIME = (Policy.FIFO, Policy.RR, Policy.DEADLINE)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How threads of a process are scheduled, and how many of them so."""

    policy: Policy
    priority: int
    nice: int
    threads: int

    @property
    def urgency(self) -> tuple[bool, int, int]:
        """A key that sorts what runs first last."""
        return self.policy in _REALTIME, self.priority, -self.nice


def coverage(process: Process) -> Coverage:
    """Of all its threads that are not dead, the kernel's workers among them."""
    return Coverage(process.pid, process.living)


def scheduling(process: Process) -> list[Schedule]:
    """How its living threads are scheduled, the most urgent first."""
    counts = Counter([(thread.policy, thread.priority, thread.nice) for thread in process.living])
    kinds = [Schedule(*kind, threads) for kind, threads in counts.items()]
    return sorted(kinds, key=lambda kind: kind.urgency, reverse=True)


def held_capabilities(process: Process) -> list[str] | None:
    """Those of CAPABILITIES that are in its effective set; None for unknown."""
    sets = process.capabilities
    if sets is None:
        return None
    return [name for name, number in CAPABILITIES.items() if sets.has(number)]


def _known(value: int | None) -> tuple[bool, int]:
    """A key by which what is unknown comes before every known value."""
    return (value is not None, value or 0)


SORT_KEYS: dict[str, Callable[[Process], Any]] = {
    "pid": lambda process: process.pid,
    "name": lambda process: process.comm,
    "covered": lambda process: coverage(process).share,
    "threads": lambda process: len(process.living),
    "half": lambda process: coverage(process).half_set,
    "locked": lambda process: _known(process.locked_kib),
    "swapped": lambda process: _known(process.swapped_kib),
    "resident": lambda process: _known(process.resident_kib),
    "oom": lambda process: _known(process.oom_score_adj),
    "sched": lambda process: max((kind.urgency for kind in scheduling(process)), default=(False, 0, -20)),
}


def sorted_by(processes: Iterable[Process], key: str) -> list[Process]:
    """In the order of a key of SORT_KEYS, with - before it the largest first; by number where it is equal."""
    by_number = sorted(processes, key=SORT_KEYS["pid"])
    return sorted(by_number, key=SORT_KEYS[key.lstrip("+-")], reverse=key.startswith("-"))


def status_record(process: Process) -> dict[str, Any]:
    """The process as `ioflusher status --json` prints it."""
    counts = coverage(process)
    both = PF_IO_FLUSHER
    return {
        "pid": process.pid,
        "comm": process.comm,
        "threads": [
            # not thread.io_flusher: there may be tens of thousands, and a property costs a call
            {"tid": t.tid, "comm": t.comm, "flags": t.flags, "io_flusher": t.flags & both == both}
            for t in process.threads
        ],
        "ppid": process.ppid,
        "uid": process.uid,
        "threads_living": len(counts.threads),
        "threads_covered": counts.covered,
        "threads_half_set": counts.half_set,
        "locked_kib": process.locked_kib,
        "swapped_kib": process.swapped_kib,
        "resident_kib": process.resident_kib,
        "oom_score_adj": process.oom_score_adj,
        "scheduling": [
            {"policy": kind.policy, "priority": kind.priority, "nice": kind.nice, "threads": kind.threads}
            for kind in scheduling(process)
        ],
        "capabilities": held_capabilities(process),
    }
