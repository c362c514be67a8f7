"""The parts of a stack: what the thread did, whether it went into reclaim, what it waits for at the end.

Nothing here judges; `waits` explains one stack and `diagnose` a whole log, both from an `Anatomy`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import takewhile

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named
from ioflusher.kernlog.stacks.roles import Role, RoleRow, does, named_after, role_of, tagged_rows
from ioflusher.kernlog.stacks.things import Thing, Verb


class Reclaim(Enum):
    """On whose behalf a stack is in memory reclaim."""

    DIRECT = "direct"  # an allocation of this thread
    KSWAPD = "kswapd"  # the kernel's reclaim thread
    FORCED = "forced"  # somebody asked for it: drop_caches, memory.reclaim


class Wait(Enum):
    """What a stack waits for at its innermost end."""

    IO = "io"
    FS = "fs"  # a file system's own progress: journal, transaction, cluster lock
    WRITEBACK = "writeback"
    MEMPOOL = "mempool"  # reserved memory that only finished I/O gives back
    TAG = "tag"  # a request slot that only finished I/O gives back
    PAGE_LOCK = "page-lock"
    PAGE = "page"  # a page that is locked or under writeback
    LOCK = "lock"
    COMPLETION = "completion"
    WORK = "work"  # a kernel work queue
    RCU = "rcu"
    INODE = "inode"
    DAEMON = "daemon"  # a file system in user space
    SERVER = "server"  # a network file system
    FROZEN = "frozen"  # a file system that somebody froze
    THREAD = "thread"  # a kernel thread that has to be made first
    OOM = "oom"  # a process that is killed for its memory
    SOCKET = "socket"
    SUBSYSTEM = "subsystem"  # something of a subsystem, in a function of it that no table lists
    RECLAIM_THROTTLE = "reclaim-throttle"
    DIRTY_THROTTLE = "dirty-throttle"
    RECLAIM_QUEUE = "reclaim-queue"  # another thread's reclaim of the same objects
    SHRINKERS = "shrinkers"  # shrinkers that run
    RUNNING = "running"  # for nothing: it runs or was preempted
    IDLE = "idle"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """A frame with its row of the table.

    Attributes:
        frame: as it was printed.
        row: what the table knows of the function, None for nothing.
    """

    frame: Frame
    row: RoleRow | None

    @property
    def own(self) -> bool:
        """Whether no table lists the function, and its module or its name tells whose it is."""
        return self.row is None and self.part is not None

    @property
    def role(self) -> Role | None:
        """The function's role, None where the table has none."""
        return self.row.role if self.row else None

    @property
    def part(self) -> str | None:
        """The subsystem: the printed module, else the table's, else what the name says; None for none."""
        known = self.row is not None and not self.row.pattern.startswith("*")
        return self.frame.module or (
            self.row.part if self.row and known else named_after(self.frame.function)
        )

    def does(self, verb: Verb, thing: Thing) -> bool:
        """Whether the tables say that the function waits for, takes, holds, frees or completes the thing."""
        return does(self.frame.function, verb, thing)

    def things(self) -> Iterator[tuple[Verb, Thing, str, str | None]]:
        """What the function does with which things, with the table's words for it, and whose they are."""
        for row in tagged_rows(self.frame.function):
            part = row.part if row.role is None and row.part else self.part
            yield from ((tag.verb, tag.thing, row.reason, part) for tag in row.tags)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A stack taken apart.

    Attributes:
        steps: the frames that count, innermost first; `?` frames are left out where there are others.
        reclaim: how the stack came into reclaim, None where it is in none.
        inner: the steps inside reclaim, without the way in; empty outside reclaim.
        outer: the steps outside reclaim and outside the allocation; all steps outside reclaim.
        wait: what the innermost end waits for.
        supposed: reclaim's own functions are not shown, and only what it does tells of it.
    """

    steps: tuple[Step, ...]
    reclaim: Reclaim | None
    inner: tuple[Step, ...]
    outer: tuple[Step, ...]
    wait: Wait
    supposed: bool = False

    @property
    def writes_back(self) -> bool:
        """Whether a throttled writer writes pages back itself and waits there (before Linux 2.6.37)."""
        throttles = any(step.role is Role.DIRTY_THROTTLE for step in self.steps)
        return self.reclaim is None and throttles and self.wait is not Wait.DIRTY_THROTTLE

    @property
    def entry(self) -> tuple[Step, ...]:
        """The steps of the allocation and of the way into reclaim; none outside reclaim."""
        return self.steps[len(self.inner) : len(self.steps) - len(self.outer)]

    @property
    def locking(self) -> Step | None:
        """The function that waits for a lock which belongs to no subsystem; None where there is none.

        A lock's own functions are looked through, those that no table has by what they are called after.
        """
        if self.wait is not Wait.LOCK:
            return None
        step = next((step for step in self.steps if not _is_of_a_lock(step)), None)
        return step if step is not None and step.role in _LOCKS_AT_ALL else None

    def first(self, *roles: Role) -> Step | None:
        """The innermost step with one of these roles, or None."""
        return next((step for step in self.steps if step.role in roles), None)


def _is_of_a_lock(step: Step) -> bool:
    called = step.part is None and any(word in step.frame.name for word in _ABOUT_LOCKS)
    return step.role in _PRIMITIVES or step.role in _TRANSPARENT or called


_ABOUT_LOCKS = ("lock", "down", "wake", "wait", "sched")
# what takes a lock of the whole machine, rather than one of a file's, a socket's or a program's
_LOCKS_AT_ALL = {None, Role.ALLOCATION, Role.FILE_SYSTEM, Role.BLOCK, Role.DRIVER}
_AROUND_ENTRY = {Role.ALLOCATION, Role.MEMPOOL_WAIT, Role.RECLAIM_THROTTLE, Role.HIGH_THROTTLE}
_RECLAIM_WORK = {Role.RECLAIM, Role.SHRINKER, Role.DIRECT_RECLAIM}
_RECLAIM_OWNER = {
    Role.DIRECT_RECLAIM: Reclaim.DIRECT,
    # it waits for pages that are locked or written, as reclaim does
    Role.DIRECT_COMPACTION: Reclaim.DIRECT,
    Role.KSWAPD: Reclaim.KSWAPD,
    Role.FORCED_RECLAIM: Reclaim.FORCED,
}
_INSIDE_RECLAIM = _RECLAIM_WORK - _RECLAIM_OWNER.keys()
# what sleeps on purpose; the compiler may have put the function that does into its caller
THROTTLES_ITSELF = (Role.RECLAIM_THROTTLE, Role.DIRECT_RECLAIM, Role.RECLAIM)
_THROTTLES = {Role.RECLAIM_THROTTLE, Role.HIGH_THROTTLE}
_PAGES_GO = {Role.SWAP_OUT, Role.PAGE_OUT}
# What says by itself what a thread waits for. A general primitive (a lock, a completion, "I/O") is
# looked through: the frames around it say more.
_SPEAKING: dict[Role, Wait] = {
    Role.RECLAIM_THROTTLE: Wait.RECLAIM_THROTTLE,
    Role.HIGH_THROTTLE: Wait.RECLAIM_THROTTLE,
    Role.DIRTY_THROTTLE: Wait.DIRTY_THROTTLE,
    Role.WRITEBACK_WAIT: Wait.WRITEBACK,
    Role.MEMPOOL_WAIT: Wait.MEMPOOL,
    Role.TAG_WAIT: Wait.TAG,
    Role.PAGE_LOCK: Wait.PAGE_LOCK,
    Role.INODE_WAIT: Wait.INODE,
    Role.WORK_WAIT: Wait.WORK,
    Role.RCU_WAIT: Wait.RCU,
    Role.SHRINKER_LOCK: Wait.SHRINKERS,
    Role.RECLAIM_QUEUE: Wait.RECLAIM_QUEUE,
    Role.USER_FS: Wait.DAEMON,
    Role.NETWORK_FS: Wait.SERVER,
    Role.FS_WAIT: Wait.FS,
    Role.FREEZE_WAIT: Wait.FROZEN,
    Role.THREAD_WAIT: Wait.THREAD,
    Role.OOM_WAIT: Wait.OOM,
    Role.IDLE: Wait.IDLE,
}
_THREADS_BEGIN = {Role.SYSCALL, Role.WORKER, Role.PAGE_FAULT}
_PRIMITIVES = {Role.LOCK: Wait.LOCK, Role.COMPLETION: Wait.COMPLETION, Role.IO_WAIT: Wait.IO}
_TRANSPARENT = {Role.SCHEDULE, Role.WAIT_BIT}
# /proc/PID/stack leaves out the scheduler's and the locks' own functions (in_sched_functions()), so
# a stack may end in whatever called them.
_MEANS_IO = {Role.BLOCK, Role.SWAP_OUT, Role.SWAP_IN, Role.PAGE_OUT}
_RUNS = {Role.ALLOCATION, Role.KSWAPD, Role.COMPACTION, Role.DIRECT_COMPACTION, Role.OOM}
_MEANS_FS = {Role.FILE_SYSTEM, Role.WRITEBACK, Role.PLAIN_PATH, Role.NFS_SERVER}


@lru_cache(maxsize=64)  # tasks that wait for the same have the same frames
def dissect(frames: tuple[Frame, ...], comm: str | None = None) -> Anatomy:
    """Take a stack apart. Never fails: an empty stack gives empty parts.

    Args:
        frames: innermost first.
        comm: the task's name, None where it is not known; tells what a stack that was cut has lost.
    """
    counted = _counted(frames)
    steps = tuple(Step(frame, role_of(frame.function)) for frame in counted)
    if _is_turned(steps):
        steps = steps[::-1]
    reclaim, entry = _find_reclaim(steps, comm)
    if reclaim is None:
        return Anatomy(steps, None, (), steps, _wait_of(steps))
    begin = entry
    while begin + 1 < len(steps) and steps[begin + 1].role in _AROUND_ENTRY:
        begin += 1
    if reclaim is Reclaim.DIRECT:
        # what asked for memory may have frames without a row between its allocation frames
        while (deeper := _next_allocation(steps, begin)) is not None:
            begin = deeper
    shown = any(step.role in _RECLAIM_WORK or step.role in _RECLAIM_OWNER for step in steps)
    supposed = not shown and entry == _freed_by_reclaim(steps, comm)
    # the frame itself is the innermost that tells of reclaim, and what it waits for may be its own
    inner = steps[: entry + 1] if supposed else steps[:entry]
    return Anatomy(steps, reclaim, inner, steps[begin + 1 :], _wait_of(steps), supposed)


def _counted(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Without the frames in doubt, unless there are no others; an allocator's count where a stack is cut."""
    sure = tuple(frame for frame in frames if frame.reliable)
    if not sure or not _allocates(sure[-1]):
        return sure or frames
    last = max(i for i, frame in enumerate(frames) if frame.reliable)
    return sure + tuple(takewhile(_allocates, frames[last + 1 :]))


