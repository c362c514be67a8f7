"""What a stack waits for, as ends of edges: from its innermost frames, and what follows from those."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from ioflusher.kernlog.judging.ends import End, Meets
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence
from ioflusher.kernlog.records import Source
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step, Wait
from ioflusher.kernlog.stacks.askers import Service, at_work, at_work_in, is_kernel_thread
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import families, family
from ioflusher.kernlog.stacks.things import Thing, Verb
from ioflusher.kernlog.stacks.waits import awaited

# what ends when a request of a device ends
IO_WAITS = frozenset(
    {
        *(Wait.IO, Wait.MEMPOOL, Wait.TAG, Wait.SOCKET, Wait.COMPLETION),
        *(Wait.WRITEBACK, Wait.PAGE_LOCK, Wait.PAGE),
    }
)
# what somebody must let go of or bring to an end, rather than a device that works by itself
HELD_WAITS = frozenset(
    {
        *(Wait.LOCK, Wait.COMPLETION, Wait.WORK, Wait.FS, Wait.INODE, Wait.DAEMON, Wait.SERVER, Wait.RCU),
        Wait.SUBSYSTEM,
    }
)
# of those, what another task has in hand or has to do, rather than a program, a server or a work queue
HELD_BY_SOMEBODY = frozenset({Wait.LOCK, Wait.FS, Wait.SUBSYSTEM, Wait.COMPLETION})
# whatever the OOM killer's choice waits for: until it is gone, nobody who asks for memory gets on
OF_A_VICTIM = "the OOM killer's choice"
# memory for somebody that a log does not show: its reclaim would wait as the one that is shown
OF_A_HOLDER = "whoever holds what reclaim waits for"
# what is allocated once for all requests, such as bios: requests that wait in line have it
OF_RESERVES = "a reserve for requests"
# locks of which there are many: tasks of one program are taken to mean the same
OF_A_PROGRAM = frozenset({Thing.INODE_LOCK, Thing.MMAP_LOCK})
ANSWERS = frozenset({Wait.DAEMON, Wait.SERVER})
_DIRECTLY = {
    Wait.INODE: Thing.INODE,
    Wait.FROZEN: Thing.THAW,
    Wait.THREAD: Thing.THREAD,
    Wait.SHRINKERS: Thing.SHRINKERS,
    Wait.WRITEBACK: Thing.WRITEBACK,
    Wait.PAGE_LOCK: Thing.PAGE,
    Wait.PAGE: Thing.PAGE,
}
# functions of these roles say nothing about whose lock or completion it is
SILENT = frozenset({None, Role.SCHEDULE, Role.WAIT_BIT, Role.LOCK, Role.COMPLETION, Role.IO_WAIT})
_CERTAIN, _PROBABLE, _POSSIBLE = Confidence.CERTAIN, Confidence.PROBABLE, Confidence.POSSIBLE
_CUT = "the part of the stack in which reclaim would stand"
_NOT_NAMED = "the log does not name the device that reclaim writes to"


def needs(case: Case, facts: Facts) -> tuple[End, ...]:
    """What a task waits for; nothing where it runs. Of two ends about one thing the surer one comes first."""
    if goes_on(case, facts):
        return ()
    device = tuple(_device_by_name(case))
    # whether another thread's name or work makes a program needed matters only where no device is named
    told = device and case.asker.service in (Service.DAEMON, Service.ORDINARY)
    found = device if told else (*device, *_tagged(case), *_general(case, facts))
    if case.body.supposed:
        found = tuple(
            replace(end, known=_PROBABLE if end.known is _CERTAIN else end.known, missing=end.missing or _CUT)
            for end in found
        )
    return tuple({end.key: end for end in reversed(found)}.values())[::-1]


def _general(case: Case, facts: Facts) -> Iterator[End]:
    body = case.body
    what = awaited(body)
    if (thing := _DIRECTLY.get(body.wait)) is not None:
        yield End(thing, None, _PROBABLE if body.wait is Wait.PAGE else _CERTAIN, what)
    if body.wait is Wait.PAGE or (body.wait is Wait.PAGE_LOCK and body.reclaim is not None):
        yield End(Thing.WRITEBACK, None, _PROBABLE, what)
    if body.wait in ANSWERS or (body.wait in IO_WAITS | {Wait.INODE} and body.reclaim is not None):
        yield from _answers(case, what)
    if body.wait is Wait.DIRTY_THROTTLE:
        yield _fewer_dirty_pages(case, what)
    if facts.stalls(case.report) and stuck(case, facts):
        yield End(Thing.RECLAIM, None, _PROBABLE, Thing.RECLAIM.words)
    elif ends_in_vain(case, facts) and stuck(case, facts):
        missing = "whether memory of that task is what it waits for"
        yield End(Thing.VICTIM, None, _POSSIBLE, "memory of a task that ends", missing, Meets.OTHERS)
    elif keeps_dirty(case, facts):
        for name in sorted(facts.commit_behind):
            missing = "whether it gets memory before that journal is committed"
            yield End(Thing.TRANSACTION, name, _POSSIBLE, "pages to be written", missing, Meets.OTHERS)
    elif stuck(case, facts):
        missing = "whether it gets memory without kswapd"
        yield End(Thing.RECLAIM, None, _POSSIBLE, Thing.RECLAIM.words, missing)
    if body.wait is Wait.RECLAIM_THROTTLE and body.first(Role.HIGH_THROTTLE) is None:
        yield End(Thing.RECLAIM, None, _PROBABLE, what)
        asleep = next((step for step in body.steps if step.role not in SILENT), None)
        if asleep is not None and asleep.role is Role.DIRECT_RECLAIM:
            yield End(Thing.KSWAPD, None, _PROBABLE, Thing.KSWAPD.words)
        if body.reclaim is Reclaim.DIRECT and not facts.exhausted:
            missing = "whether the pages that are waited for are on the device that it serves"
            yield End(Thing.IO, None, _POSSIBLE, "pages to be written", missing)
            missing = "whether the pages that are waited for are among those"
            yield End(Thing.WRITEBACK, None, _POSSIBLE, "pages to be written", missing, Meets.OTHERS)
    if facts.kswapd_waits and _lost_what_it_waits_for(case):
        missing = "the inner part of its stack"
        yield End(Thing.RECLAIM, None, _POSSIBLE, "what its reclaim waits for, as kswapd's does", missing)
    throttled = body.wait is Wait.RECLAIM_THROTTLE or stuck(case, facts)
    if body.reclaim is Reclaim.DIRECT and throttled and facts.victims:
        missing = "whether the OOM killer waits for that task"
        yield End(Thing.VICTIM, None, _PROBABLE, "memory of the OOM killer's choice", missing)
    if body.reclaim is None and body.wait in HELD_WAITS and facts.is_victim(case.report):
        yield End(Thing.HELD, OF_A_VICTIM, _POSSIBLE, what)
    if body.writes_back and body.wait is Wait.LOCK:
        for scope in (None, case.report.comm):
            yield End(Thing.INODE_LOCK, scope, _POSSIBLE, f"{what}, perhaps an inode's")
    yield from _held(case, what)
    if body.reclaim is not None and body.wait is Wait.WORK:
        for name in families(body.inner):
            yield End(Thing.WORK, name, _PROBABLE, what)
    if waits_for_a_worker(case, facts):
        yield End(Thing.WORK, None, _PROBABLE, f"{what}, which no worker has begun")
    if body.reclaim is Reclaim.DIRECT and body.wait is Wait.FS and _makes_a_worker(case):
        missing = "whether that waits for a new worker"
        yield End(Thing.THREAD, None, _POSSIBLE, f"{what}, which may need a new worker", missing, Meets.OWN)
    yield from _io(case, what)


def goes_on(case: Case, facts: Facts) -> bool:
    """Whether a task waits for nobody, and nobody for it: it is idle, or runs and gets somewhere."""
    runs = case.runs and not (stuck(case, facts) or keeps_dirty(case, facts))
    return runs or case.body.wait is Wait.IDLE


def waits_for_a_worker(case: Case, facts: Facts) -> bool:
    """Whether an allocation waits for work in its reclaim, and the kernel says that no worker is free."""
    body = case.body
    return facts.work_waits and body.reclaim is Reclaim.DIRECT and body.wait is Wait.WORK


def stuck(case: Case, facts: Facts) -> bool:
    """Whether a task runs in its own reclaim and gets nowhere: the kernel said so, or kswapd waits itself."""
    alone = facts.kswapd_waits and case.body.wait is Wait.RUNNING and not case.ran
    gets_nowhere = alone or facts.stalls(case.report) or ends_in_vain(case, facts)
    return case.runs and case.body.reclaim is Reclaim.DIRECT and gets_nowhere


def ends_in_vain(case: Case, facts: Facts) -> bool:
    """Whether a task that ends, and may take all memory, reclaims, while another that ends waits."""
    ends = any(step.does(Verb.COMPLETES, Thing.VICTIM) for step in case.body.outer)
    return ends and facts.ends_behind and not case.ran


def keeps_dirty(case: Case, facts: Facts) -> bool:
    """Whether it reclaims inside a transaction that is to be committed before pages can be written.

    Writers wait for that to happen.
    """
    body = case.body
    runs = body.reclaim is Reclaim.DIRECT and body.wait is Wait.RUNNING and not case.ran
    # of a stack without a task's name nothing says that it is from the same moment
    if not runs or case.report.comm is None or not facts.throttled:
        return False
    inside = (s for s in body.outer if s.does(Verb.HOLDS, Thing.TRANSACTION))
    return not facts.commit_behind.isdisjoint({family(step.part) for step in inside})


def _lost_what_it_waits_for(case: Case) -> bool:
    """Whether a part of a stack, of which nothing says that it ran, begins where reclaim calls others."""
    report = case.report
    calls = any(step.role in (Role.SHRINKER, Role.PAGE_OUT) for step in case.body.steps[:1])
    return calls and report.source is Source.BARE and report.state is None and report.comm is None


def _makes_a_worker(case: Case) -> bool:
    """Whether a work queue's worker is about to make another one, which no other may do meanwhile."""
    return any(step.role is Role.THREAD_WAIT for step in case.body.outer)


