"""What a waiting task holds, or has to bring about before others go on, as ends of edges."""

from collections.abc import Iterator
from itertools import dropwhile

from ioflusher.kernlog.judging.ends import End, Meets
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence
from ioflusher.kernlog.judging.needs import (
    HELD_BY_SOMEBODY,
    HELD_WAITS,
    IO_WAITS,
    OF_A_HOLDER,
    OF_A_PROGRAM,
    OF_A_VICTIM,
    OF_RESERVES,
    SILENT,
    asks_again,
    ends_in_files,
    goes_on,
    taken_in,
    waits_for_a_worker,
)
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step, Wait
from ioflusher.kernlog.stacks.askers import Service, asking_parts, at_work_in, is_kernel_thread
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import completing_families, families, family
from ioflusher.kernlog.stacks.things import Thing, Verb

_CERTAIN, _PROBABLE, _POSSIBLE = Confidence.CERTAIN, Confidence.PROBABLE, Confidence.POSSIBLE
# what reclaim itself has in hand while it calls others; all else was taken before the allocation
_RECLAIMS_OWN = frozenset({Thing.S_UMOUNT, Thing.INODE, Thing.PAGE, Thing.HELD})
_OWN_SERVER = "the log does not say that the mount is of this machine itself"
# what waits for a daemon that serves so (daemons.txt); what is no file system is a device
_FILE_SYSTEMS = {
    "fuse": ("fuse",),
    "nfs": ("nfs",),
    "cluster": ("gfs2", "ocfs2"),
    "autofs4": ("autofs4",),
    "orangefs": ("orangefs",),
    "coda": ("coda",),
    "fscache": ("fscache",),
    "ceph": ("ceph",),
    "cifs": ("cifs",),
    "9p": ("9p",),
}


def gifts(case: Case, facts: Facts) -> tuple[End, ...]:
    """What others, or the task itself, may wait for it to give; nothing where it runs."""
    if goes_on(case, facts):
        return ()
    found = (
        *_served(case, facts),
        *_by_name(case),
        *_tagged(case),
        *_in_reclaim(case, facts),
        *_isolated(case, facts),
        *_in_the_middle(case),
        *_nfs_server(case),
        *_perhaps(case, facts),
        *_inside(case),
        *_asked_for_by(case),
        *_on_its_way(case, facts),
    )
    return tuple({end.key: end for end in reversed(found)}.values())[::-1]


def _served(case: Case, facts: Facts) -> Iterator[End]:
    """What a storage daemon, or a kernel's storage worker, completes."""
    daemon, asker = case.asker.daemon, case.asker
    server = facts.server_of(case.report)
    if server is not None and server.serves not in _FILE_SYSTEMS:
        sure = server.runs(case.report)
        who = f"{'its process' if sure else 'a program of its name'} serves {server.device}"
        for thing in (Thing.IO, Thing.DIRTY):
            yield End(thing, server.device, _CERTAIN if sure else _PROBABLE, who)
    if asker.service is Service.DAEMON and daemon is not None and not facts.excused(daemon):
        who = f"it is needed to complete I/O ({daemon.name.rstrip('*-')}: {daemon.about})"
        for name in _FILE_SYSTEMS.get(daemon.serves, ()):
            yield End(Thing.ANSWER, name, _PROBABLE, who)
        for scope in (daemon.serves, None):
            yield End(Thing.IO, scope, _PROBABLE, who)
            yield End(Thing.DIRTY, scope, _PROBABLE, who)
    if case.report.workqueue or any(step.does(Verb.COMPLETES, Thing.WORK) for step in case.body.outer):
        for name in families(case.body.outer):
            yield End(Thing.WORK, name, _PROBABLE, f"it is a worker at {name}'s work")
    if asker.service is Service.KERNEL:
        who = f"it is needed to complete I/O (the kernel's worker for {asker.completes or 'storage'})"
        for scope in dict.fromkeys((asker.part, asker.completes, None)):
            yield End(Thing.IO, scope, _PROBABLE, who)
        for scope in dict.fromkeys((asker.completes, None)):
            yield End(Thing.DIRTY, scope, _PROBABLE, who)
        for name in families(case.body.outer):
            yield End(Thing.ANSWER, name, _PROBABLE, who, meets=Meets.OWN)
        if asker.completes:
            yield End(Thing.HELD, asker.completes, _PROBABLE, who)