def _allocates(frame: Frame) -> bool:
    row = role_of(frame.function)
    return row is not None and row.role is Role.ALLOCATION


def _is_turned(steps: tuple[Step, ...]) -> bool:
    """Whether the outermost frame comes first: in a viewer's log, or as people write stacks."""
    if len(steps) > 2 and steps[-1].role is Role.SCHEDULE and steps[0].role in _THREADS_BEGIN:
        return True
    ways_in = [i for i, step in enumerate(steps) if step.role in _RECLAIM_OWNER]
    work = [i for i, step in enumerate(steps) if step.role in _INSIDE_RECLAIM]
    return bool(ways_in and work) and ways_in[-1] < work[0]


def _find_reclaim(steps: tuple[Step, ...], comm: str | None) -> tuple[Reclaim | None, int]:
    """How the stack is in reclaim, and the index of the outermost frame that belongs to reclaim."""
    outermost = max((i for i, step in enumerate(steps) if step.role in _RECLAIM_OWNER), default=None)
    if outermost is not None:
        role = steps[outermost].role
        assert role is not None
        owner = _RECLAIM_OWNER[role]
        # try_to_free_mem_cgroup_pages() is also called for memory.reclaim and its like: the outer frame
        # tells; but a shrinker that was asked to free, as for drop_caches, may allocate and reclaim in turn
        if owner is Reclaim.FORCED:
            if any(step.role in (Role.ALLOCATION, Role.OOM) for step in steps[outermost + 1 :]):
                return Reclaim.DIRECT, outermost
            asks = max((i for i, s in enumerate(steps[:outermost]) if s.role is Role.ALLOCATION), default=0)
            nested = (i for i, s in enumerate(steps[:asks]) if s.role is Role.DIRECT_RECLAIM)
            if (begin := max(nested, default=None)) is not None:
                return Reclaim.DIRECT, begin
        return owner, outermost
    work = max((i for i, step in enumerate(steps) if step.role in _RECLAIM_WORK), default=None)
    if work is None:
        # nothing but reclaim writes pages out, or has a file system's inodes freed
        gone = (
            i for i, s in enumerate(steps) if s.role in _PAGES_GO or s.does(Verb.COMPLETES, Thing.RECLAIM)
        )
        work = max(gone, default=None)
    if work is None:
        work = _freed_by_reclaim(steps, comm)
    if work is None:
        thread = kernel_thread_named(comm)
        if thread is not None and thread.gives is Thing.KSWAPD:
            return Reclaim.KSWAPD, len(steps)  # it does nothing else, whatever its stack has lost
        throttled = next((i for i, s in enumerate(steps) if s.role in _THROTTLES), None)
        if throttled is None or _throttled_writer(steps):
            return None, 0
        return Reclaim.DIRECT, throttled
    thread = kernel_thread_named(comm)
    if thread is not None and thread.family == "mm":
        return Reclaim.KSWAPD, work
    outside = {step.role for step in steps[work + 1 :]}
    if outside == {Role.WORKER}:
        return Reclaim.KSWAPD, work  # a thread of the kernel that does nothing else
    # a stack that was cut ends in reclaim itself
    asked = not outside or outside & {Role.ALLOCATION, Role.PAGE_FAULT, Role.SYSCALL}
    if asked:
        return Reclaim.DIRECT, work
    # a subsystem that has objects freed by its own decision
    return (Reclaim.FORCED, work) if steps[work].role is Role.SHRINKER else (None, 0)


