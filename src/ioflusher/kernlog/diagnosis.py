"""The result of a diagnosis: episodes, and what else a log tells."""

from dataclasses import dataclass
from itertools import pairwise

from ioflusher.kernlog.judging.findings import Confidence, Kind
from ioflusher.kernlog.records import EventKind, task_name
from ioflusher.kernlog.stacks.waits import MarkedFrame


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task of an episode.

    Attributes:
        comm, pid, tid, state, blocked_seconds, line, offset: as in `TaskReport`.
        io_flusher: whether it carried the IO_FLUSHER state; None where the log does not print task_flags.
    """

    comm: str | None
    pid: int | None
    tid: int | None
    state: str | None
    blocked_seconds: int | None
    line: int | None
    offset: int
    io_flusher: bool | None

    @property
    def name(self) -> str:
        """The task in words: "msgr-worker-1 (1026)"."""
        return task_name(self.comm, self.tid, self.line)


@dataclass(frozen=True, slots=True)
class Link:
    """One edge of a cycle in words.

    Attributes:
        waiter: the task that waits.
        thing: what kind of thing it waits for, one of the tables' words, such as "transaction"; "owned-lock"
            for a lock whose owner the kernel names.
        waits: that thing in words.
        giver: the task that this is up to; the waiter itself in a cycle of one edge.
        gives: why it is; begins with "it" or "its", which stands for the giver.
        known: how sure the edge is.
        missing: what would make it surer, None for nothing.
    """

    waiter: str
    thing: str
    waits: str
    giver: str
    gives: str
    known: Confidence
    missing: str | None


@dataclass(frozen=True, slots=True)
class Episode:
    """One thing that happened, to one task or to several in the same way.

    Attributes:
        kind: what it is.
        recursion: an allocation waits, through reclaim, on something that cannot complete without it.
        confidence: how sure that is.
        sentence: what the stack shows; begins with "its" or "it", which stands for the first task.
        why: why `recursion` is what it is.
        missing: what would make it surer, None for nothing.
        tasks: the tasks, at most `MAX_TASKS` of them.
        count: how many reports showed it.
        needs: who or what must act for the wait to end, None where the stack does not tell.
        device: the device or file system, None where the log does not name one.
        daemon: the program that others wait for, None for none.
        chain: the first task's stack with roles, innermost first; in a lockdep report several.
        begins: where in `chain` each stack begins.
        cycle: the tasks that wait one for the next, closed: the first one is also the last; the names of the
            locks in a lockdep report; empty outside a recursion.
        edges: the cycle's edges, the first task's own first.
        waits: everything that the first task waits for, as far as its stack and the tables tell.
        gives: everything that it holds or has to bring about; others may wait for it.
        kernel: the kernel's version, None where the log does not say.
        notes: what is known of that version.
        remedies: what to do, most useful first.
    """

    kind: Kind
    recursion: bool
    confidence: Confidence
    sentence: str
    why: str
    missing: str | None
    tasks: tuple[TaskRef, ...]
    count: int
    needs: str | None
    device: str | None
    daemon: str | None
    chain: tuple[MarkedFrame, ...]
    begins: tuple[int, ...]
    cycle: tuple[str, ...]
    edges: tuple[Link, ...]
    waits: tuple[str, ...]
    gives: tuple[str, ...]
    kernel: str | None
    notes: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def stacks(self) -> tuple[tuple[MarkedFrame, ...], ...]:
        """The stacks of `chain`, each innermost first."""
        return tuple(self.chain[begin:end] for begin, end in pairwise((*self.begins, len(self.chain))))


@dataclass(frozen=True, slots=True)
class EventCount:
    """Lines of one kind that a log holds besides stacks.

    Attributes:
        kind: what they report.
        count: how many there are.
        first: the text of the first one.
        line, offset: where that stands, as in `TaskReport`.
    """

    kind: EventKind
    count: int
    first: str
    line: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a log comes to.

    Attributes:
        episodes: recursions first, each kind in the log's order.
        reports: stacks read.
        dropped: stacks that no longer fitted in memory, which only a flood of different ones brings about.
        memory: one sentence on free memory, None where the log does not show it.
        events: what single lines report, each kind in the order in which it first appears.
    """

    episodes: tuple[Episode, ...]
    reports: int
    dropped: int
    memory: str | None
    events: tuple[EventCount, ...]

    @property
    def recursion(self) -> bool:
        """Whether any episode is a recursion."""
        return any(episode.recursion for episode in self.episodes)
