"""A whole log's diagnosis: records in, episodes out.

Stacks that are alike become one group while the log is read, so memory does not grow with the log;
judgement comes at the end, when everything that the log tells is known.
"""

import re
from dataclasses import dataclass, field, replace

from ioflusher.kernel.task_flags import PF_IO_FLUSHER
from ioflusher.kernlog.diagnosis import Diagnosis, Episode, EventCount, Link, TaskRef
from ioflusher.kernlog.judging.advice import kernel_notes, remedies, who_completes
from ioflusher.kernlog.judging.devices import device_of
from ioflusher.kernlog.judging.ends import End
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.judging.plain import plain_finding
from ioflusher.kernlog.judging.recursion import recursion
from ioflusher.kernlog.judging.waitgraph import WaitGraph
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.records import (
    DeviceServer,
    Event,
    EventKind,
    LockdepReport,
    Record,
    Source,
    TaskReport,
)
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Wait, dissect
from ioflusher.kernlog.stacks.askers import Daemon, Service, asker_of, daemon_where_seen
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import families
from ioflusher.kernlog.stacks.things import Thing, Verb
from ioflusher.kernlog.stacks.waits import explain_stack, mark

MAX_GROUPS = 4096
MAX_TASKS = 16
MAX_LOCKDEP_FRAMES = 64
# what an edge to a lock's owner, whom the kernel names, is about
OWNED_LOCK = "owned-lock"


def diagnose_log(data: bytes, daemons: tuple[str, ...] = ()) -> Diagnosis:
    """Diagnose a log that fits in memory; `daemons` are task names known to serve storage. Never fails."""
    diagnoser = Diagnoser(daemons)
    for record in parse_console(data):
        diagnoser.take(record)
    return diagnoser.result()


@dataclass(slots=True)
class _Group:
    """Stacks that are alike, with the first one kept whole."""

    case: Case
    tasks: list[TaskRef] = field(default_factory=list)
    count: int = 0