def _freed_by_reclaim(steps: tuple[Step, ...], comm: str | None) -> int | None:
    """The step that frees an inode or a page, where reclaim's own functions above it are not shown; or None.

    An allocation frees none but through reclaim, nor does a thread of the kernel that others' I/O needs,
    whose stack is cut there.
    """
    freed = [i for i, step in enumerate(steps) if any(step.does(Verb.FREES, what) for what in _FREED)]
    asks = max((i for i, step in enumerate(steps) if step.role is Role.ALLOCATION), default=0)
    # what frees an inode may allocate, and so come here a second time
    if inside := [i for i in freed if i < asks]:
        return inside[-1]
    thread = kernel_thread_named(comm)
    needed = thread is not None and thread.gives in (Thing.IO, Thing.TRANSACTION)
    return freed[-1] if freed and needed and freed[-1] == len(steps) - 1 else None


_FREED = (Thing.INODE, Thing.PAGE)


def _throttled_writer(steps: tuple[Step, ...]) -> bool:
    """Whether it is a writer that sleeps; before 2.6.37 it did so in congestion_wait(), as reclaim did."""
    return any(step.role is Role.DIRTY_THROTTLE for step in steps)


def _next_allocation(steps: tuple[Step, ...], begin: int) -> int | None:
    """The next allocation frame at most two unknown frames further out, or None."""
    for i in range(begin + 1, min(begin + 4, len(steps))):
        if steps[i].role is Role.ALLOCATION:
            return i
        if steps[i].role is not None:
            return None
    return None


