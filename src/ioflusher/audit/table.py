"""The table of all rules, in the order in which reports and documentation have them."""

from ioflusher.audit.finding import Severity
from ioflusher.audit.rules import (
    cgroup_limits,
    cycle,
    daemon_gone,
    dirty_limits,
    files_on_served,
    io_flusher_state,
    oom,
    reserve,
    server_candidates,
    swap,
    unreadable,
)
from ioflusher.audit.rules.rule import AuditRule, RemedyStep

_ALL_BUT_FUSE = (
    "A FUSE mount alone is passed over: the kernel does not wait for it in reclaim, and keeps its dirty "
    "pages within a limit of their own (strictlimit)."
)
_SET = (
    "`ioflusher set PID` for the daemon that runs; `ioflusher unit --install UNIT` or `ioflusher run -- "
    "COMMAND` for good; in a daemon of your own `ioflusher.set_io_flusher(True)` before the first thread. A "
    "thread in ioctl(NBD_DO_IT), as qemu-nbd and nbd-client have one, and a worker of the kernel (io_uring) "
    "cannot be stopped to take the state: such a daemon is started anew under `ioflusher run`."
)
_LOCK = (
    "`ioflusher set --lock-memory PID` for the daemon that runs, where the figures say that it does no harm: "
    "none of its memory is in swap, and what mlockall may populate (VmSize less VmRSS at most) is no more "
    "than half of what is available and leaves an eighth of the machine's memory. For good: "
    "mlockall(MCL_CURRENT | MCL_FUTURE) in the daemon when it starts, with LimitMEMLOCK=infinity, or "
    "MemorySwapMax=0 for its unit."
)

