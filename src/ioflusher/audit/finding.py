"""Findings: what a rule says of one process, device or machine, with what it read and what to do."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is."""

    NOTE = "note"  # worth knowing; nothing stops for it alone
    WARNING = "warning"  # can stop a device together with something else, or slow it down badly
    ERROR = "error"  # a daemon can wait for itself

    @property
    def rank(self) -> int:
        """Its place in the order: 0 for a note, 2 for an error."""
        return _ORDER.index(self)

    def lowered(self, steps: int = 1) -> "Severity":
        """A lower one by so many steps, a note at the least."""
        return _ORDER[max(0, self.rank - steps)]


_ORDER = (Severity.NOTE, Severity.WARNING, Severity.ERROR)


class SubjectKind(Enum):
    """What a finding is about."""

    PROCESS = "process"
    DEVICE = "device"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about.

    Attributes:
        kind: one of three.
        name: the process's name, the device's path or mount point, the machine's name. As the machine has it:
            not safe for a terminal.
        pid: of a process, else None.
    """

    kind: SubjectKind
    name: str
    pid: int | None = None

    @property
    def words(self) -> str:
        """As "nbd-server (1234)", "/dev/nbd0"."""
        return self.name if self.pid is None else f"{self.name} ({self.pid})"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A fact that was read.

    Attributes:
        source: the file and field that it stands in, "/proc/7/status VmLck".
        said: what it said, "0 kB".
    """

    source: str
    said: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do.

    Attributes:
        words: one or two sentences.
        commands: for root's shell, in this order, each a whole line; they help at once.
        lasting: commands that keep it so over a restart.
        unit: lines for the section [Service] of the daemon's unit; they keep it so over a restart.
    """

    words: str
    commands: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that one rule found.

    Attributes:
        rule: the rule's identifier.
        severity: how bad it is here, which may be less than the rule's own.
        subject: what it is about.
        group: the process, device or machine whose findings it belongs with, in words: "nbd-server (1234)".
            Of a finding about a process, that process; of swap on a device, the daemon that serves it.
        summary: what was found, in one line.
        reason: why that matters, in two sentences.
        evidence: what was read.
        remedy: what to do.
    """

    rule: str
    severity: Severity
    subject: Subject
    group: str
    summary: str
    reason: str
    evidence: tuple[Evidence, ...]
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """What was found of one daemon, of a device without one, or of the machine.

    Attributes:
        name: as `AuditFinding.group` has it.
        serves: of a daemon, what it serves how: "NBD server of /dev/nbd0"; else empty.
        evidence: of a daemon, the facts that say so.
        findings: the worst first.
        remedy: of all of them together, each line once, in an order in which it can be executed: limits are
            lifted before memory is locked, the state is set before memory is locked or swap taken off.
    """

    name: str
    serves: str
    evidence: tuple[Evidence, ...]
    findings: tuple[AuditFinding, ...]
    remedy: Remedy

    @property
    def danger(self) -> tuple[int, ...]:
        """A key for sorting: how many errors, warnings and notes it holds."""
        numbers = Counter(finding.severity for finding in self.findings)
        return tuple(numbers[severity] for severity in reversed(_ORDER))


def joined(remedies: Iterable[Remedy]) -> Remedy:
    """Several remedies as one, in this order, each line once, where it stands first."""
    kept = tuple(remedies)
    return Remedy(
        words=" ".join(dict.fromkeys(remedy.words for remedy in kept)),
        commands=tuple(dict.fromkeys(line for remedy in kept for line in remedy.commands)),
        lasting=tuple(dict.fromkeys(line for remedy in kept for line in remedy.lasting)),
        unit=tuple(dict.fromkeys(line for remedy in kept for line in remedy.unit)),
    )


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that the configuration took out, with the reason that it gives."""

    finding: AuditFinding
    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What was looked at, so that "nothing found" means something.

    Attributes:
        processes, devices, mounts, swaps: how many the snapshot holds.
        daemons: the processes that serve something, as "nbd-server (1234): NBD server of nbd0".
        rules: identifiers of the rules that were asked.
        off: rules that the configuration switched off, each with the reason it gives.
    """

    processes: int
    devices: int
    mounts: int
    swaps: int
    daemons: tuple[str, ...]
    rules: tuple[str, ...]
    off: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit of one machine came to.

    Attributes:
        host: the machine's name.
        taken: when its snapshot was taken, ISO 8601.
        release: of its kernel.
        findings: the worst first.
        groups: the same findings by daemon, the most dangerous group first.
        suppressed: those that the configuration took out.
        looked: what was looked at.
    """

    host: str
    taken: str
    release: str
    findings: tuple[AuditFinding, ...]
    groups: tuple[FindingGroup, ...]
    suppressed: tuple[Suppressed, ...]
    looked: Looked

    @property
    def worst(self) -> Severity | None:
        """The highest severity found, None where nothing was."""
        return max((finding.severity for finding in self.findings), key=lambda s: s.rank, default=None)
