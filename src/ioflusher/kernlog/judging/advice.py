"""What would have prevented an episode, and what is known of the kernel that it happened on."""

from ioflusher.kernel.task_flags import PF_IO_FLUSHER
from ioflusher.kernlog.judging.findings import Case, Finding, Kind
from ioflusher.kernlog.judging.needs import asks_again
from ioflusher.kernlog.stacks.anatomy import Reclaim, Wait
from ioflusher.kernlog.stacks.askers import Service
from ioflusher.kernlog.stacks.subsystems import families
from ioflusher.kernlog.stacks.things import Thing

# Commands that the remedies name, as they are typed into a root shell; tests/kernlog/test_guest_remedies.py
# executes each in a guest.
RESERVE = (
    "f=/proc/sys/vm/min_free_kbytes; n=$(awk '/^MemTotal/ {print int($2 / 50)}' /proc/meminfo); "
    "[ $n -le $(cat $f) ] || echo $n > $f"
)
EATERS = "ps -eo rss,pid,comm --sort=-rss | head"
REQUESTS = "grep -H . /sys/block/*/inflight; sleep 10; grep -H . /sys/block/*/inflight"
FUSE_REQUESTS = "grep -H . /sys/fs/fuse/connections/*/waiting"
FUSE_STACKS = (
    "for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null | grep -q /dev/fuse && cat $p/task/*/stack; done"
)
EVERY_STACK = "echo t > /proc/sysrq-trigger; ioflusher diagnose --dmesg"
NFS_STATE = "cat /proc/self/mountstats"
CIFS_STATE = "cat /proc/fs/cifs/DebugData"

_LOCKED = "lock its memory (mlockall with MCL_CURRENT | MCL_FUTURE) and allocate its buffers before it serves"
_MORE_FREE = f"keep more memory free for such threads, 2 % of the machine's if less is set: {RESERVE}"
_SERVERS = {
    "nfs": f"look at the server and the network to it; what waits for it: {NFS_STATE}",
    "ceph": "look at the cluster and the network to it",
    "cifs": f"look at the server and the network to it; what waits for it: {CIFS_STATE}",
}
_ORDER = "this is a lock order fault of the kernel: use a kernel with the fix, or report it"
_TWICE = (
    "this is the kernel's to solve: it asks for reserved memory with some of it in hand; use a newer kernel"
    " or report it"
)
_OF_A_SERVER = "look at the file system's servers and the network to them"
_NETWORKED = frozenset({*_SERVERS, "9p", "kafs", "lustre", "gfs2", "ocfs2"})
_STATE_CAME = (5, 6)
_OOM_REAPER_CAME = (4, 6)
_CGROUP_OOM_WAITS_OUTSIDE = (3, 12)
_ONE_SHRINKER_LOCK_WENT = (6, 7)


def remedies(case: Case, finding: Finding) -> tuple[str, ...]:
    """What to do about an episode, most useful first, commands written out."""
    return _against_recursion(case, finding) if finding.recursion else _against_another(case, finding)


def _against_recursion(case: Case, finding: Finding) -> tuple[str, ...]:
    members = [edge.waiter for edge in finding.edges] or [case]
    things = {edge.thing for edge in finding.edges}
    daemon = next((member for member in members if member.asker.service is Service.DAEMON), None)
    if daemon is not None:
        return _for_a_daemon(daemon, finding)
    if Thing.VICTIM in things:
        return _against_an_oom_kill(case, members)
    if things & {Thing.SHRINKERS, Thing.S_UMOUNT, Thing.THAW}:
        version = case.kernel_version
        older = version is None or version < _ONE_SHRINKER_LOCK_WENT
        newer = "from Linux 6.7 on nobody waits for running shrinkers with a global lock"
        return (_ORDER, newer) if Thing.SHRINKERS in things and older else (_ORDER,)
    if any(member.body.writes_back for member in members):
        return (
            _ORDER,
            "from Linux 2.6.37 on a throttled writer sleeps, and only the flusher writes pages back",
        )
    if any(asks_again(member.body) for member in members):
        return (_TWICE,)
    allocating = [member for member in members if _allocates(member)]
    if not allocating:
        return (_ORDER, "do not write to /proc/sys/vm/drop_caches meanwhile")
    named = (member.asker.part for member in (*allocating, *members) if member.asker.part)
    part = next(named, "the subsystem")
    if any(map(_charged, members)):
        meanwhile = f"meanwhile give its memory cgroup more: {_group_of(members)}"
    else:
        meanwhile = f"meanwhile {_MORE_FREE}"
    if any(member.asker.service is Service.FLUSHER for member in members):
        return ("this is the kernel's to solve: use a kernel with the fix", meanwhile)
    return (
        f"this is the kernel's to solve: {part} has to allocate under memalloc_noio_save() or "
        "memalloc_nofs_save(); use a newer kernel or report it",
        meanwhile,
    )