def _device_by_name(case: Case) -> Iterator[End]:
    """The kernel's memory names the device of the request, page or throttled writer."""
    device = case.report.device
    if device and case.body.wait is Wait.DIRTY_THROTTLE:
        yield End(Thing.DIRTY, device, _CERTAIN, f"dirty pages of {device} to be written")
    elif device and case.body.reclaim is Reclaim.DIRECT and case.body.wait is not Wait.RUNNING:
        yield End(Thing.IO, device, _CERTAIN, f"a request of {device}")


def _tagged(case: Case) -> Iterator[End]:
    """What the tables say that its innermost functions wait for."""
    body = case.body
    inside = body.inner if body.reclaim is not None else body.steps
    for step in _innermost(inside):
        for verb, thing, _, part in step.things():
            scope = family(part) if thing in (Thing.TRANSACTION, Thing.HELD, Thing.FS_IO) else None
            if verb is Verb.WAITS and thing is Thing.RECLAIM and body.reclaim is None:
                missing = "whether memory came free later"
                yield End(thing, None, _POSSIBLE, f"{thing.words} ({step.frame.name}())", missing)
            elif verb is Verb.WAITS and thing not in (Thing.SWAPPED, Thing.RECLAIM):
                words = f"something of {scope}" if thing is Thing.HELD else thing.words
                yield End(thing, scope, _CERTAIN, f"{words} ({step.frame.name}())")
    speaking = next((step for step in body.steps if step.role not in SILENT - {None}), None)
    if speaking is not None and body.wait in (Wait.LOCK, Wait.UNKNOWN):
        for verb, thing, _, part in speaking.things():
            if verb is Verb.TAKES and thing is Thing.HELD:
                yield End(thing, family(part), _CERTAIN, f"a lock of {part} ({speaking.frame.name}())")
            elif verb is Verb.TAKES:
                for scope in (None, case.report.comm) if thing in OF_A_PROGRAM else (None,):
                    yield End(thing, scope, _CERTAIN, f"{thing.words} ({speaking.frame.name}())")