def _by_name(case: Case) -> Iterator[End]:
    """What a kernel thread is known to bring about, whatever its stack shows."""
    thread = kernel_thread_named(case.report.comm)
    if thread is not None and thread.gives is not None and thread.gives is not Thing.IO:
        scope = thread.family if thread.gives is Thing.TRANSACTION else None
        yield End(thread.gives, scope, _CERTAIN, f"it is {case.report.comm}: {thread.about}")


def _tagged(case: Case) -> Iterator[End]:
    """What the tables say that the functions on its stack hold and complete."""
    body = case.body
    below = next((step for step in body.steps if step.role is not None), None)
    for step in body.outer:
        for verb, thing, reason, part in step.things():
            if verb in (Verb.HOLDS, Verb.COMPLETES) or (verb is Verb.TAKES and not _is_taking(case, step)):
                yield from _by_function(case, step, thing, reason, family(part))
        if step.role is Role.WRITEBACK:
            yield End(Thing.WRITEBACK, None, _PROBABLE, _UNSENT)
    for step in body.inner:
        for verb, thing, reason, _ in step.things():
            if verb is Verb.HOLDS and thing in _RECLAIMS_OWN and step is not below:
                # reclaim and compaction have some pages locked while they wait for another; and where it does
                # not show which bit of a page is waited for, it is not the lock of one that is locked already
                others = step.role in _LOCK_SEVERAL or (thing is Thing.PAGE and body.wait is Wait.PAGE)
                whose = Meets.OTHERS if others else Meets.EVERYBODYS
                scope = family(step.part) if thing is Thing.HELD else None
                because = f"its reclaim is in {step.frame.name}() ({reason})"
                yield End(thing, scope, _CERTAIN, because, None, whose)


_LOCK_SEVERAL = frozenset({Role.COMPACTION, Role.RECLAIM, Role.PAGE_OUT})
_UNSENT = (
    "it prepares pages for writing, has marked them as under writeback and may not have sent them off yet"
)


def _by_function(case: Case, step: Step, thing: Thing, reason: str, part: str | None) -> Iterator[End]:
    name = f"{step.frame.name}()"
    if thing is Thing.WRITEBACK:
        missing = "the log does not show which page it waits for"
        yield End(thing, None, _PROBABLE, _UNSENT, missing)
    elif thing is Thing.FS_IO:
        yield from _ends_io(case, name, part)
    elif thing is Thing.IO and case.body.reclaim and case.body.wait in IO_WAITS | HELD_WAITS:
        why = f"it asked for memory below {name}, where requests of a device wait for it"
        yield End(thing, None, _PROBABLE, why, "the log does not show that reclaim waits for the same device")
    elif thing is Thing.QUEUE:
        why = f"it is in the middle of a change to a block device's queue ({name})"
        yield End(thing, None, _PROBABLE, why, "the log does not show that both are the same queue")
    elif thing in (Thing.TRANSACTION, Thing.HELD):
        if part:
            yield End(thing, part, _PROBABLE, f"it is in {name} ({reason})")
    elif thing in OF_A_PROGRAM:
        # programs that write write different files, unless they are one; a full cgroup's tasks share some
        scope = None if case.body.wait is Wait.OOM else case.report.comm
        yield End(thing, scope, _CERTAIN, f"it is in {name} ({reason})")
    elif thing not in (Thing.WORK, Thing.IO):
        yield End(thing, None, _CERTAIN, f"it is in {name} ({reason})")


def _ends_io(case: Case, name: str, part: str | None) -> Iterator[End]:
    """A file system's own thread tells whoever waits for a request or page that it has ended."""
    if not is_kernel_thread(case.report, case.body):
        return
    why = f"it has to end a file system's I/O ({name})"
    for kind in (Thing.IO, Thing.FS_IO, Thing.HELD) if part else ():
        yield End(kind, part, _PROBABLE, why)
    for kind in (Thing.WRITEBACK, Thing.PAGE):
        yield End(kind, None, _PROBABLE, why, "the log does not show whose page it waits for")
    if case.body.wait is Wait.RECLAIM_THROTTLE and case.asker.service is not Service.FLUSHER:
        yield End(Thing.IO, None, _PROBABLE, why, None, Meets.OWN)


def _is_taking(case: Case, step: Step) -> bool:
    """Whether it stands in the function only because it waits for what that takes."""
    speaking = next((s for s in case.body.steps if s.role not in _LOCKS), None)
    return speaking is step


_LOCKS = frozenset({Role.SCHEDULE, Role.WAIT_BIT, Role.LOCK, Role.COMPLETION, Role.IO_WAIT})


