"""Tasks that a log does not show, though what it shows tells that they wait too.

Whoever waits long for a new kernel thread waits for kthreadd, which does nothing but make threads: it
waits for memory then, as others that reclaim do. Who waits long for isolated pages waits for kswapd, if that
has not gone to sleep: it waits in a file system then, perhaps for a lock that others are seen to wait for,
or that the task has itself. Who waits in reclaim for a task of a file system, where the log shows none, may
wait for one that asks for memory in turn; so may kswapd, where an allocation is seen that gets no memory,
or where it is reported as hung itself; and where that has a page locked which a server is to have, whoever
sends the page, or takes the answer in, may. The flusher may wait for what an allocation has while its
reclaim waits for pages to be written. Where the OOM killer's choice waits for a lock while others only
reclaim, who has it may be one of those; and where one that waits for it has an inode's lock in hand, it may
be that. Where the kernel says that no worker has begun a work, those may wait for memory as the allocation
that waits for it. And a file system that reclaim waits in until it is thawed cannot be: whoever is to thaw
it waits for s_umount.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from ioflusher.kernlog.judging.ends import End
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence
from ioflusher.kernlog.judging.gifts import gifts, waits_for_isolated
from ioflusher.kernlog.judging.needs import (
    HELD_BY_SOMEBODY,
    HELD_WAITS,
    OF_A_HOLDER,
    OF_A_VICTIM,
    SILENT,
    ends_in_files,
    needs,
    stuck,
    waits_for_a_worker,
)
from ioflusher.kernlog.records import NO_PLACE, Source, TaskReport
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step, Wait
from ioflusher.kernlog.stacks.askers import Asker, Service, at_work_in
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named, known_threads
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import families, family
from ioflusher.kernlog.stacks.things import Thing, Verb

Ends = tuple[End, ...]
_NOT_SHOWN = "the log does not show"


def unshown(cases: Sequence[Case], facts: Facts) -> Iterator[tuple[Case, Ends, Ends]]:
    """Each such task as it may be, with what it waits for and has."""
    reclaimers = [case for case in cases if case.body.reclaim is Reclaim.DIRECT]
    if Thing.THREAD not in facts.threads and any(case.body.wait is Wait.THREAD for case in cases):
        for case in reclaimers:
            if case.body.wait in HELD_WAITS and not case.runs:
                yield _like(case, Thing.THREAD, Reclaim.DIRECT, facts)
    isolated = any(waits_for_isolated(case.body) and at_work_in(case.body.outer) for case in reclaimers)
    for case in reclaimers:
        if _waits_for_somebody(case, cases) and not facts.trouble:
            yield _holder_in_reclaim(case, OF_A_HOLDER)
        if waits_for_a_worker(case, facts):
            yield _worker(case)
    short = facts.stalling or bool(facts.victims) or any(_gets_no_memory(case, facts) for case in reclaimers)
    runs = reclaimers and all(case.body.wait is Wait.RUNNING for case in reclaimers)
    writes = any(_writes_back(case) for case in cases)
    thawed = any(step.does(Verb.COMPLETES, Thing.THAW) for case in cases for step in case.body.steps)
    killed = any(not facts.killed.isdisjoint({case.report.pid, case.report.tid}) for case in cases)
    for case in cases:
        if (
            facts.stalling
            and not facts.trouble
            and Thing.KSWAPD not in facts.threads
            and _is_in_the_way(case)
        ):
            yield _kswapd(case, facts)
        if case.body.reclaim is Reclaim.KSWAPD and not facts.trouble:
            yield from _in_kswapds_way(case, cases, short)
        locked = case.body.reclaim is None and case.body.wait is Wait.LOCK
        if locked and isolated and Thing.KSWAPD not in facts.threads and _in_a_file_system(case):
            yield _like(case, Thing.KSWAPD, Reclaim.KSWAPD, facts)
        if not writes and (given := _keeps_from_writing(case, facts)):
            yield _flusher(case, given)
        if not thawed and _keeps_from_thawing(case):
            yield _thawer(case)
        held = case.body.reclaim is None and case.body.wait in HELD_WAITS
        if held and (runs or facts.stalling) and facts.is_victim(case.report):
            yield _holder(case)
        if case.body.wait is Wait.OOM and not killed and (locks := _locks(case, facts)):
            yield _victim(case, locks)


def _in_kswapds_way(case: Case, cases: Sequence[Case], short: bool) -> Iterator[tuple[Case, Ends, Ends]]:
    """Whoever keeps kswapd from going on, where it hangs, or, behind a lock, memory is `short`."""
    hung = case.report.source is Source.HUNG_TASK
    long = (hung and not ends_in_files(case.body)) or (short and case.body.wait is Wait.LOCK)
    if long and _waits_for_somebody(case, cases):
        yield _holder_in_reclaim(case, None)
    if hung and _waits_with_a_page_for_a_server(case):
        yield _carrier(case)


def _waits_for_somebody(case: Case, cases: Sequence[Case]) -> bool:
    """Whether it waits in a file system for a task that the log does not show.

    Where its stack is cut before it shows who asked, only for a file system's progress.
    """
    body = case.body
    names = set(families(body.inner))
    thread = kernel_thread_named(case.report.comm)
    kswapd = thread is not None and thread.gives is Thing.KSWAPD
    shown = bool(body.outer) or kswapd
    # what a file system does takes as long for whoever asked; a lock may be one for which reclaimers queue
    shown |= body.reclaim is Reclaim.DIRECT and body.wait is Wait.FS and not ends_in_files(body)
    if case.runs or body.wait not in HELD_BY_SOMEBODY or not shown or not names:
        return False
    # nothing but files' pages, or swap's, are written out
    roles = (Role.FILE_SYSTEM, Role.FS_WAIT, Role.PAGE_OUT)
    files = any(step.part == "fs" or step.role in roles or _frees_an_inode(step) for step in body.inner)
    if not files or any(step.role in (Role.DRIVER, Role.BLOCK) for step in body.inner):
        return False
    # who waits for the file system's progress behind kswapd is one more who queues
    queues = _QUEUES | {Wait.FS} if kswapd else _QUEUES
    others = (other.body for other in cases if other.body.reclaim is None)
    return not any(names & set(families(other.steps)) for other in others if other.wait not in queues)


def _frees_an_inode(step: Step) -> bool:
    return step.own and any(verb is Verb.FREES for verb, *_ in step.things())


# what whoever holds the lock does not wait for, or not before it has memory
_QUEUES = frozenset({Wait.LOCK, Wait.PAGE_LOCK, Wait.INODE})


def _gets_no_memory(case: Case, facts: Facts) -> bool:
    """Whether an allocation, not a full memory cgroup's, waits for others' reclaim or gets nowhere."""
    throttled = case.body.wait is Wait.RECLAIM_THROTTLE
    return (throttled and not any(step.part == "memcg" for step in case.body.steps)) or stuck(case, facts)


def _in_a_file_system(case: Case) -> bool:
    names = {family(step.part) for step in case.body.steps if step.role is Role.FILE_SYSTEM}
    return bool(names & set(at_work_in(case.body.steps)))


def _like(case: Case, gives: Thing, reclaim: Reclaim, facts: Facts) -> tuple[Case, Ends, Ends]:
    """The kernel's thread that gives a thing, as if it waited in reclaim for what the case waits for."""
    name = next(thread.name for thread in known_threads() if thread.gives is gives).rstrip("*#")
    thread = _task(name, case, reclaim)
    wanted = (
        replace(end, known=Confidence.POSSIBLE, missing=f"the stack of {name}")
        for end in needs(thread, facts)
    )
    sure = (replace(end, known=Confidence.PROBABLE, missing=None) for end in gifts(thread, facts))
    given = (end for end in sure if end.thing in (gives, Thing.RECLAIM))
    return _task(f"{name}, which {_NOT_SHOWN}", case, reclaim), tuple(wanted), tuple(given)