def _innermost(steps: tuple[Step, ...]) -> Iterator[Step]:
    """The steps down to the first that says what is waited for, and those of its subsystem around it."""
    part: str | None = None
    for step in steps:
        yield step
        if step.role in SILENT:
            continue
        part = part or step.part
        if step.part != part:
            return


def _answers(case: Case, what: str) -> Iterator[End]:
    """A daemon's or server's answer, or a page or inode that only such an answer sets free."""
    body = case.body
    steps = tuple(s for s in body.inner or body.steps if s.role in (Role.USER_FS, Role.NETWORK_FS))
    for name in families(steps):
        yield End(Thing.ANSWER, name, _CERTAIN if body.wait in ANSWERS else _PROBABLE, what)


def _fewer_dirty_pages(case: Case, what: str) -> End:
    """The limit is the machine's; loop's workers are stopped for pages of the device below only.

    Since Linux 4.13 they carry PF_LOCAL_THROTTLE (then called PF_LESS_THROTTLE) themselves; a FUSE file
    system has a limit of its own.
    """
    version = case.kernel_version
    below = next((n for n in families(case.body.steps) if n != "loop"), None)
    local = case.asker.service is Service.KERNEL and not (version is not None and version < (4, 13))
    if local:
        return End(Thing.DIRTY, below or "the device below", _PROBABLE, what)
    return End(Thing.DIRTY, None, _PROBABLE, what, "the log does not show whose dirty pages fill the limit")