def _in_reclaim(case: Case, facts: Facts) -> Iterator[End]:
    """What a reclaimer that waits keeps from others."""
    body = case.body
    if body.reclaim is None or body.wait is Wait.RUNNING:
        return
    shrinks = any(step.role is Role.SHRINKER for step in body.inner)
    if shrinks and body.wait is not Wait.SHRINKERS:
        yield End(Thing.SHRINKERS, None, _CERTAIN, "it is in a shrinker, and waits there")
    if body.wait is Wait.MEMPOOL:
        yield End(Thing.HELD, OF_RESERVES, _PROBABLE, "the requests that its reclaim began have much of it")
    if body.reclaim is not Reclaim.FORCED and body.wait is Wait.RECLAIM_THROTTLE and _asks_for_memory(body):
        why = "it reclaims, and asked for that memory in the middle of it"
        yield End(Thing.RECLAIM, None, _POSSIBLE, why, "whether others free memory")
    drivers = any(step.own or step.role in (Role.BLOCK, Role.DRIVER) for step in body.inner)
    files = any(step.part == "fs" or step.role in (Role.FILE_SYSTEM, Role.FS_WAIT) for step in body.inner)
    log = any(step.does(Verb.WAITS, Thing.TRANSACTION) for step in body.inner)
    answer = body.wait in (Wait.DAEMON, Wait.SERVER)
    works = body.wait in (Wait.LOCK, Wait.COMPLETION, Wait.WORK, Wait.SUBSYSTEM)
    held = shrinks and drivers and not files and works
    # who is throttled waits for the others
    kernels = body.reclaim is Reclaim.KSWAPD and body.wait is not Wait.RECLAIM_THROTTLE
    behind_others = body.wait in HELD_BY_SOMEBODY or waits_for_a_worker(case, facts)
    if body.reclaim is Reclaim.DIRECT and behind_others:
        yield End(Thing.RECLAIM, OF_A_HOLDER, _PROBABLE, "its reclaim waits, as that of others would")
    if held or answer or kernels:
        how = "it reclaims, and waits itself"
        sure = log or body.wait in HELD_WAITS
        missing = "for how long it waits for that lock" if body.wait is Wait.LOCK and not held else None
        yield End(Thing.RECLAIM, None, _PROBABLE if sure else _POSSIBLE, how, missing)


def _asks_for_memory(body: Anatomy) -> bool:
    """Whether what reclaim calls sleeps for memory itself, though it may take all that is left."""
    speaking = next((step for step in body.inner if step.role not in SILENT), None)
    return speaking is not None and speaking.role is Role.ALLOCATION


def _inside(case: Case) -> Iterator[End]:
    """Locks that a reclaimer may have taken on its way through subsystems, to the one that it waits in."""
    body = case.body
    if body.reclaim is None or body.wait not in HELD_WAITS | {Wait.IO}:
        return
    for name in families(body.inner)[1:]:
        why = f"its reclaim is in the middle of {name}'s work, and may have a lock of it"
        yield End(Thing.HELD, name, _PROBABLE, why, None, Meets.OTHERS)


def _on_its_way(case: Case, facts: Facts) -> Iterator[End]:
    """Locks that others wait for in functions that it is in, and those of the subsystems around."""
    body = case.body
    inside = body.locking
    for step in (*body.entry, *body.outer) if facts.locking else ():
        if step is not inside and step.frame.name in facts.locking and (scope := taken_in(step)) is not None:
            why = f"it is in {step.frame.name}(), which takes the lock, and has gone on from there"
            yield End(Thing.HELD, scope, _PROBABLE, why, None, Meets.OTHERS)
    if body.reclaim is None and body.wait in HELD_WAITS | {Wait.IO, Wait.TAG, Wait.MEMPOOL}:
        elsewhere = inside is not None and taken_in(inside) is not None
        for name in at_work_in(body.steps)[0 if elsewhere else 1 :]:
            why = f"it waits in the middle of {name}'s work, and may have a lock of it"
            yield End(Thing.HELD, name, _PROBABLE, why, None, Meets.OTHERS)


