"""What a kernel log tells, as records: stacks of tasks, and events around them."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.roles import Role, role_of

# an offset for what stands in no log
NO_PLACE = -1
# of a task's name: TASK_COMM_LEN - 1, linux/sched.h
COMM_WIDTH = 15
# the letters of a task's state, as lists of processes have them: proc(5)
TASK_STATES = frozenset("RSDTtZXI")


class Source(Enum):
    """What made the kernel (or a tool) print a stack."""

    HUNG_TASK = "hung-task"
    TASK_LIST = "task-list"  # sysrq-t, sysrq-w, panic_print: every task, or every blocked one
    LOCKUP = "lockup"  # soft or hard lockup, RCU stall: the task ran
    DUMP = "dump"  # dump_stack() and warnings: the task ran
    CRASH = "crash"  # crash or drgn on a dump
    PROC = "proc"  # /proc/PID/stack
    BARE = "bare"  # a call trace whose head is lost


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One stack of one task as a log prints it.

    Attributes:
        comm: the task's name verbatim, None where the log does not say.
        pid: the process (thread group), None where the log does not say.
        tid: the thread, which is what logs call "pid", None where the log does not say.
        state: one letter (D, S, R, ...), None where the log does not say.
        task_flags: `task->flags`, printed from Linux 6.14 on as task_flags:0x...; None elsewhere.
            The older column "flags:0x..." is thread_info and not kept.
        frames: the stack, innermost first.
        kernel: the version that the log named last, None for none so far.
        source: what printed the stack.
        workqueue: "dm-thin do_worker" of a kernel worker, else None.
        blocked_seconds: of a hung task, else None.
        owner: (name, tid) of the task that the kernel names as the lock's owner (Linux 6.16 and later),
            else None.
        seconds: the kernel's time stamp of the first line, None without one.
        line: number of the first line from 1, None behind the part of a long log in which lines are counted.
        offset: of the first line's first byte in the (decompressed) log.
        device: of the request or page that it waits for; only a kernel's memory tells, a log does not.
        lock: what kind of lock the kernel says that it waits for: "mutex", "semaphore", "rw-semaphore";
            None where it does not say (before Linux 6.16).
        mode: "reader" or "writer" of an rw-semaphore, None where the log does not say.
        owner_mode: the same of the lock's owner.
        io_wait: whether the kernel says that it sleeps for I/O ("blocked in I/O wait", Linux 6.18 and later).
        parent: the number of the process that started its own (sched_show_task()); None
            where it is not printed.
    """

    comm: str | None
    pid: int | None
    tid: int | None
    state: str | None
    task_flags: int | None
    frames: tuple[Frame, ...]
    kernel: str | None
    source: Source
    workqueue: str | None
    blocked_seconds: int | None
    owner: tuple[str, int] | None
    seconds: float | None
    line: int | None
    offset: int
    device: str | None = None
    lock: str | None = None
    mode: str | None = None
    owner_mode: str | None = None
    io_wait: bool = False
    parent: int | None = None


def task_name(comm: str | None, tid: int | None, line: int | None) -> str:
    """A task in words: "msgr-worker-1 (1026)"; one without a name is known by its stack's first line."""
    if tid is not None:
        return f"{comm or 'a task'} ({tid})"
    return comm or ("a task" if line is None else f"the task of line {line}")


@dataclass(frozen=True, slots=True)
class DeviceServer:
    """Which process completes a block device's or a file system's requests.

    A kernel's memory tells, or the machine's snapshot; a log does not.

    Attributes:
        device: its name, such as "nbd0"; the mount point of a file system.
        pid: the process.
        comm: its name.
        serves: as in daemons.txt: "block" for any device, "fuse", "nfs", ...
        threads: numbers and names of its threads; empty where they are known by the process's number.
        names: names that no other program of the machine had: by them it is known when it was started again.
    """

    device: str
    pid: int
    comm: str
    serves: str = "block"
    threads: frozenset[tuple[int, str]] = frozenset()
    names: frozenset[str] = frozenset()

    def runs(self, report: TaskReport) -> bool:
        """Whether a task is one of its threads, by number."""
        if not self.threads:
            return self.pid == report.pid
        if report.comm is None:
            return False
        alike = self.pid == report.pid and any(report.comm == name for _, name in self.threads)
        return alike or (report.tid, report.comm) in self.threads


class EventKind(Enum):
    """What a single line of a kernel log reports."""

    PANIC = "panic"
    OOM_KILL = "oom-kill"
    OOM_INVOKED = "oom-invoked"
    HUNG_TASK = "hung-task"
    LOCKUP = "lockup"
    ALLOCATION_FAILURE = "allocation-failure"
    ALLOCATION_STALL = "allocation-stall"  # XFS's and page_alloc's warnings of allocations that do not end
    WORKQUEUE_STALL = "workqueue-stall"
    DEVICE_TROUBLE = "device-trouble"  # a device or server that errs or does not answer
    STUCK_REQUEST = "stuck-request"  # of an nbd device without a time limit: its server has not answered
    ZONE = "zone"  # free memory and watermark of a zone
    HELD_LOCK = "held-lock"
    UNREAD_STACK = (
        "unread-stack"  # it announces a stack, or shows a function, and no stack could be read there
    )


@dataclass(frozen=True, slots=True)
class Event:
    """A line that reports something.

    Attributes:
        kind: what it reports.
        text: the line as the kernel wrote it, without the log's prefixes.
        subject: the task, device, server, zone or lock it names, None for none.
        number: tid of a task, KiB free below (negative) or above the min watermark of a zone; else None.
        seconds: the kernel's time stamp, None without one.
        line, offset: where it stands, as in `TaskReport`.
    """

    kind: EventKind
    text: str
    subject: str | None
    number: int | None
    seconds: float | None
    line: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class LockdepReport:
    """Lockdep's prediction of a deadlock; nobody need have waited.

    Attributes:
        title: the line that says what lockdep found.
        comm: the task in which it was found, None where the log does not say.
        tid: that task, None where the log does not say.
        locks: the names of the locks in the report, fs_reclaim among them where reclaim takes part; those of
            a cycle in the order in which they are taken, each while the one before it is held.
        frames: every frame of the report, innermost first within each stack.
        begins: where in `frames` each stack begins.
        kernel: the version that the log named last, None for none so far.
        line, offset: where it begins, as in `TaskReport`.
    """

    title: str
    comm: str | None
    tid: int | None
    locks: tuple[str, ...]
    frames: tuple[Frame, ...]
    begins: tuple[int, ...]
    kernel: str | None
    line: int | None
    offset: int

    @property
    def reclaim(self) -> bool:
        """Whether memory reclaim is part of the cycle."""
        marks = ("fs_reclaim", "RECLAIM_FS", "shrinker_rwsem", "shrinker_mutex")
        if any(mark in text for text in (*self.locks, self.title) for mark in marks):
            return True
        # interrupts, not reclaim, make those cycles
        if any(word in self.title for word in ("irq", "IRQ", "inconsistent")) or len(self.locks) > 2:
            return False
        # a shortened report may have lost the names of its locks: then the stack tells
        return any(_reclaims(frame.function) for frame in self.frames)


def _reclaims(function: str) -> bool:
    row = role_of(function)
    return row is not None and row.role is Role.DIRECT_RECLAIM


Record = TaskReport | Event | LockdepReport | DeviceServer