RULES: tuple[AuditRule, ...] = (
    AuditRule(
        "uncovered",
        Severity.ERROR,
        "no thread of a daemon carries the IO_FLUSHER state",
        "When such a thread needs memory, the kernel may write pages out to the very device that the daemon "
        "serves, inside the daemon's own allocation. The daemon then waits for a write that only it can do, "
        "and so does everybody else.",
        "Reads the flags of every living thread; threads that the kernel runs for a process (io_uring, "
        "vhost) are not judged here. It is an error for a daemon that each request needs and whose device "
        "carries swap or a writable file system; a warning for one that only recovery needs (iscsid, "
        "multipathd), or whose device nobody uses yet; a note for a FUSE daemon of root and for an NBD "
        "client that merely holds its device. FUSE mounts of ordinary users and what nobody can write to are "
        "passed over. NOFS with LOCAL_THROTTLE, a state made for FUSE, counts as whole for a FUSE daemon.",
        _SET,
        io_flusher_state.uncovered,
        RemedyStep.STATE,
    ),
    AuditRule(
        "partly-covered",
        Severity.ERROR,
        "some threads of a daemon carry the state, others do not",
        "The state belongs to a thread, and only threads that are started later inherit it. One thread "
        "without it is enough to wait for the daemon's own device, with a request or a lock in its hands "
        "that the others need.",
        "As `uncovered`. Typical is a daemon that sets the state in main after a library started its "
        "threads. A note where the others only wait in ioctl(NBD_DO_IT).",
        _SET,
        io_flusher_state.partly_covered,
        RemedyStep.STATE,
    ),
    AuditRule(
        "half-set",
        Severity.ERROR,
        "a thread carries one of the state's two bits",
        "PF_MEMALLOC_NOIO keeps a thread's allocations from starting I/O, PF_LOCAL_THROTTLE keeps it from "
        "being paused for dirty pages that it must clean itself. With one of them the other way to wait for "
        "itself is open.",
        "Without LOCAL_THROTTLE it is a warning only: the kernel itself sets NOIO on a thread for the time "
        "of some calls, so look again before you act. Severity falls as for `uncovered`.",
        _SET,
        io_flusher_state.half_set,
        RemedyStep.STATE,
    ),
    AuditRule(
        "worker-uncovered",
        Severity.NOTE,
        "a covered daemon's io_uring workers do not carry the state",
        "A worker inherits the state from the thread that created it, and one that exists already keeps what "
        "it has. Its allocations for the daemon's requests can start I/O on the daemon's own device.",
        "Looked at only where all threads of the program carry the state.",
        "Have the daemon started in the state (`ioflusher run`), or set the state before the first request "
        "is submitted.",
        io_flusher_state.worker_uncovered,
        RemedyStep.STATE,
    ),
    AuditRule(
        "cannot-set",
        Severity.WARNING,
        "a daemon without the state lacks CAP_SYS_RESOURCE to take it",
        "prctl(PR_SET_IO_FLUSHER) needs CAP_SYS_RESOURCE in the effective set of the thread, in the first "
        "user namespace. Daemons that meet EPERM there mostly go on without the state, and say nothing.",
        "Reads the effective, permitted and bounding sets. Silent where all threads carry the state already: "
        "a capability that was dropped afterwards is not missed. Severity falls as for `uncovered`.",
        "`ioflusher unit --install UNIT` or `ioflusher run --user USER -- COMMAND`, which take the state "
        "before they give the capability up; or AmbientCapabilities=CAP_SYS_RESOURCE. In a container: "
        "`ioflusher container`.",
        io_flusher_state.cannot_set,
        RemedyStep.STATE,
    ),
    AuditRule(
        "kernel-too-old",
        Severity.ERROR,
        "a kernel before 5.6 does not know the state",
        "prctl(PR_SET_IO_FLUSHER) came with Linux 5.6. Before it nothing keeps a daemon's own allocations "
        "from writing to its device.",
        "Silent where any thread of the machine carries the state: distributions bring calls back to older "
        "kernels. Severity is that of the daemon on which most depends.",
        "A kernel of release 5.6 or later. `ioflusher run -- true` ends with status 0 where the call is "
        "there.",
        io_flusher_state.kernel_too_old,
        RemedyStep.MACHINE,
    ),
    AuditRule(
        "memory-not-locked",
        Severity.ERROR,
        "a daemon's memory may be swapped out",
        "A page fault of the daemon then waits for the device that holds the swap, just when memory is "
        "short. Where that is the daemon's own device, the wait never ends.",
        "Compares VmLck with VmRSS. An error where swap lies on what the daemon serves, a warning where it "
        "lies on another device, a note where it is compressed memory alone (zram). Silent without swap, in "
        "a control group with memory.swap.max 0, and for an NBD client that merely holds its device. "
        + _ALL_BUT_FUSE,
        _LOCK,
        swap.memory_not_locked,
        RemedyStep.SWAP,
        ("unlocked_kib",),
    ),
    AuditRule(
        "swapped-out",
        Severity.ERROR,
        "a part of a daemon's memory is swapped out now",
        "The next request that touches that part waits until it is read back. On a device whose swap the "
        "daemon serves itself, it waits for itself.",
        "Reads VmSwap. Severity as for `memory-not-locked`.",
        _LOCK,
        swap.swapped_out,
        RemedyStep.SWAP,
        ("swapped_kib",),
    ),
    AuditRule(
        "swap-on-served",
        Severity.ERROR,
        "swap lies on a device whose daemon is not fit to carry it",
        "Swap is written when memory is short, which is when the daemon's own allocations fall into reclaim. "
        "A daemon that lacks the state, or whose own memory can go to that swap, then waits for itself.",
        "Follows partitions, mapped devices, loop devices and files down to the device. One finding for the "
        "areas of a device, whoever serves it. Silent where every thread of the daemon carries the state "
        "(those in ioctl(NBD_DO_IT) do no I/O) and its memory is locked: that is what it takes.",
        "`swapoff` and swap on a disk of its own; or make the daemon fit, see uncovered and "
        "memory-not-locked.",
        swap.swap_on_served,
        RemedyStep.SWAP,
    ),
    AuditRule(
        "swap-stored-in-file",
        Severity.WARNING,
        "a daemon that serves swap stores into a buffered file",
        "The kernel's flusher writes such a file back, holds locks of its file system while it asks for "
        "memory, and may only find some by writing to the swap. The daemon waits for the lock, and the "
        "IO_FLUSHER state on its threads does not help, because the flusher does not carry it.",
        "Any regular file that is open for writing without O_DIRECT and lies on a file system that is "
        "written back (not tmpfs) may be the store; logs are left to log-on-served. Seen in the lab "
        "with the state set, in 1 of 2 and in 1 of 5 runs (docs/lab.md, Where a daemon stores).",
        "Store on a block device of its own, not in a file; until then put swap on another disk.",
        swap.swap_stored_in_file,
        RemedyStep.SWAP,
    ),
    AuditRule(
        "executable-on-served",
        Severity.ERROR,
        "a daemon's executable lies on what it serves",
        "Pages of a program are dropped when memory is short and read again when they are needed. To read "
        "them the daemon would have to run the very code that is missing.",
        "Silent where the daemon's memory is locked: such pages stay. A warning for a daemon that only "
        "recovery needs.",
        "Install it on another file system and start it anew; lock its memory until then.",
        files_on_served.executable_on_served,
        RemedyStep.FILES,
    ),
    AuditRule(
        "library-on-served",
        Severity.ERROR,
        "a library of a daemon lies on what it serves",
        "Pages of a library are dropped when memory is short and read again when they are needed. To read "
        "them the daemon would have to run, and it waits in that very page fault.",
        "As `executable-on-served`.",
        "Install it on another file system, or link it statically; lock its memory until then.",
        files_on_served.library_on_served,
        RemedyStep.FILES,
    ),
    AuditRule(
        "log-on-served",
        Severity.ERROR,
        "a daemon logs to what it serves",
        "A line of log waits for the file system's journal or for dirty pages to be written, and both wait "
        "for the daemon. The IO_FLUSHER state does not help against that.",
        "A log is a regular file that is open for appending. A warning for a daemon that only recovery "
        "needs.",
        "Log to the journal or to a file on another disk.",
        files_on_served.log_on_served,
        RemedyStep.FILES,
    ),
    AuditRule(
        "file-on-served",
        Severity.ERROR,
        "a daemon has another file open on what it serves",
        "Reading or writing such a file makes a request to the daemon from within the daemon. While it waits "
        "for the answer it does not give one.",
        "An error for what is open for writing, or is a device on top of its own; for what is only read, a "
        "warning. The served device itself, held open to control it, does not count. Mapped files do not "
        "count where the daemon's memory is locked.",
        "Keep the file on a file system that the daemon does not serve.",
        files_on_served.file_on_served,
        RemedyStep.FILES,
    ),
    AuditRule(
        "cycle",
        Severity.ERROR,
        "a daemon waits for itself through other processes",
        "Each process of such a circle waits for the next one, and the last one for the device that the "
        "first serves. Under load, or when memory is short, none of them can go on.",
        "Walks the storage graph (`ioflusher map` draws it): files, peers by local sockets, the reclaim and "
        "swapped memory of processes that are no daemons themselves, such as a local server to which a "
        "daemon forwards. What a daemon alone does to itself is left to the other rules. A warning where the "
        "circle closes only through such a peer's memory; less where it is not certain or closes only in "
        "recovery.",
        "Move a store or log to another disk, or give the peer the state (`ioflusher set PID`) and locked "
        "memory (see memory-not-locked).",
        cycle.cycle,
        RemedyStep.STATE,
    ),
    AuditRule(
        "oom-killable",
        Severity.WARNING,
        "the OOM killer may take a daemon",
        "A daemon with much memory is a likely victim when memory is short. Without it the device fails or "
        "stands still, and the memory that its dirty pages hold is never freed.",
        "Reads oom_score_adj. A note where little depends on the daemon, or only recovery does. "
        + _ALL_BUT_FUSE,
        "`choom -n -1000 -p PID`; OOMScoreAdjust=-1000 in its unit. In a control group with a hard limit of "
        "memory -999, so that the kernel has a task to kill there (see cgroup-unkillable).",
        oom.oom_killable,
        RemedyStep.OOM_SCORE,
        ("oom_score_adj",),
    ),
    AuditRule(
        "cgroup-unkillable",
        Severity.WARNING,
        "every task of a control group with a hard limit of memory has an oom_score_adj of -1000",
        "At its limit such a group needs a task to kill, and the kernel has none: the one that asked for "
        "memory tries again for ever, with an OOM event each time. A storage daemon in the group then "
        "answers no more requests, though it is alive.",
        "Reads memory.max (version 2) and memory.limit_in_bytes (version 1) of a daemon's groups up to the "
        "root, cgroup.procs of the group and those below it, and oom_score_adj of their processes. FUSE "
        "daemons count too: one with this setting met 193,817 OOM events (JuiceFS, issue 7466). A note where "
        "the score of another task is unknown, and while no more than used_percent of the limit is used.",
        "`choom -n -999 -p PID`, OOMScoreAdjust=-999 in its unit; or no limit for the group.",
        oom.cgroup_unkillable,
        RemedyStep.OOM_SCORE,
        ("used_percent",),
    ),
    AuditRule(
        "memory-max",
        Severity.WARNING,
        "a hard limit of memory holds for a daemon",
        "At its limit a control group reclaims from itself, on the daemon's own time, or its tasks are "
        "killed. Both stop the device though the machine has memory left.",
        "Reads memory.max (version 2) and memory.limit_in_bytes (version 1) from the daemon's group up to "
        "the root. A note while no more than used_percent of the limit is used. " + _ALL_BUT_FUSE,
        "MemoryMax=infinity for its unit and slices, and limits for those who use the device.",
        cgroup_limits.memory_max,
        RemedyStep.LIMIT,
        ("used_percent",),
    ),
    AuditRule(
        "memory-high",
        Severity.WARNING,
        "a daemon is slowed down above a mark of memory",
        "Above memory.high every task of the group reclaims and is put to sleep on its way out of the "
        "kernel. The IO_FLUSHER state does not exempt it.",
        "Reads memory.high from the daemon's group up to the root; version 1's soft limit slows nobody. A "
        "note while no more than used_percent of the mark is used. " + _ALL_BUT_FUSE,
        "MemoryHigh=infinity for its unit and slices.",
        cgroup_limits.memory_high,
        RemedyStep.LIMIT,
        ("used_percent",),
    ),
    AuditRule(
        "small-reserve",
        Severity.WARNING,
        "the machine's reserve of memory is small for the queues that are served",
        "When nothing can be reclaimed without I/O, socket buffers and the like for the requests in flight "
        "come from the reserve below vm.min_free_kbytes. A daemon that finds it empty cannot finish the "
        "writes that would fill it again.",
        "Adds up, over the devices that processes here serve and that carry swap or files, nr_requests times "
        "hardware queues times request_kib. That is a rule of thumb: 64 KiB a request sufficed for an nbd "
        f"queue in the lab. Silent where the reserve is {reserve.MOST_RESERVE_PERCENT} percent of all memory "
        "already. A warning where swap is served, else a note.",
        "`sysctl -w vm.min_free_kbytes=N`, and the same in /etc/sysctl.d, where N is what the queues may "
        f"take, more than what is set, and at most {reserve.MOST_RESERVE_PERCENT} percent of all memory; "
        "else shorter queues.",
        reserve.small_reserve,
        RemedyStep.MACHINE,
        ("request_kib",),
    ),
    AuditRule(
        "dirty-limits",
        Severity.WARNING,
        "one device's dirty pages may fill the machine's dirty limit while its daemon must dirty pages",
        "Once pages of the served device fill the limit, balance_dirty_pages() pauses everybody who writes, "
        "the daemon's own writes to its store among them. Those pages become clean only by the daemon's "
        "writes.",
        "Looks at daemons that store through the page cache, on another device and without the state, and at "
        "the share of the limit that their devices may take (bdi/max_ratio, max_bytes, strict_limit), all "
        "together. A warning where the limit is dirty_mib or less (in the lab 8 MiB froze at once, 32 MiB "
        "were slow), else a note. FUSE has its own limit.",
        "`echo N > /sys/block/NAME/bdi/max_ratio`, the state for the daemon, or O_DIRECT for its store.",
        dirty_limits.dirty_limits,
        RemedyStep.MACHINE,
        ("dirty_mib",),
    ),
    AuditRule(
        "daemon-gone",
        Severity.ERROR,
        "a device or mount is set up and its daemon is gone",
        "Requests wait, and with them every task that needs a page from there or waits for its dirty pages. "
        "Nobody will answer them.",
        "A warning where nothing uses the device or only recovery needs the daemon. A note where the "
        "snapshot was taken without the rights of root and the daemon may just not have been seen.",
        "Start the daemon again; or take the device down, so that what waits gets an error.",
        daemon_gone.daemon_gone,
        RemedyStep.MACHINE,
    ),
    AuditRule(
        "server-candidates",
        Severity.NOTE,
        "it is not certain which of several processes serves a device or mount",
        "The kernel keeps the connection of a device that was set up over netlink and names nobody for it. "
        "A candidate that is not known to speak the protocol is judged by no other rule.",
        "Each group of candidates once, whatever they may serve, with what speaks for each of them.",
        "Read something from the devices and look again, or set them up by ioctl.",
        server_candidates.server_candidates,
        RemedyStep.MACHINE,
    ),
    AuditRule(
        "unreadable",
        Severity.WARNING,
        "something that the audit needs could not be read",
        "A rule that lacks a fact keeps silent, and silence must not look like health. What is listed here "
        "was not judged.",
        "A warning for facts about a daemon, and for a snapshot taken without the rights of root, in which "
        "any other process may serve something; else a note.",
        "Take the snapshot as root.",
        unreadable.unreadable,
        RemedyStep.LOOK,
    ),
)

BY_NAME: dict[str, AuditRule] = {rule.name: rule for rule in RULES}