def _asked_for_by(case: Case) -> Iterator[End]:
    """Where a stack is cut before it shows who asked: perhaps the file system that reclaim is in."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT or body.outer or body.wait not in HELD_BY_SOMEBODY:
        return
    missing = "the part of its stack that shows who asked for memory"
    for name in families(tuple(s for s in body.inner if s.role in (Role.FILE_SYSTEM, Role.FS_WAIT))):
        why = f"{name} may have asked for that memory in the middle of its own work"
        # a program that is called after a file system, such as zfs, is at its work
        whose = Meets.EVERYBODYS if case.report.comm == name else Meets.OTHERS
        yield End(Thing.HELD, name, _POSSIBLE, why, missing, whose)


def _isolated(case: Case, facts: Facts) -> Iterator[End]:
    """Pages that a reclaimer took off the lists, where it waits for others to put theirs back.

    kswapd would put some back, and would not sleep if these tasks' allocations could be met.
    """
    body = case.body
    if facts.kswapd_idle and waits_for_isolated(body):
        missing = "whether that task has pages in hand"
        why = "it reclaims and waits itself, and kswapd sleeps"
        yield End(Thing.RECLAIM, None, _PROBABLE, why, missing, Meets.OTHERS)


def waits_for_isolated(body: Anatomy) -> bool:
    """Whether a reclaimer sleeps until others have put back the pages that they took off the lists."""
    if body.reclaim is not Reclaim.DIRECT or body.wait is not Wait.RECLAIM_THROTTLE:
        return False
    roles = [step.role for step in body.inner if step.role not in SILENT]
    # the compiler may have put the function that sleeps into the one that looks for pages
    if roles[:1] == [Role.RECLAIM_THROTTLE]:
        del roles[0]
    return roles[:1] == [Role.RECLAIM] and not any(step.part == "memcg" for step in body.steps)


def _in_the_middle(case: Case) -> Iterator[End]:
    """Something of the subsystem whose code asked for memory, or waits for all shrinkers or a new thread."""
    body = case.body
    if body.reclaim in (Reclaim.DIRECT, Reclaim.FORCED):
        for name in asking_parts(body):
            why = (
                f"{name} asked for memory in the middle of its own work, and may hold or have to do what is "
                "waited for"
            )
            yield End(Thing.HELD, name, _PROBABLE, why)
        thread = kernel_thread_named(case.report.comm)
        if thread is not None and thread.family is not None:
            why = f"it is a thread of {thread.family}'s own ({thread.about}), and asked for memory"
            yield End(Thing.HELD, thread.family, _PROBABLE, why)
        if waits_for_isolated(body):
            for name in families(body.outer):
                why = f"it asked for memory on a way through {name}, and may have a lock of it"
                yield End(Thing.HELD, name, _POSSIBLE, why, None, Meets.OTHERS)
    elif body.reclaim is None and (body.wait in _IN_HAND or _takes_mmap_lock(case) or ends_in_files(body)):
        inside = tuple(dropwhile(lambda step: step.role in _FAULTS, body.steps))
        for name in at_work_in(inside):
            why = f"it is in the middle of {name}'s work, and may hold what is waited for"
            yield End(Thing.HELD, name, _PROBABLE, why, None, Meets.OTHERS)
    elif body.wait is Wait.THREAD:
        for name in families(body.steps):
            yield End(Thing.HELD, name, _PROBABLE, f"it works in {name}, and cannot go on without a thread")
    elif body.wait is Wait.SHRINKERS:
        # an unmount waits for shrinkers, but holds nothing of theirs
        owners = tuple(step for step in body.outer if step.role in (Role.BLOCK, Role.DRIVER))
        for name in families(owners):
            yield End(Thing.HELD, name, _PROBABLE, f"it works in {name}, and may hold its lock")
    elif case.report.owner is not None:
        for name in families(body.steps):
            yield End(Thing.HELD, name, _PROBABLE, f"it works for {name}, and cannot go on without the lock")


def _takes_mmap_lock(case: Case) -> bool:
    taking = (step for step in case.body.steps if step.does(Verb.TAKES, Thing.MMAP_LOCK))
    return any(_is_taking(case, step) for step in taking)


# how a subsystem's code comes to wait for a page, or for a process's memory
_FAULTS = (SILENT - {None}) | {Role.PAGE_FAULT, Role.PAGE_WAIT, Role.PAGE_LOCK, Role.WRITEBACK_WAIT}
# what is waited for with a subsystem's lock in hand, rather than for one
_IN_HAND = frozenset(
    {
        *(Wait.INODE, Wait.PAGE, Wait.PAGE_LOCK, Wait.WRITEBACK, Wait.FROZEN),
        *(Wait.OOM, Wait.MEMPOOL, Wait.DIRTY_THROTTLE),
    }
)


def _nfs_server(case: Case) -> Iterator[End]:
    """A thread of this machine's NFS server."""
    if any(step.role is Role.NFS_SERVER for step in case.body.outer):
        why = "it is a thread of this machine's NFS server"
        yield End(Thing.ANSWER, "nfs", _PROBABLE, why, _OWN_SERVER)


