"""One stack explained: why the thread stands where it stands, in a sentence."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.anatomy import THROTTLES_ITSELF, Anatomy, Reclaim, Step, Wait, dissect
from ioflusher.kernlog.stacks.roles import Role, role_of
from ioflusher.kernlog.stacks.things import Thing, Verb


class StackKind(Enum):
    """What a stack shows, seen from a thread that others rely on for their I/O."""

    RECLAIM_IO = "reclaim-io"  # its allocation went into reclaim and waits for I/O there
    RECLAIM_LOCK = "reclaim-lock"  # its allocation went into reclaim and waits for a lock there
    RECLAIM_THROTTLED = "reclaim-throttled"  # reclaim made it sleep
    RECLAIM_SPINNING = "reclaim-spinning"  # it reclaims without starting I/O and without success
    DIRTY_THROTTLED = "dirty-throttled"  # it sleeps until fewer pages are dirty
    IDLE = "idle"  # it waits for work
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class MarkedFrame:
    """A frame with what its function does.

    Attributes:
        frame: as it was printed.
        role: the function's role, None where the table of functions has no row.
        reason: the row's few words, empty without a row.
    """

    frame: Frame
    role: Role | None
    reason: str

    @property
    def label(self) -> str:
        """The role in words for a margin, empty without a role."""
        return self.role.value.replace("-", " ") if self.role else ""


@dataclass(frozen=True, slots=True)
class StackExplanation:
    """What a stack says.

    Attributes:
        kind: which of the cases it is.
        marked: every frame of the stack in its order, with roles.
        sentence: one plain sentence; begins with "its" or "it", which stands for the thread.
        self_wait: if this thread serves a device or a file system, it waits for what it would have to do.
    """

    kind: StackKind
    marked: tuple[MarkedFrame, ...]
    sentence: str
    self_wait: bool


def explain_stack(frames: tuple[Frame, ...], comm: str | None = None) -> StackExplanation:
    """Say why a thread stands where it stands. Never fails.

    Args:
        frames: innermost first.
        comm: the task's name; None where it is not known.
    """
    body = dissect(frames, comm)
    kind = _kind_of(body)
    return StackExplanation(kind, mark(frames), _sentence(kind, body), kind in SELF_WAITS)


# A lock met in reclaim is held for the sake of a file system or device, so it counts.
SELF_WAITS = frozenset(
    {StackKind.RECLAIM_IO, StackKind.RECLAIM_LOCK, StackKind.RECLAIM_THROTTLED, StackKind.DIRTY_THROTTLED}
)


_SLEEPS_FOR_MEMORY = (*THROTTLES_ITSELF, Role.ALLOCATION)


def mark(frames: tuple[Frame, ...]) -> tuple[MarkedFrame, ...]:
    """The frames with their roles, in their order; `?` frames stay unmarked."""
    rows = (role_of(frame.function) if frame.reliable else None for frame in frames)
    return tuple(
        MarkedFrame(frame, row.role if row else None, row.reason if row else "")
        for frame, row in zip(frames, rows, strict=True)
    )


def _kind_of(body: Anatomy) -> StackKind:
    if body.wait is Wait.DIRTY_THROTTLE:
        return StackKind.DIRTY_THROTTLED
    if body.reclaim is Reclaim.DIRECT:
        match body.wait:
            case Wait.RECLAIM_THROTTLE:
                return StackKind.RECLAIM_THROTTLED
            case Wait.RUNNING | Wait.UNKNOWN:
                return StackKind.RECLAIM_SPINNING
            case Wait.LOCK | Wait.RCU | Wait.SHRINKERS | Wait.RECLAIM_QUEUE | Wait.SUBSYSTEM:
                return StackKind.RECLAIM_LOCK
            case _:
                return StackKind.RECLAIM_IO
    return StackKind.IDLE if body.wait is Wait.IDLE else StackKind.OTHER


def _sentence(kind: StackKind, body: Anatomy) -> str:
    need = memory_need(body)
    match kind:
        case StackKind.DIRTY_THROTTLED:
            stores = {Role.FILE_SYSTEM, Role.PLAIN_PATH}
            writer = next((s for s in reversed(body.steps) if s.role in stores), None)
            how = f"its write in {writer.frame.name}()" if writer else "its write"
            return f"{how} was stopped by the kernel until other dirty pages have been written"
        case StackKind.RECLAIM_THROTTLED if body.first(Role.HIGH_THROTTLE):
            return "it is over its memory cgroup's memory.high, and the kernel made it sleep for that"
        case StackKind.RECLAIM_THROTTLED:
            where = next(s.frame.name for s in body.steps if s.role in _SLEEPS_FOR_MEMORY)
            return f"{need}, and direct reclaim made it sleep in {where}() until other writes end"
        case StackKind.RECLAIM_SPINNING:
            return (
                f"{need}, and direct reclaim runs without starting I/O: there is little left that it may free"
            )
        case StackKind.RECLAIM_IO | StackKind.RECLAIM_LOCK:
            return f"{need}, {reclaimer(body)} {reclaim_deed(body)}, and it waits there for {awaited(body)}"
        case StackKind.IDLE:
            return "it waits for work"
        case _ if body.wait is Wait.RUNNING:
            return "it runs"
        case _ if body.reclaim is None and any(step.does(Verb.WAITS, Thing.SWAPPED) for step in body.steps):
            return f"to have its own memory back from swap, it waits for {awaited(body)}"
        case _ if body.steps:
            return f"it waits for {awaited(body)}, {_PLACE[body.reclaim]}"
    return "no stack was read"


_PLACE = {
    None: "outside memory reclaim",
    Reclaim.DIRECT: "in memory reclaim",
    Reclaim.KSWAPD: "in the kernel's own reclaim thread",
    Reclaim.FORCED: "in reclaim that somebody asked for",
}

# the ways into the kernel that say little; what they call says more
_ENTRY = {Role.SYSCALL, Role.WORKER, Role.SCHEDULE, Role.WAIT_BIT}


def memory_need(body: Anatomy) -> str:
    """Who needed memory: "its tcp_sendmsg() allocated memory"."""
    asker = asking_step(body)
    if asker is None:
        return "it allocated memory"
    if asker.role is Role.PAGE_FAULT:
        return f"its page fault ({asker.frame.name}()) needed memory"
    return f"its {asker.frame.name}() allocated memory"


def asking_step(body: Anatomy) -> Step | None:
    """The outermost function that does the thread's own work around the allocation, None if lost."""
    known = [step for step in body.outer if step.role not in _ENTRY]
    faults = [step for step in known if step.role is Role.PAGE_FAULT]
    if faults:
        return faults[0]
    named = [step for step in known if step.role is not None]
    # sock_sendmsg() says less than the protocol below it
    telling = [step for step in named if step.part != "net"]
    return (telling or named or known)[-1] if known else None


