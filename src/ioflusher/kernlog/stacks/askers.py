"""Who a waiting thread is to others: a daemon, the kernel's storage worker, a file system at work, nobody."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from ioflusher.kernlog.records import DeviceServer, TaskReport
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named
from ioflusher.kernlog.stacks.roles import Role, role_of
from ioflusher.kernlog.stacks.subsystems import completing_families, families, family
from ioflusher.kernlog.stacks.things import Thing, Verb

DAEMON_TABLE = "daemons.txt"
# a daemon that serves nothing of the machine that it runs on
_NOT_HERE = "osd"


class Service(Enum):
    """What others need a thread for."""

    DAEMON = "daemon"  # a program whose answers complete other threads' I/O
    KERNEL = "kernel"  # a kernel thread that completes I/O of a device or a network file system
    FLUSHER = "flusher"  # writes dirty pages back
    INTERNALS = "internals"  # code of a subsystem, which may hold its locks or a transaction
    ORDINARY = "ordinary"  # nobody needs it, as far as the log tells


@dataclass(frozen=True, slots=True)
class Daemon:
    """A line of the table of programs.

    Attributes:
        name: the task's name; `*` at the end is any rest, at both ends any name that holds the word.
        serves: what waits when it waits, such as "nbd" or "fuse".
        about: a few words on it.
        unless: the name is no such daemon's where the log has one that serves this; None for nothing.
        where_seen: whether the name is such a daemon's only where the log shows what that serves.
    """

    name: str
    serves: str
    about: str
    unless: str | None = None
    where_seen: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose allocation, or whose wait, a stack shows.

    Attributes:
        service: what others need the thread for.
        part: the subsystem that asked for memory, None where no particular one did.
        daemon: the table's line of the program, None for what is no daemon.
        completes: the subsystem whose I/O a kernel thread completes, None for none in particular.
    """

    service: Service
    part: str | None
    daemon: Daemon | None
    completes: str | None = None