class Diagnoser:
    """Takes records, answers with a diagnosis.

    Args:
        daemons: task names that the user knows to serve storage; `*` at the end is any rest.
        everything: keep tasks that wait for work or run, too.
    """

    def __init__(self, daemons: tuple[str, ...] = (), everything: bool = False) -> None:
        self._daemons = daemons
        self._everything = everything
        self._facts = Facts()
        self._groups: dict[tuple[object, ...], _Group] = {}
        self._lockdep: dict[tuple[object, ...], LockdepReport] = {}
        self._events: dict[EventKind, EventCount] = {}
        self._reports = 0
        self._dropped = 0

    def take(self, record: Record) -> None:
        """Take in one record."""
        match record:
            case TaskReport():
                self._take_report(record)
            case Event():
                again = record.kind is EventKind.OOM_KILL and record.number in self._facts.killed
                self._facts.learn_event(record)
                if not again:
                    self._count(record)
            case DeviceServer():
                self._facts.servers.append(record)
            case LockdepReport():
                self._reports += len(record.begins)
                if len(self._lockdep) < MAX_GROUPS:
                    self._lockdep.setdefault((record.title, record.locks), record)

    def _count(self, event: Event) -> None:
        # hung tasks and the memory state are told otherwise
        if event.kind in (EventKind.HUNG_TASK, EventKind.ZONE):
            return
        earlier = self._events.get(event.kind)
        if earlier is None:
            self._events[event.kind] = EventCount(event.kind, 1, event.text, event.line, event.offset)
        else:
            self._events[event.kind] = replace(earlier, count=earlier.count + 1)

    def _take_report(self, report: TaskReport) -> None:
        self._reports += 1
        body = dissect(report.frames, report.comm)
        if report.io_wait and body.wait in (Wait.UNKNOWN, Wait.SUBSYSTEM):
            body = replace(body, wait=Wait.IO)
        server = self._facts.server_of(report)
        case = Case(report, body, asker_of(report, body, self._daemons, server))
        self._facts.learn_case(case)
        if not self._everything and not _matters(case, self._facts):
            return
        key = (*_likeness(report, body), server, report.owner)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self._dropped += 1
                return
            group = self._groups[key] = _Group(case)
        group.count += 1
        known = any(task.tid == report.tid and task.comm == report.comm for task in group.tasks)
        if len(group.tasks) < MAX_TASKS and not known:
            group.tasks.append(_task_ref(report))

    def result(self) -> Diagnosis:
        """The diagnosis of everything taken so far."""
        episodes = [self._lockdep_episode(report) for report in self._lockdep.values()]
        groups = tuple(self._groups.values())
        for group in groups:
            group.case = self._known_server(group.case)
        tids = ((task.tid, number) for number, group in enumerate(groups) for task in group.tasks)
        places = {tid: number for tid, number in tids if tid is not None}
        graph = WaitGraph([group.case for group in groups], self._facts, places)
        for number, (group, cycle) in enumerate(zip(groups, graph.cycles(), strict=True)):
            finding = recursion(cycle) if cycle else plain_finding(group.case, self._facts)
            waits, gives = graph.ends(number)
            episodes.append(self._episode(group, finding, _told(waits), _told(gives)))
        episodes = _merged(episodes)
        # both sorts are stable: recursions first, then the surer ones, then the log's order
        episodes.sort(key=lambda episode: (not episode.recursion, _SURENESS[episode.confidence]))
        events = tuple(self._events.values())
        return Diagnosis(tuple(episodes), self._reports, self._dropped, _memory(self._facts), events)

    def _known_server(self, case: Case) -> Case:
        """The task as a daemon, where a stack of the same program takes requests, whatever its name.

        So is one whose name tells only where the log shows what such a daemon serves.
        """
        comm = case.report.comm
        daemon = daemon_where_seen(comm, self._facts.families)
        if serves := self._facts.takes_requests(case.report):
            daemon = Daemon(comm or "?", serves, f"a thread of this program takes {serves}'s requests")
        uses = any(step.role is Role.USER_FS for step in case.body.outer)
        if daemon is None or uses or case.asker.daemon is not None:
            return case
        return replace(case, asker=replace(case.asker, service=Service.DAEMON, daemon=daemon))

    def _episode(
        self, group: _Group, finding: Finding, waits: tuple[str, ...], gives: tuple[str, ...]
    ) -> Episode:
        case = group.case
        daemon = case.asker.daemon
        return Episode(
            kind=finding.kind,
            recursion=finding.recursion,
            confidence=finding.confidence,
            sentence=explain_stack(case.report.frames, case.report.comm).sentence,
            why=finding.why,
            missing=finding.missing,
            tasks=tuple(group.tasks),
            count=group.count,
            needs=who_completes(case, finding),
            device=device_of(case),
            daemon=case.report.comm if daemon else None,
            chain=mark(case.report.frames),
            begins=(0,),
            cycle=tuple(edge.waiter.name for edge in (*finding.edges, *finding.edges[:1])),
            edges=_links(finding),
            waits=waits,
            gives=gives,
            kernel=case.report.kernel,
            notes=kernel_notes(case, families(case.body.steps)) if finding.recursion else (),
            remedies=remedies(case, finding),
        )

    def _lockdep_episode(self, report: LockdepReport) -> Episode:
        frames = report.frames[:MAX_LOCKDEP_FRAMES]
        chain = " -> ".join(report.locks) or "locks whose names are lost"
        if report.reclaim:
            why = (
                "lockdep saw locks taken in both orders with memory reclaim between them: an allocation made "
                "under one of them can wait, through reclaim, for its own thread; nobody need have waited yet"
            )
        else:
            why = "lockdep predicts a deadlock in which memory reclaim takes no part"
        return Episode(
            kind=Kind.LOCKDEP,
            recursion=report.reclaim,
            confidence=Confidence.POSSIBLE,
            sentence=f"lockdep reports: {report.title.strip('= ')} ({chain})",
            why=why,
            missing=None,
            tasks=(TaskRef(report.comm, None, report.tid, None, None, report.line, report.offset, None),),
            count=1,
            needs=None,
            device=None,
            daemon=None,
            chain=mark(frames),
            begins=tuple(dict.fromkeys(begin for begin in report.begins if begin < len(frames))),
            cycle=tuple(report.locks) if report.reclaim else (),
            edges=(),
            waits=(),
            gives=(),
            kernel=report.kernel,
            notes=(),
            remedies=("report it to the subsystem that owns the locks, or use a kernel with the fix",),
        )