def reclaim_deed(body: Anatomy) -> str:
    """What reclaim set out to do, from the frames inside it."""
    roles = {step.role for step in body.inner}
    if any(step.role is Role.DIRECT_COMPACTION for step in body.steps):
        return "moved pages to make a larger run"
    if Role.SWAP_OUT in roles:
        return "began to swap a page out" + _to_device(body)
    if Role.PAGE_OUT in roles:
        if any(step.role is Role.FILE_SYSTEM for step in body.inner):
            return "began to write a page of a file back"
        return "began to write a page out" + _to_device(body)
    if Role.SHRINKER in roles:
        owner = owner_of_shrinker(body)
        what = "inodes" if any(_frees_inodes(step) for step in body.inner) else "objects"
        return f"began to free {owner} {what}" if owner else f"began to free kernel {what}"
    if Role.BLOCK in roles:
        return "sent the pages that it had queued for writing" + _to_device(body)
    return "looked for pages to free"


# what comes before such a function in a stack may be there for a directory entry's sake
def _frees_inodes(step: Step) -> bool:
    return step.does(Verb.FREES, Thing.INODE)


# parts of the kernel that every file system or device passes through: they name nobody
GENERAL_PARTS = frozenset({None, "mm", "memcg", "fs", "block", "net", "tcp", "quota"})
_OWNERS = {
    Role.FILE_SYSTEM,
    Role.FS_WAIT,
    Role.IO_WAIT,
    Role.PLAIN_PATH,
    Role.DRIVER,
    Role.BLOCK,
    Role.NETWORK_FS,
    Role.USER_FS,
    Role.NFS_SERVER,
}