def _perhaps(case: Case, facts: Facts) -> Iterator[End]:
    """Programs whose name tells nothing, and tasks that may be the OOM killer's choice."""
    body, asker = case.body, case.asker
    programs = facts.families & _SERVED_BY_PROGRAMS
    sends = any(step.role is Role.NETWORK for step in body.outer)
    if asker.service not in (Service.DAEMON, Service.KERNEL) and body.wait in IO_WAITS and sends and programs:
        why = (
            "it sends on a socket, and this machine uses a device that a program serves "
            f"({', '.join(sorted(programs))})"
        )
        missing = "whether this program serves that device (--daemon, --snapshot)"
        yield End(Thing.IO, None, _POSSIBLE, why, missing, meets=Meets.OWN)
    if asks_again(body):
        why = "it has some of that reserve in hand, from further out in its stack"
        yield End(Thing.HELD, OF_RESERVES, _PROBABLE, why, "whether it is the same reserve", Meets.OWN)
    if (job := _unlisted_job(case)) and body.wait in IO_WAITS:
        why = f"it is a thread of the kernel at {job}'s work, which that I/O may need"
        missing = f"whether the device needs {job}"
        yield End(Thing.IO, None, _POSSIBLE, why, missing, meets=Meets.OWN)
    if (driver := _cut_in_a_driver(case)) and body.wait in IO_WAITS:
        why = f"it is at {driver}'s work, which a thread of the kernel does, and that I/O may need it"
        missing = "the outer part of its stack, which would show whose it is"
        yield End(Thing.IO, None, _POSSIBLE, why, missing, Meets.OWN)
    for name in _software_below_swap(body):
        why = f"it swaps out to {name}, which needs memory to go on, and memory is made by swapping out"
        yield End(Thing.HELD, name, _POSSIBLE, why, f"the stacks of {name}'s own threads", Meets.OWN)
    user_fs = any(step.role is Role.USER_FS for step in body.inner)
    if body.reclaim is Reclaim.DIRECT and user_fs and not case.report.comm:
        missing = "the name of the program whose stack this is"
        yield End(
            Thing.ANSWER, "fuse", _POSSIBLE, "it may be that file system's own daemon", missing, Meets.OWN
        )
    throttled = body.reclaim is Reclaim.DIRECT and body.wait is Wait.RECLAIM_THROTTLE
    if facts.victims and (throttled or body.wait is Wait.OOM):
        yield End(Thing.HELD, OF_A_VICTIM, _PROBABLE, "it asked for memory, perhaps with that lock in hand")
    if facts.is_victim(case.report):
        # it is given memory of the reserve itself
        yield End(Thing.VICTIM, None, _CERTAIN, "the OOM killer chose it", None, Meets.OTHERS)
    elif not facts.victims and body.reclaim is None and body.wait in HELD_WAITS | {Wait.UNKNOWN}:
        if is_kernel_thread(case.report, body):
            return  # it is never chosen
        missing = "whether that task is the one that was killed"
        yield End(Thing.VICTIM, None, _PROBABLE, "it may be the one that the OOM killer chose", missing)


def _unlisted_job(case: Case) -> str | None:
    """The subsystem that no table lists and that a thread of the kernel works for; None for none."""
    if case.asker.service is not Service.INTERNALS or not is_kernel_thread(case.report, case.body):
        return None
    job = next((step for step in reversed(case.body.outer) if step.role is not Role.WORKER), None)
    # where it works for another one, or for the machine's memory, that is no reason to think of a device
    return family(job.part) if job and job.own and family(job.part) == case.asker.part else None


def _cut_in_a_driver(case: Case) -> str | None:
    """What completes I/O, where a stack of nobody's is cut in its functions; None for any other."""
    body = case.body
    if case.report.comm is not None or body.reclaim is not Reclaim.DIRECT or not body.outer:
        return None
    if is_kernel_thread(case.report, body):
        return None
    driver = family(body.outer[-1].part) if body.outer[-1].role is Role.BLOCK else None
    return driver if driver in completing_families() else None


def _software_below_swap(body: Anatomy) -> tuple[str, ...]:
    """The subsystem that swap-out waits for: not for a device below it, but for its own progress."""
    swaps = any(step.role is Role.SWAP_OUT for step in body.inner)
    if not swaps or body.wait not in (Wait.FS, Wait.SUBSYSTEM):
        return ()
    return families(tuple(step for step in body.inner if step.own or step.role is Role.BLOCK))


# drivers whose devices' requests a program completes
_SERVED_BY_PROGRAMS = frozenset({"nbd", "ublk_drv", "target_core_user"})
