"""What all rules share: the form of their answers, and words for what they read."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, View
from ioflusher.kernel.task import Thread
from ioflusher.support.text import counted

# of threads, files and the like that are named one by one
MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A finding before it carries its rule's name and reason; see `finding.AuditFinding`.

    Attributes:
        group: the process that it belongs with, where that is not its subject.
    """

    severity: Severity
    subject: Subject
    summary: str
    evidence: tuple[Evidence, ...]
    remedy: Remedy
    group: Subject | None = None


class RemedyStep(IntEnum):
    """When a rule's remedy is executed among those of the same daemon."""

    LIMIT = 0  # lift limits of memory: what comes later takes memory
    OOM_SCORE = 1  # keep the OOM killer off
    STATE = 2  # before memory is locked or swap taken off: the daemon serves what that reads back
    SWAP = 3  # lock memory, take swap off
    FILES = 4  # move files, start anew
    MACHINE = 5  # settings of the machine
    LOOK = 6  # look again


Judge = Callable[[View, Thresholds], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class AuditRule:
    """One rule.

    Attributes:
        name: its identifier.
        severity: the highest that it gives.
        title: what it looks for, one line.
        reason: why that matters, two sentences.
        details: what it reads, when its severity is less, and when it keeps silent.
        remedy: what to do, in general.
        judge: the rule itself, a pure function.
        remedy_step: when its remedy is executed among those of the same daemon.
        thresholds: names of the `Thresholds` that it compares with.
    """

    name: str
    severity: Severity
    title: str
    reason: str
    details: str
    remedy: str
    judge: Judge
    remedy_step: RemedyStep
    thresholds: tuple[str, ...] = ()


def evidence_of_service(daemon: AuditedDaemon) -> tuple[Evidence, ...]:
    """Why the process is taken for a daemon."""
    return tuple(
        Evidence(
            f"{target.service.role.value} of {target.name}",
            target.service.evidence + ("" if target.service.certain else " (one of several candidates)"),
        )
        for target in daemon.targets[:MOST_NAMED]
    )


def of_threads(daemon: AuditedDaemon, threads: Iterable[Thread]) -> tuple[Evidence, ...]:
    """The flags of so many threads, and how many more there are."""
    kept = tuple(threads)
    named = tuple(
        Evidence(
            f"/proc/{daemon.process.pid}/task/{thread.tid}/stat field 9",
            f"{thread.flags:#010x} {thread.comm}",
        )
        for thread in kept[:MOST_NAMED]
    )
    return (*named, *more(len(kept) - len(named), "thread"))


def more(number: int, noun: str) -> tuple[Evidence, ...]:
    """What is left out of a list of evidence."""
    return (Evidence("and", f"{counted(number, noun)} more"),) if number > 0 else ()


def known(value: object | None, unit: str = "") -> str:
    """A value with its unit, or "unknown"."""
    return "unknown" if value is None else f"{value}{unit}"


def unit_install(daemon: AuditedDaemon, options: str = "") -> str:
    """The command that puts `ioflusher run` in front of the daemon's service; ps names its unit."""
    return f'ioflusher unit --install {options}"$(ps -o unit= -p {daemon.process.pid})"'


def quoted(path: str) -> str:
    """A path for the shell."""
    return shlex.quote(path)