def _wait_of(steps: tuple[Step, ...]) -> Wait:
    primitive: Wait | None = None
    steps = _going_to_sleep(steps)
    # a driver's own function at the very end: it is the one that waits, or /proc would not show it there
    sleeps = bool(steps) and steps[0].row is None and steps[0].frame.module is not None
    unlisted = own = spins = False
    for number, step in enumerate(steps):
        role = step.role
        if role in _TRANSPARENT or role is None:
            sleeps |= role is Role.SCHEDULE
            unlisted |= role is None
            own |= step.own and primitive is None
            continue
        if primitive is Wait.COMPLETION and role is Role.IO_WAIT:
            return Wait.IO  # a completion that a file system awaits for its own request
        if role is Role.SPIN and not step.frame.reliable:
            spins = True  # so does whoever goes to sleep
            continue
        if role is Role.SPIN or (role is Role.PREEMPTED and not (primitive or (sleeps and unlisted))):
            return Wait.RUNNING
        if role is Role.PREEMPTED:
            continue  # left over from before: it sleeps since
        if role is Role.PAGE_WAIT:
            return _which_bit(steps[number + 1 :])
        if role in _PRIMITIVES:
            primitive, own = primitive or _PRIMITIVES[role], False
            continue
        if role is Role.RECLAIM_THROTTLE and _throttled_writer(steps):
            return Wait.DIRTY_THROTTLE
        if role is Role.IDLE and primitive is Wait.LOCK:
            continue  # it waits for a lock there, not for work; or the frame is left over
        if role is Role.KSWAPD and sleeps and not unlisted and primitive is None:
            return Wait.IDLE  # the compiler put kswapd_try_to_sleep() into it
        if role in THROTTLES_ITSELF and sleeps and not unlisted and primitive is None:
            return Wait.RECLAIM_THROTTLE
        if sleeps and not own and primitive is None and _allocates_pages(step):
            return Wait.RECLAIM_THROTTLE  # the compiler put what sleeps there until memory is free into it
        if role is Role.OOM and sleeps and primitive is None:
            return Wait.OOM
        wait = _judge(role, primitive)
        # it gave up the processor in a function that the table does not list
        vague = wait in (Wait.RUNNING, Wait.IDLE) and role is not Role.IDLE
        if sleeps and own and role not in _SPEAKING:
            return Wait.SUBSYSTEM
        return Wait.UNKNOWN if vague and sleeps and unlisted else wait
    if primitive is None and spins:
        return Wait.RUNNING
    return primitive or (Wait.SUBSYSTEM if sleeps and own else Wait.UNKNOWN)