_SURENESS = {Confidence.CERTAIN: 0, Confidence.PROBABLE: 1, Confidence.POSSIBLE: 2}


def _matters(case: Case, facts: Facts) -> bool:
    """Whether a stack can be part of an episode: it waits for others, or is in reclaim."""
    body, report = case.body, case.report
    if body.reclaim is Reclaim.DIRECT or body.wait is Wait.DIRTY_THROTTLE:
        return True
    if body.reclaim is not None and body.wait not in (Wait.RUNNING, Wait.IDLE):
        return True
    if case.ran:
        return report.source is Source.LOCKUP
    if body.wait is Wait.IDLE:
        return report.source is Source.HUNG_TASK
    if report.state == "R":
        # a task that was killed is woken, and sleeps on where it may not be disturbed
        asleep = not case.runs and (body.wait is Wait.OOM or facts.is_victim(report))
        return asleep or any(step.does(Verb.WAITS, Thing.RECLAIM) for step in body.steps)
    return report.state in (None, "D", "K")


def _likeness(report: TaskReport, body: Anatomy) -> tuple[object, ...]:
    """What makes two stacks one episode: the task's name without numbers, and the functions that count."""
    name = re.sub(r"[\d:/].*", "", report.comm or "")
    return (
        name,
        report.source in (Source.LOCKUP, Source.DUMP),
        report.device,
        *(step.frame.name for step in body.steps[:48]),
    )


def _task_ref(report: TaskReport) -> TaskRef:
    flags = report.task_flags
    carried = None if flags is None else flags & PF_IO_FLUSHER == PF_IO_FLUSHER
    return TaskRef(
        report.comm,
        report.pid,
        report.tid,
        report.state,
        report.blocked_seconds,
        report.line,
        report.offset,
        carried,
    )


def _told(ends: tuple[End, ...]) -> tuple[str, ...]:
    """Ends of edges as they are told: "io of xfs [probable]: I/O that xfs started"."""
    return tuple(
        f"{end.thing.value}{f' of {end.scope}' if end.scope else ''} [{end.known.value}]: {end.because}"
        for end in ends
    )


def _links(finding: Finding) -> tuple[Link, ...]:
    """The cycle's edges as they are told."""
    return tuple(
        Link(
            edge.waiter.name,
            edge.thing.value if edge.thing else OWNED_LOCK,
            edge.waits,
            edge.giver.name,
            edge.gives,
            edge.known,
            edge.missing,
        )
        for edge in finding.edges
    )


def _merged(episodes: list[Episode]) -> list[Episode]:
    """Findings that differ in their stacks, but in nothing that is said of them, become one episode."""
    merged: dict[tuple[object, ...], Episode] = {}
    for episode in episodes:
        first_name = re.sub(r"[\d:/].*", "", episode.tasks[0].comm or "") if episode.tasks else ""
        key = (episode.kind, episode.recursion, episode.why, episode.sentence, episode.device, first_name)
        earlier = merged.get(key)
        merged[key] = episode if earlier is None else _joined(earlier, episode)
    return list(merged.values())


def _joined(first: Episode, second: Episode) -> Episode:
    values = {name: getattr(first, name) for name in Episode.__slots__}
    values["tasks"] = (first.tasks + second.tasks)[:MAX_TASKS]
    values["count"] = first.count + second.count
    return Episode(**values)


def _memory(facts: Facts) -> str | None:
    margin = facts.worst_margin
    if margin is None:
        return None
    where = "below" if margin < 0 else "above"
    return f"the zone that was shortest of memory had {abs(margin)} KiB {where} its min watermark free"