def _against_an_oom_kill(case: Case, members: list[Case]) -> tuple[str, ...]:
    """No allocation flags help against a kill that does not end."""
    if any(map(_charged, members)):
        newer, text = (
            _CGROUP_OOM_WAITS_OUTSIDE,
            "no task waits for its memory cgroup's kill with locks in hand",
        )
        meanwhile = f"give the memory cgroup more: {_group_of(members)}"
    else:
        newer, text = _OOM_REAPER_CAME, "a killed task's memory is taken while it waits"
        meanwhile = (
            "let a memory cgroup's limit (memory.max) stop the program that fills the memory, before the "
            f"machine's memory ends: {EATERS}"
        )
    version = case.kernel_version
    if version is None or version < newer:
        return (f"use Linux {newer[0]}.{newer[1]} or later: from then on {text}", meanwhile)
    return ("this is the kernel's to solve: report it", meanwhile)


def _for_a_daemon(daemon: Case, finding: Finding) -> tuple[str, ...]:
    flags, version = daemon.report.task_flags, daemon.kernel_version
    # a log prints the flags from Linux 6.14 on
    carries = flags is not None and flags & PF_IO_FLUSHER == PF_IO_FLUSHER
    process = daemon.report.pid or daemon.report.tid
    check = f"ioflusher status {process}" if process else "ioflusher status"
    state = (
        "start it in the IO_FLUSHER state (Linux 5.6, CAP_SYS_RESOURCE): ioflusher run -- COMMAND "
        "ARGUMENTS..., or, a systemd service: ioflusher unit --install NAME.service",
        "or call prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) in each of its threads before the first request "
        f"(threads made later inherit it), then check: {check}",
    )
    older = ("use Linux 5.6 or later: before it no process could be put into the state",)
    before = older if version is not None and version < _STATE_CAME else ()
    dirty = ("let it store with O_DIRECT, or give it a device of its own with a larger dirty limit",)
    throttled = dirty if finding.kind is Kind.THROTTLED_DAEMON else ()
    if carries:
        return (_LOCKED, _MORE_FREE, *throttled)
    return (*before, *state, _LOCKED, *throttled)


def _allocates(case: Case) -> bool:
    """Whether a task waits on behalf of an allocation of its own, or of kswapd's, or for dirty pages."""
    forced = case.body.reclaim is Reclaim.FORCED
    return not forced and (case.body.reclaim is not None or case.body.wait in (Wait.OOM, Wait.DIRTY_THROTTLE))


def _charged(case: Case) -> bool:
    """Whether a memory cgroup's limit, not the machine's memory, is what the task ran into."""
    return any(step.part == "memcg" for step in case.body.steps)


def _group_of(members: list[Case]) -> str:
    """Which group that is, and its limit."""
    tid = next((member.report.tid for member in members if _charged(member) and member.report.tid), None)
    return f"cat /proc/{tid}/cgroup, memory.max there" if tid else "memory.max"


def _against_another(case: Case, finding: Finding) -> tuple[str, ...]:
    match finding.kind:
        case Kind.MEMORY_EXHAUSTION | Kind.RECLAIM_THROTTLED if _charged(case):
            return (f"its memory cgroup is full: give it more, or run less in it: {_group_of([case])}",)
        case Kind.MEMORY_EXHAUSTION | Kind.RECLAIM_THROTTLED:
            return (f"see what fills the memory, and limit or stop it: {EATERS}", _MORE_FREE)
        case Kind.RECLAIM_BEHIND_DEVICE | Kind.SLOW_STORAGE | Kind.FILE_SYSTEM_WAIT | Kind.DIRTY_THROTTLED:
            return _at_whoever_completes(case)
        case Kind.USER_FS_WAIT:
            return _at_a_daemon()
        case Kind.NETWORK_FS_WAIT:
            return _at_whoever_completes(case)
        case Kind.LOCK_WAIT | Kind.RECLAIM_BEHIND_LOCK if case.report.owner:
            name, tid = case.report.owner
            return (f"look at {name}, which holds the lock: cat /proc/{tid}/stack",)
        case Kind.LOCK_WAIT | Kind.RECLAIM_BEHIND_LOCK | Kind.WORK_WAIT:
            return (f"find who holds it: {EVERY_STACK}",)
    return ()


def _at_whoever_completes(case: Case) -> tuple[str, ...]:
    """Where to look for what a device, server or daemon does not answer."""
    whose = families(case.body.inner or case.body.steps)
    if "fuse" in whose:
        return _at_a_daemon()
    served = next((name for name in whose if name in _NETWORKED), None)
    if served:
        return (_SERVERS.get(served, _OF_A_SERVER),)
    return (f"look at the device: its errors in the log, and whether requests end: {REQUESTS}",)


def _at_a_daemon() -> tuple[str, ...]:
    return (
        f"look at the file system's daemon: {FUSE_STACKS}",
        f"and at the requests that wait for it: {FUSE_REQUESTS}",
    )


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
    Wait.PAGE: "whoever has the page locked, or the device that it is written to",
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