def _allocates_pages(step: Step) -> bool:
    return step.role is Role.ALLOCATION and step.does(Verb.WAITS, Thing.RECLAIM)


def _which_bit(callers: tuple[Step, ...]) -> Wait:
    """Which of a page's bits: reclaim waits for writeback alone, a fault on swapped memory for the lock."""
    caller = next((step for step in callers if step.role not in _TRANSPARENT | {Role.PAGE_WAIT}), None)
    if caller is None:
        return Wait.PAGE
    if caller.role is Role.PAGE_LOCK or caller.does(Verb.WAITS, Thing.SWAPPED):
        return Wait.PAGE_LOCK
    if caller.role is Role.FS_WAIT:
        return Wait.FS  # a bit of the file system's own
    return Wait.WRITEBACK if caller.role in (Role.WRITEBACK_WAIT, Role.RECLAIM) else Wait.PAGE


def _going_to_sleep(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Without the frames of a thread that lost the processor when it was about to sleep anyway.

    So without an allocator's further in than a lock's: locks ask for no memory, it lay on the stack.
    """
    left_over = tuple(takewhile(lambda step: step.role in (Role.ALLOCATION, None), steps))
    rest = steps[len(left_over) :]
    if any(step.role is Role.ALLOCATION for step in left_over) and rest and rest[0].role is Role.LOCK:
        steps = rest
    lost = next((i for i, step in enumerate(steps) if step.role is Role.PREEMPTED), None)
    if lost is None:
        return steps
    return next((steps[i:] for i in range(lost, len(steps)) if steps[i].role is Role.SCHEDULE), steps)


def _judge(role: Role, primitive: Wait | None) -> Wait:
    """What a thread waits for whose innermost speaking frame has this role, below that primitive."""
    if role in _SPEAKING:
        # a lock of FUSE or NFS is held by another client of the daemon, not by the daemon
        if primitive is Wait.LOCK and role in (Role.USER_FS, Role.NETWORK_FS, Role.WRITEBACK_WAIT):
            return Wait.LOCK
        return _SPEAKING[role]
    if role is Role.NETWORK:
        return primitive if primitive is Wait.LOCK else Wait.SOCKET
    if primitive:
        return primitive
    if role in _MEANS_IO:
        return Wait.IO
    if role in _MEANS_FS:
        return Wait.FS
    if role is Role.DRIVER:
        return Wait.COMPLETION
    if role is Role.WORKER:
        return Wait.IDLE  # a kernel thread between two pieces of work
    if role in _RECLAIM_WORK or role in _RUNS:
        return Wait.RUNNING
    return Wait.UNKNOWN