def _file_systems(steps: tuple[Step, ...]) -> set[str]:
    """The file systems whose own functions or waits are among the steps."""
    found = {family(step.part) for step in steps if step.role in (Role.FILE_SYSTEM, Role.FS_WAIT)}
    return {name for name in found if name is not None}


def _in_hand(case: Case, facts: Facts, names: Collection[str]) -> Ends:
    """What a task has of these subsystems: something held, or a transaction."""
    kinds = (Thing.HELD, Thing.TRANSACTION)
    return tuple(end for end in gifts(case, facts) if end.thing in kinds and end.scope in names)


def _want_of(ends: Ends, missing: str) -> Ends:
    """What a task that is not shown may wait for, since others have it."""
    return tuple(
        End(end.thing, end.scope, Confidence.POSSIBLE, f"something of {end.scope}", missing) for end in ends
    )


def _memory(scope: str | None, missing: str) -> End:
    """What a task that is not shown waits for, if it reclaims."""
    why = "memory, for which reclaim waits as the one that is shown"
    return End(Thing.RECLAIM, scope, Confidence.POSSIBLE, why, missing)


def _is_in_the_way(case: Case) -> bool:
    """Whether it waits for isolated pages in the middle of a file system."""
    outer = case.body.outer
    return waits_for_isolated(case.body) and not _file_systems(outer).isdisjoint(at_work_in(outer))