def _held(case: Case, what: str) -> Iterator[End]:
    """A lock of a subsystem, or its progress."""
    body = case.body
    if (step := body.locking) is not None and taken_in(step) is not None:
        taken = f"the lock that {step.frame.name}() takes"
        yield End(Thing.HELD, taken_in(step), _PROBABLE, taken, "whether it is the same lock", Meets.OTHERS)
    if body.reclaim is None:
        for name in at_work_in(body.steps) if body.wait in (Wait.LOCK, Wait.SUBSYSTEM) else ():
            yield End(Thing.HELD, name, _PROBABLE, what)
        yield from _of_another(case, what)
        if ends_in_files(body):
            for name in at_work_in(body.steps):
                yield End(Thing.HELD, name, _POSSIBLE, f"{what}, perhaps for a lock of {name}")
        return
    speaking = next((step for step in body.inner if step.role not in SILENT), None)
    own_code = speaking is not None and speaking.role is Role.BLOCK
    if body.wait in HELD_WAITS | {Wait.RECLAIM_QUEUE} and not (body.wait in ANSWERS and not _carries(case)):
        # who queues behind another reclaimer does not wait for a lock of whoever else works there
        whose = Meets.OWN if body.wait is Wait.RECLAIM_QUEUE else Meets.EVERYBODYS
        for name in families(body.inner):
            yield End(Thing.HELD, name, _PROBABLE, what, meets=whose)
    elif own_code and speaking is not None and (name_ := family(speaking.part)):
        # a driver itself holds the request back, rather than the hardware below it
        yield End(Thing.HELD, name_, _PROBABLE, what)
    if body.wait is Wait.WORK:
        missing = "whether that work, or what it waits for, waits for a new thread"
        yield End(Thing.THREAD, None, _POSSIBLE, what + ", which may need a new thread", missing)


def taken_in(step: Step) -> str | None:
    """A name for the lock that a function takes, if it is no subsystem's; None where the tables know more."""
    known = any(verb is Verb.TAKES for verb, *_ in step.things())
    return None if known or family(step.part) else f"{step.frame.name}()"


def _of_another(case: Case, what: str) -> Iterator[End]:
    """What an ordinary task waits for of the subsystem in whose function it sleeps."""
    body = case.body
    speaking = next((step for step in body.steps if step.role not in SILENT or step.own), None)
    name = family(speaking.part) if speaking is not None else None
    if speaking is None or name is None:
        return
    if body.wait in (Wait.WORK, Wait.COMPLETION):
        yield End(Thing.WORK, name, _PROBABLE, what)
    known = any(verb is Verb.WAITS for verb, *_ in speaking.things())
    if body.wait is Wait.FS and not ends_in_files(body) and not known:
        yield End(Thing.HELD, name, _PROBABLE, what, None, Meets.OTHERS)
    if body.wait in IO_WAITS and speaking.role is Role.BLOCK:
        yield End(Thing.IO, name, _PROBABLE, what, None, Meets.OTHERS)


def ends_in_files(body: Anatomy) -> bool:
    """Whether a stack ends in a file system's own function, as /proc shows who waits for a lock there."""
    first = body.steps[0]
    told = any(verb is Verb.WAITS for verb, *_ in first.things())
    return body.wait is Wait.FS and first.role is Role.FILE_SYSTEM and not told


def asks_again(body: Anatomy) -> bool:
    """Whether a subsystem's function that asks for reserved memory stands further out in the stack, too.

    Stacked block devices have a reserve each.
    """
    if body.wait is not Wait.MEMPOOL or body.reclaim is not None:
        return False
    mine = [s for s in at_work(body.steps) if s.role is not Role.BLOCK]
    names = [name for name, _ in groupby(step.frame.name for step in mine)]
    return len(set(names)) < len(names)


def _carries(case: Case) -> bool:
    """Whether no answer can come before this thread goes on, since it sends, connects or recovers."""
    sends = any(step.role is Role.NETWORK for step in case.body.outer)
    return sends or is_kernel_thread(case.report, case.body)


def _io(case: Case, what: str) -> Iterator[End]:
    """Requests: of the file systems and drivers that reclaim is in, and of some device that is not named."""
    body = case.body
    unreclaimed = body.wait is Wait.MEMPOOL and body.reclaim is None
    if unreclaimed and (case.asker.service is Service.KERNEL or asks_again(body)):
        yield End(Thing.HELD, OF_RESERVES, _PROBABLE, what)
    if body.wait is Wait.MEMPOOL and any(step.does(Verb.COMPLETES, Thing.IO) for step in body.inner):
        missing = "whether the requests that it hands down come from the same reserve"
        yield End(Thing.HELD, OF_RESERVES, _POSSIBLE, what, missing, Meets.OWN)
    if body.reclaim is None or body.wait not in IO_WAITS | HELD_WAITS | {Wait.RECLAIM_QUEUE}:
        return
    if body.wait in ANSWERS:
        return
    for name in families(body.inner):
        yield End(Thing.IO, name, _PROBABLE, what)
    if body.reclaim is Reclaim.DIRECT or body.wait is Wait.MEMPOOL:
        yield End(Thing.IO, None, _PROBABLE, what, _NOT_NAMED)