def reclaimer(body: Anatomy) -> str:
    """What the allocation entered: direct reclaim or direct compaction."""
    compacts = any(step.role is Role.DIRECT_COMPACTION for step in body.steps)
    return "direct compaction" if compacts else "direct reclaim"


def owner_of_shrinker(body: Anatomy) -> str | None:
    """The subsystem whose objects reclaim frees: the innermost one named below shrink_slab()."""
    parts = [
        step.part for step in body.inner if step.role is not Role.SHRINKER and step.part not in GENERAL_PARTS
    ]
    return parts[-1] if parts else None


def _to_device(body: Anatomy) -> str:
    roles = {step.role for step in body.inner}
    return " to a block device" if roles & {Role.BLOCK, Role.MEMPOOL_WAIT, Role.TAG_WAIT} else ""


def awaited(body: Anatomy) -> str:
    """What the stack waits for, as the end of "it waits for"."""
    writing = any(step.role in (Role.PAGE_OUT, Role.SWAP_OUT) for step in body.inner)
    owners = (s.part for s in body.steps if (s.own or s.role in _OWNERS) and s.part not in GENERAL_PARTS)
    part = next(owners, None)
    match body.wait:
        case Wait.IO | Wait.COMPLETION | Wait.FS if writing:
            return "that write"
        case Wait.IO | Wait.COMPLETION if body.inner:
            return f"I/O that {part} started" if part else "I/O"
        case Wait.MEMPOOL:
            return "reserved memory that only a finished write gives back"
        case Wait.TAG:
            return "a free request slot, which only a finished request gives back"
        case Wait.SOCKET:
            return "the socket that carries requests" if body.inner else "a socket"
        case Wait.SUBSYSTEM:
            return f"{part} to get on"
        case Wait.FS:
            return (f"{part} to get on" if part else "a file system to get on") + _why_it_waits(body)
        case Wait.WORK:
            return _AWAITED[Wait.WORK] + _why_it_waits(body)
        case Wait.LOCK:
            return f"a lock of {part}" if part else "a lock"
        case wait:
            return _AWAITED[wait]


def _why_it_waits(body: Anatomy) -> str:
    """What the file system waits for, in the table's words, where a frame says it."""
    step = body.first(Role.FS_WAIT)
    return f" ({step.row.reason})" if step and step.row else ""


_AWAITED = {
    Wait.IO: "I/O",
    Wait.WRITEBACK: "a page that is being written",
    Wait.PAGE: "a page that somebody has locked or writes",
    Wait.PAGE_LOCK: "the lock of a page that somebody reads or writes",
    Wait.COMPLETION: "an event that somebody else must report",
    Wait.WORK: "work that it gave to a kernel work queue",
    Wait.RCU: "every processor to pass a quiet point",
    Wait.INODE: "an inode that somebody else frees",
    Wait.DAEMON: "the answer of a file system's daemon",
    Wait.SERVER: "the answer of a network file system's server",
    Wait.FROZEN: "a frozen file system to be thawed",
    Wait.THREAD: "a kernel thread to be made",
    Wait.OOM: "a process that is killed for its memory",
    Wait.RECLAIM_THROTTLE: "reclaim to make progress",
    Wait.DIRTY_THROTTLE: "dirty pages to be written",
    Wait.RECLAIM_QUEUE: "another thread that reclaims the same objects",
    Wait.SHRINKERS: "every shrinker that runs",
    Wait.RUNNING: "nothing",
    Wait.IDLE: "work",
    Wait.UNKNOWN: "something that its stack does not name",
}