def _kswapd(case: Case, facts: Facts) -> tuple[Case, Ends, Ends]:
    """kswapd, which has pages isolated and may wait for what the case has in hand of a file system."""
    wanted = _want_of(_in_hand(case, facts, at_work_in(case.body.outer)), "the stack of kswapd")
    given = End(Thing.RECLAIM, None, Confidence.PROBABLE, "it has isolated pages, and puts them back")
    return _task(f"kswapd, which {_NOT_SHOWN}", case, Reclaim.KSWAPD), wanted, (given,)


def _holder_in_reclaim(case: Case, scope: str | None) -> tuple[Case, Ends, Ends]:
    """Whoever has what a reclaimer waits for, if it asks for memory in turn."""
    wanted = _memory(scope, "the stack of who holds what is waited for")
    names = families(case.body.inner)
    given = (End(Thing.HELD, name, Confidence.PROBABLE, "it has what is waited for") for name in names)
    return _task(f"a task that {_NOT_SHOWN}", case, Reclaim.DIRECT), (wanted,), tuple(given)


def _waits_with_a_page_for_a_server(case: Case) -> bool:
    """Whether reclaim has a network file system's page locked, and waits for its server to have the page."""
    page = any(step.does(Verb.HOLDS, Thing.PAGE) for step in case.body.inner)
    return case.body.wait is Wait.SERVER and page


def _carrier(case: Case) -> tuple[Case, Ends, Ends]:
    """Whoever sends what is to be written, or takes the answer in: either takes memory."""
    missing = "whether the server answers, and whether there is memory to take the answer in"
    wanted = _memory(None, missing)
    names = families(case.body.inner)
    why = "it carries what is sent, or the answer"
    given = (End(Thing.ANSWER, name, Confidence.PROBABLE, why) for name in names)
    return _task(f"a task that {_NOT_SHOWN}", case, Reclaim.DIRECT), (wanted,), tuple(given)


def _writes_back(case: Case) -> bool:
    """Whether it is the flusher, or ends a file system's I/O."""
    ends = (Thing.WRITEBACK, Thing.FS_IO)
    done = any(step.does(Verb.COMPLETES, thing) for step in case.body.outer for thing in ends)
    return done or any(step.role is Role.WRITEBACK for step in case.body.outer)


def _keeps_from_writing(case: Case, facts: Facts) -> tuple[End, ...]:
    """What an allocation has in hand of a file system, while its reclaim waits for a page to be written."""
    body = case.body
    pages = (end for end in needs(case, facts) if end.thing is Thing.WRITEBACK)
    waits = any(end.known is not Confidence.POSSIBLE for end in pages)
    if body.reclaim is not Reclaim.DIRECT or not waits or facts.trouble:
        return ()
    return _in_hand(case, facts, _file_systems(body.outer))


