"""What would have prevented an episode, and what is known of the kernel that it happened on."""

from ioflusher.kernlog.judging.findings import Case, Finding, Kind
from ioflusher.kernlog.stacks.anatomy import Wait
from ioflusher.kernlog.stacks.askers import Service

_START = (
    "start it in the IO_FLUSHER state (Linux 5.6, CAP_SYS_RESOURCE): ioflusher run -- COMMAND ARGUMENTS...",
    "or call prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) in each of its threads before the first request (threads "
    "made later inherit it), then check: ioflusher status PID",
    "lock its memory (mlockall with MCL_CURRENT | MCL_FUTURE) and allocate its buffers before it serves",
)
_MISSING_MEMORY = (
    "keep more memory free for such threads: raise sysctl vm.min_free_kbytes above what is set, to 5 % of "
    "the machine's memory at most",
    "lock the daemon's memory, allocate its buffers in advance, run it with a real-time priority",
    "limit what fills the memory: memory.max of the workloads' cgroups",
)


def remedies(case: Case, finding: Finding) -> tuple[str, ...]:
    """What to do about an episode, most useful first, commands written out."""
    service = case.asker.service
    if finding.recursion:
        if service is Service.DAEMON:
            dirty = ("let it store with O_DIRECT, or give it a device of its own with a larger dirty limit",)
            return _START + (dirty if finding.kind is Kind.THROTTLED_DAEMON else ())
        if finding.kind is Kind.SHRINKER_INVERSION:
            return (
                "this is a lock order fault of the kernel: use a kernel with the fix, and "
                "report it to the subsystem",
                "from Linux 6.7 on nobody waits for running shrinkers with a global lock",
            )
        if service is Service.FLUSHER:
            return (
                "use a kernel with the fix; move the writers out of small memory cgroups "
                "(version 1) meanwhile",
            )
        part = case.asker.part or "the subsystem"
        return (
            f"this is the kernel's to solve: {part} has to allocate under memalloc_noio_save() or "
            "memalloc_nofs_save(); use a newer kernel or report it",
            "meanwhile keep more memory free: raise sysctl vm.min_free_kbytes above what is set, to 5 % of "
            "the machine's memory at most",
        )
    match finding.kind:
        case Kind.MEMORY_EXHAUSTION | Kind.RECLAIM_THROTTLED:
            return _MISSING_MEMORY
        case Kind.RECLAIM_BEHIND_DEVICE | Kind.SLOW_STORAGE | Kind.FILE_SYSTEM_WAIT | Kind.DIRTY_THROTTLED:
            return ("look at the device: its errors in the log, iostat -x 1, /sys/block/*/inflight",)
        case Kind.USER_FS_WAIT:
            return ("look at the file system's daemon: cat /proc/$(pidof DAEMON)/task/*/stack",)
        case Kind.NETWORK_FS_WAIT:
            return ("look at the server and the network to it",)
        case Kind.LOCK_WAIT | Kind.RECLAIM_BEHIND_LOCK if case.report.owner:
            name, tid = case.report.owner
            return (f"look at {name}, which holds the lock: cat /proc/{tid}/stack",)
        case Kind.LOCK_WAIT | Kind.RECLAIM_BEHIND_LOCK | Kind.WORK_WAIT:
            return ("find who holds it: echo t > /proc/sysrq-trigger, then diagnose that log",)
    return ()


# (first version without, first version with, families the note is about or None for every recursion, note)
_NOTES: tuple[tuple[tuple[int, int], tuple[int, int], frozenset[str] | None, str], ...] = (
    ((0, 0), (5, 9), frozenset({"xfs"}), "before 5.9 XFS's inode reclaim waited for buffers to be written"),
    ((5, 9), (99, 0), frozenset({"xfs"}), "from 5.9 on XFS's inode reclaim no longer waits for buffers"),
    ((0, 0), (5, 6), None, "before 5.6 a process could not be put into the IO_FLUSHER state"),
    (
        (0, 0),
        (4, 12),
        None,
        "before 4.12 there was no memalloc_nofs_save(): each allocation had to say GFP_NOFS",
    ),
    ((6, 7), (99, 0), frozenset({"dm"}), "from 6.7 on shrinkers no longer run under one lock"),
)


def kernel_notes(case: Case, families: tuple[str, ...]) -> tuple[str, ...]:
    """What is known of the log's kernel version that bears on a recursion; empty without a version."""
    version = case.kernel_version
    if version is None:
        return ()
    return tuple(
        note
        for begin, end, about, note in _NOTES
        if begin <= version < end and (about is None or about & set(families))
    )


def who_completes(case: Case, finding: Finding) -> str | None:
    """Who or what must act for the wait to end; None where the stack does not tell."""
    if finding.other is not None:
        return finding.other.name
    if finding.recursion:
        match case.asker.service:
            case Service.DAEMON:
                return f"{case.name} itself, or another thread of its program"
            case Service.KERNEL | Service.FLUSHER:
                return f"{case.name} itself"
            case _:
                return f"{case.asker.part or 'the subsystem'}, which this thread is in the middle of"
    if case.report.owner:
        return f"{case.report.owner[0]} ({case.report.owner[1]}), which holds the lock"
    return _ACTORS.get(case.body.wait)


_ACTORS = {
    Wait.IO: "the device",
    Wait.WRITEBACK: "the device that the page is written to",
    Wait.MEMPOOL: "the device that has the earlier requests",
    Wait.TAG: "the device that has the earlier requests",
    Wait.DAEMON: "the file system's daemon",
    Wait.SERVER: "the file server",
    Wait.LOCK: "whoever holds the lock",
    Wait.WORK: "a kernel work queue",
    Wait.DIRTY_THROTTLE: "whoever writes the dirty pages",
    Wait.RECLAIM_QUEUE: "the thread that reclaims",
    Wait.SHRINKERS: "whoever runs a shrinker",
}
