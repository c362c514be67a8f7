"""Tasks that a log does not show, though what it shows tells that they wait too.

Whoever waits long for a new kernel thread waits for kthreadd, which does nothing but make threads: it
waits for memory then, as others that reclaim do. Who waits long for isolated pages waits for kswapd, if that
has not gone to sleep: it waits in a file system then, perhaps for a lock that others are seen to wait for.
Who waits in reclaim for a task of a file system, where the log shows none, may wait for one that asks for
memory in turn. And where the OOM killer's choice waits for a lock while others only reclaim, who has it may
be one of those.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ioflusher.kernlog.judging.ends import End
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence
from ioflusher.kernlog.judging.gifts import gifts, waits_for_isolated
from ioflusher.kernlog.judging.needs import HELD_BY_SOMEBODY, HELD_WAITS, OF_A_HOLDER, OF_A_VICTIM, needs
from ioflusher.kernlog.records import NO_PLACE, Source, TaskReport
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Wait
from ioflusher.kernlog.stacks.askers import Asker, Service, at_work_in
from ioflusher.kernlog.stacks.kernel_threads import known_threads
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import families, family
from ioflusher.kernlog.stacks.things import Thing

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
            yield _holder_in_reclaim(case)
    runs = reclaimers and all(case.body.wait is Wait.RUNNING for case in reclaimers)
    for case in cases:
        locked = case.body.reclaim is None and case.body.wait is Wait.LOCK
        if locked and isolated and Thing.KSWAPD not in facts.threads and _in_a_file_system(case):
            yield _like(case, Thing.KSWAPD, Reclaim.KSWAPD, facts)
        held = case.body.reclaim is None and case.body.wait in HELD_WAITS
        if held and runs and facts.is_victim(case.report):
            yield _holder(case)


def _waits_for_somebody(case: Case, cases: Sequence[Case]) -> bool:
    """Whether it waits in a file system for a task that the log does not show.

    Only where its stack shows whose allocation it is: of a part of a stack nothing is supposed.
    """
    body = case.body
    names = set(families(body.inner))
    if case.runs or body.wait not in HELD_BY_SOMEBODY or not body.outer or not names:
        return False
    files = any(step.part == "fs" or step.role in (Role.FILE_SYSTEM, Role.FS_WAIT) for step in body.inner)
    if not files or any(step.role in (Role.DRIVER, Role.BLOCK) for step in body.inner):
        return False
    others = (other.body for other in cases if other.body.reclaim is None)
    return not any(names & set(families(other.steps)) for other in others)


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


def _holder_in_reclaim(case: Case) -> tuple[Case, Ends, Ends]:
    """Whoever has what a reclaimer waits for, if it asks for memory in turn."""
    missing = "the stack of who holds what is waited for"
    why = "memory, for which reclaim waits as the one that is shown"
    wanted = End(Thing.RECLAIM, OF_A_HOLDER, Confidence.POSSIBLE, why, missing)
    names = families(case.body.inner)
    given = (End(Thing.HELD, name, Confidence.PROBABLE, "it has what is waited for") for name in names)
    return _task(f"a task that {_NOT_SHOWN}", case, Reclaim.DIRECT), (wanted,), tuple(given)


def _holder(victim: Case) -> tuple[Case, Ends, Ends]:
    """Whoever has the lock that the OOM killer's choice waits for."""
    why = "memory of the OOM killer's choice"
    wanted = End(Thing.VICTIM, None, Confidence.PROBABLE, why, "the stack of who holds the lock")
    given = End(Thing.HELD, OF_A_VICTIM, Confidence.PROBABLE, "it has that lock")
    return _task(f"a task that {_NOT_SHOWN}", victim, Reclaim.DIRECT), (wanted,), (given,)


def _task(name: str, case: Case, reclaim: Reclaim) -> Case:
    """A task in reclaim that waits for what the case waits for."""
    inner = case.body.inner or case.body.steps
    report = TaskReport(
        *(name, None, None, None, None, ()), None, Source.BARE, *(None, None, None, None, None), NO_PLACE
    )
    body = Anatomy(inner, reclaim, inner, (), case.body.wait)
    return Case(report, body, Asker(Service.ORDINARY, None, None))