def _flusher(case: Case, given: Ends) -> tuple[Case, Ends, Ends]:
    """The thread that writes pages back, for want of what an allocation has in hand."""
    wanted = _want_of(given, "the stack of the flusher")
    writes = End(Thing.WRITEBACK, None, Confidence.PROBABLE, "it writes pages back")
    return _task(f"the flusher, which {_NOT_SHOWN}", case, Reclaim.FORCED), wanted, (writes,)


def _keeps_from_thawing(case: Case) -> bool:
    """Whether reclaim waits in a file system until it is thawed, and has its s_umount, which a thaw takes."""
    inner = case.body.inner
    lock = tuple(takewhile(lambda step: step.role in SILENT and not step.own, inner))
    in_files = any(step.own or step.role is Role.FILE_SYSTEM for step in inner[len(lock) :][:1])
    waited = {thing for step in lock for verb, thing, *_ in step.things() if verb is Verb.WAITS}
    frozen = case.body.wait is Wait.FROZEN or (in_files and waited == {Thing.THAW})
    return frozen and any(step.does(Verb.HOLDS, Thing.S_UMOUNT) for step in inner)


def _thawer(case: Case) -> tuple[Case, Ends, Ends]:
    """Whoever is to thaw the file system."""
    missing = "the stack of who is to thaw it"
    wanted = End(Thing.S_UMOUNT, None, Confidence.PROBABLE, "the file system's s_umount", missing)
    given = End(Thing.THAW, None, Confidence.CERTAIN, "nothing but a thaw ends the wait")
    return _task(f"a task that {_NOT_SHOWN}", case, Reclaim.FORCED), (wanted,), (given,)


def _worker(case: Case) -> tuple[Case, Ends, Ends]:
    """Who keeps a work from being begun: a worker that allocates, or makes another worker."""
    wanted = _memory(OF_A_HOLDER, "the stacks of the workers, or of who makes them")
    given = End(Thing.WORK, None, Confidence.PROBABLE, "it keeps that work from being begun")
    return _task(f"a worker that {_NOT_SHOWN}", case, Reclaim.DIRECT), (wanted,), (given,)


def _locks(case: Case, facts: Facts) -> Ends:
    """The inodes' locks that a task has while it waits for the OOM killer's choice."""
    return tuple(end for end in gifts(case, facts) if end.thing is Thing.INODE_LOCK)


def _victim(case: Case, locks: Ends) -> tuple[Case, Ends, Ends]:
    """The OOM killer's choice, which may wait for a lock that one who waits for it has."""
    missing = "the stack of the task that was killed"
    wanted = tuple(End(end.thing, end.scope, Confidence.POSSIBLE, "an inode's lock") for end in locks)
    given = End(Thing.VICTIM, None, Confidence.PROBABLE, "it is the one that was killed", missing)
    return _task(f"the OOM killer's choice, which {_NOT_SHOWN}", case, Reclaim.FORCED), wanted, (given,)


def _holder(victim: Case) -> tuple[Case, Ends, Ends]:
    """Whoever has the lock that the OOM killer's choice waits for."""
    why = "memory of the OOM killer's choice"
    wanted = End(Thing.VICTIM, None, Confidence.PROBABLE, why, "the stack of who holds the lock")
    given = End(Thing.HELD, OF_A_VICTIM, Confidence.PROBABLE, "it has that lock")
    return _task(f"a task that {_NOT_SHOWN}", victim, Reclaim.DIRECT), (wanted,), (given,)


def _task(name: str, case: Case, reclaim: Reclaim) -> Case:
    """A task that waits, in reclaim if need be, as the case does."""
    inner = case.body.inner or case.body.steps
    report = TaskReport(
        *(name, None, None, None, None, ()), None, Source.BARE, *(None, None, None, None, None), NO_PLACE
    )
    body = Anatomy(inner, reclaim, inner, (), case.body.wait)
    return Case(report, body, Asker(Service.ORDINARY, None, None))