@lru_cache(maxsize=1)
def known_daemons() -> tuple[Daemon, ...]:
    """The table of programs, in its order."""
    text = Path(__file__).with_name(DAEMON_TABLE).read_text("utf-8")
    lines = (line.split(None, 2) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(_daemon(name, serves, about.strip()) for name, serves, about in lines)


def _daemon(name: str, serves: str, about: str) -> Daemon:
    what, _, unless = serves.partition("!")
    return Daemon(name, what.rstrip("?"), about, unless or None, what.endswith("?"))


@lru_cache(maxsize=4096)
def daemon_named(comm: str | None, extra: tuple[str, ...] = ()) -> Daemon | None:
    """The daemon with this task name, None for none; `extra` are names the user gave."""
    if not comm:
        return None
    if any(_fits(name, comm) for name in extra):
        return Daemon(comm, "block", "named by you as a storage daemon")
    # threads of the kernel are called after devices: jbd2/nbd0-8
    if "/" in comm:
        return None
    named = (daemon for daemon in known_daemons() if not daemon.where_seen)
    return next((daemon for daemon in named if _fits(daemon.name, comm)), None)


def daemon_where_seen(comm: str | None, seen: Collection[str]) -> Daemon | None:
    """The daemon whose name others have as well, where the log shows what it serves; None for none."""
    named = (daemon for daemon in known_daemons() if daemon.where_seen and daemon.serves in seen)
    return next((daemon for daemon in named if comm and _fits(daemon.name, comm)), None)


def _fits(pattern: str, comm: str) -> bool:
    if pattern.startswith("*") and pattern.endswith("*"):
        return pattern[1:-1] in comm
    # the kernel keeps 15 characters of a name
    return comm.startswith(pattern[:-1]) if pattern.endswith("*") else comm == pattern[:15]


def is_kernel_thread(report: TaskReport, body: Anatomy) -> bool:
    """Whether a stack belongs to a thread of the kernel itself."""
    if report.workqueue or kernel_thread_named(report.comm):
        return True
    # a stack that was cut may end in the work itself: loop_queue_work(), z_erofs_endio()
    cut = any(body.outer[-1].does(Verb.COMPLETES, of) for of in (Thing.WORK, Thing.FS_IO) if body.outer)
    return cut or any(step.role is Role.WORKER for step in body.outer)


def asker_of(
    report: TaskReport, body: Anatomy, extra: tuple[str, ...] = (), server: DeviceServer | None = None
) -> Asker:
    """Who the thread of a stack is.

    Args:
        report, body: the stack, and it taken apart.
        extra: task names that the user knows as storage daemons.
        server: what the thread's process is known to serve, None for nothing.
    """
    part = asking_part(body)
    daemon = daemon_named(report.comm, extra)
    if daemon and daemon.serves == _NOT_HERE:
        daemon = None
    if server is not None:
        daemon = Daemon(report.comm or "?", server.serves, f"serves {server.device}")
    if daemon and daemon.serves == "fuse" and any(step.role is Role.USER_FS for step in _own_work(body)):
        daemon = None  # it uses such a file system, whatever its name
    if daemon is None and any(step.role is Role.USER_FS_DAEMON for step in body.outer):
        daemon = Daemon(report.comm or "?", "fuse", "answers requests of a file system in user space")
    if daemon:
        return Asker(Service.DAEMON, part, daemon)
    roles = {step.role for step in body.outer}
    names = families(body.outer)
    # an NFS server's thread answers other machines, and what it reads may be another server's
    if is_kernel_thread(report, body) and Role.NFS_SERVER not in roles:
        drivers = families(tuple(step for step in body.outer if step.role is Role.BLOCK))
        # the outermost is the worker's own; what stands below it may be a file system that it writes to
        mine = [name for name in names if name in completing_families() or name in drivers]
        thread = kernel_thread_named(report.comm)
        completer = thread.family if thread and thread.gives is Thing.IO else mine[-1] if mine else None
        completer = completer or _queues_family(report.workqueue) or _carrier(body.outer)
        if completer and Role.WRITEBACK not in roles:
            return Asker(Service.KERNEL, part or completer, None, completer)
    if Role.WRITEBACK in roles or any(step.does(Verb.COMPLETES, Thing.WRITEBACK) for step in body.outer):
        return Asker(Service.FLUSHER, part, None)
    return Asker(Service.INTERNALS if part else Service.ORDINARY, part, None)


def _own_work(body: Anatomy) -> tuple[Step, ...]:
    """What a thread does of its own: not the pages of others that a throttled writer writes back."""
    throttles = (i for i, step in enumerate(body.outer) if step.role is Role.DIRTY_THROTTLE)
    return body.outer[max(throttles) + 1 :] if body.writes_back else body.outer


def _carrier(steps: tuple[Step, ...]) -> str | None:
    """The driver that stores in a file, sends, or hands on what it is given; None for none."""
    carries = (i for i, s in enumerate(steps) if s.role in _CARRIES or s.does(Verb.COMPLETES, Thing.IO))
    inside = next(carries, len(steps))
    outer = tuple(step for step in steps[inside:] if step.own or step.role is Role.BLOCK)
    return next(iter(families(outer[-1:])), None)


_CARRIES = frozenset({Role.PLAIN_PATH, Role.NETWORK})


def _queues_family(workqueue: str | None) -> str | None:
    """The family of a work queue's function, where the stack was cut: "kcryptd kcryptd_crypt [dm_crypt]"."""
    for word in (workqueue or "").split()[1:]:
        row = role_of(word)
        name = family(word[1:-1] if word.startswith("[") else row.part if row else None)
        if name in completing_families() or (name and row and row.role is Role.BLOCK):
            return name
    return None


def asking_part(body: Anatomy) -> str | None:
    """The subsystem whose own code asked for the memory, with nothing plainer in between; None for none."""
    return next(iter(asking_parts(body)), None)


def asking_parts(body: Anatomy) -> tuple[str, ...]:
    """All such, innermost first; where a stack is cut behind a subsystem's own allocator, that subsystem."""
    if body.outer or body.reclaim is not Reclaim.DIRECT:
        return at_work_in(body.outer)
    return families(tuple(step for step in body.entry if step.role is Role.ALLOCATION)[-1:])


def at_work_in(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The subsystems that a thread is in the middle of, innermost first."""
    return families(at_work(steps))


def at_work(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps of subsystems' own work: up to the first plain path."""
    work = takewhile(lambda step: step.role not in (Role.PLAIN_PATH, Role.PAGE_FAULT, Role.SYSCALL), steps)
    return tuple(step for step in work if step.role is not Role.NETWORK)
