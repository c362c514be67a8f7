"""Daemons in user space that serve a device: what each of their threads does for a request.

A daemon is a short description (`ioflusher.scenario.records.ThreadTable`), and so is its program here:
receive, allocate, store, send, wait, lock, reply. What the description calls for becomes the system calls and
the kernel's functions below them, with the flags of the thread. Threads may work in a line: the first takes a
request, and hands it to the next; the last one replies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_LOCAL_THROTTLE, PF_MEMALLOC_NOIO
from ioflusher.model.block import SWAP_IN, Served
from ioflusher.model.code import Code, Ways
from ioflusher.model.faults import Outside, Signals
from ioflusher.model.files import BufferedFile
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages, kmem_cache_alloc
from ioflusher.model.transitions import Changes, Expression, Number, Variable, all_of, number
from ioflusher.scenario.records import Action

# PR_SET_IO_FLUSHER, kernel/sys.c
PR_IO_FLUSHER = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE

SYSTEM_CALL = ("entry_SYSCALL_64_after_hwframe", "do_syscall_64")
# a thread of the kernel's SCSI target, drivers/target/iscsi/iscsi_target.c, drivers/target/target_core_file.c
TARGET_THREAD = (
    "iscsi_target_rx_thread",
    "target_execute_cmd",
    "fd_execute_rw",
    "fd_do_rw",
)

# the control group of all that a stack starts
DAEMON = "daemon"

# what a daemon does in user space for a request, before it asks the kernel for anything: in the guests of the
# lab, which are emulated, all that is done for 128 KiB takes 7 ms
HANDLING_NS = 2_000_000
REPLY_NS = 200_000
# a signal takes effect on the way back to user mode, kernel/signal.c
SIGNAL = (*SYSTEM_CALL, "syscall_exit_to_user_mode", "arch_do_signal_or_restart", "get_signal")
# kernel/fork.c
NR_CACHED_STACKS = 2
# until an event is noticed and acted upon: multipathd's polling_interval is 5 s, iscsid tries again after 1 s
EVENT_NS = 3_000_000_000
# between two tries to reach a server that is gone, FIRST_PAUSE of ioflusher.nbd.backends.link
LINK_NS = 200_000_000


@dataclass(frozen=True, slots=True)
class ServingThread:
    """A thread of a daemon, or several that are alike; as in `ioflusher.scenario.records.ThreadTable`.

    Attributes:
        name: its name in the kernel. does: its actions for a request, in order. takes: "requests", or the
        name of the thread that hands it those. io_flusher: whether it carries the state. realtime: whether
        it is a real-time task. locked: whether its own memory is there beforehand, so that "allocate" takes
        nothing. in_kernel: whether it is a thread of the kernel. count: how many there are.
    """

    name: str
    does: tuple[Action, ...]
    takes: str = "requests"
    io_flusher: bool = False
    realtime: bool = False
    locked: bool = False
    in_kernel: bool = False
    count: int = 1

    @property
    def flags(self) -> int:
        """Its PF_ flags."""
        return (PR_IO_FLUSHER if self.io_flusher else 0) | (PF_KTHREAD if self.in_kernel else 0)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a daemon works with.

    Attributes:
        served: what it serves.
        store: where it stores, if that is in this machine.
        memory: units that daemons hold: of their own, and in sockets.
        remote_ns: what a server outside takes for a request.
        cpus: processors, which threads that work at once share.
        signals: to the daemon's process; None for none.
        outside: the server outside.
        refuse: writes the reply to a request of a kind that the server outside did not do, which an error is;
            `also` changes with it. None where that never is.
    """

    served: Served
    store: BufferedFile | None
    memory: Variable
    remote_ns: int = 1_000_000
    cpus: int = 1
    signals: Signals | None = None
    outside: Outside = Outside()  # noqa: RUF009 - frozen
    refuse: Callable[[Code, str, Changes], None] | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """Where a thread finds requests of a kind: the condition, and what changes when it takes one."""

    kind: str
    there: Expression
    taken: Changes


@dataclass(slots=True)
class _Daemon:
    """The threads of a daemon while their programs are written.

    Attributes:
        handed: requests that one thread has handed to the next, by the name of the first and by kind.
        lock: who holds its mutex, by number of the task; 0 for nobody.
    """

    linux: Linux
    around: Surroundings
    handed: dict[str, dict[str, Variable]]
    lock: Variable | None


def add_daemon(linux: Linux, threads: Sequence[ServingThread], around: Surroundings) -> None:
    """The threads, each with its program."""
    served = around.served
    handing = {thread.takes for thread in threads} - {"requests"}
    handed = {
        name: {
            kind: linux.variable(
                f"{_identifier(name)}_{kind}s_done",
                0,
                served.queue_depth,
                what=f"requests that {name} handed on",
            )
            for kind in served.pending
        }
        for name in sorted(handing)
    }
    locks = any("lock" in thread.does for thread in threads)
    lock = linux.variable(f"{served.name}_daemon_lock", 0, 63, unit="task") if locks else None
    names: dict[str, int] = {}
    for thread in threads:
        before = {kind: _held_before(thread, threads, kind) for kind in served.pending}
        for _ in range(thread.count):
            number = names[thread.name] = names.get(thread.name, 0) + 1
            # a thread of the kernel gets no signals
            own = replace(around, signals=None) if thread.in_kernel else around
            daemon = _Daemon(linux, own, handed, lock)
            code = _program(own, thread)
            with code.loop(), code.loop():
                code.rest()
                _serve(code, daemon, thread, before)
            _do_exit(code, daemon)
            alike = f"{thread.name} {thread.flags:#x}" if thread.count > 1 else ""
            linux.add(
                code, thread.name if number == 1 else f"{thread.name}-{number}", alike=alike, daemon=True
            )


def add_event_thread(
    linux: Linux,
    thread: ServingThread,
    around: Surroundings,
    when: Expression,
    changes: Changes,
    what: str,
    *,
    notices_ns: int = EVENT_NS,
    makes_thread: bool = False,
) -> None:
    """A thread that waits for an event of the device, not for requests, and then does something about it.

    Until then its memory is left alone longer than any other. So it is in swap if anything is, unless it is
    locked, and is read back first: by a request to the device, where swap lies on that.

    Args:
        linux: the kernel. thread: the thread. around: what it works with.
        when: that it has to do something. changes: what that changes. what: a few words.
        notices_ns: until it has noticed. makes_thread: whether it starts another thread for that.
    """
    code = _program(around, thread)
    daemon = _Daemon(linux, around, {}, None)
    held = _held_by(thread, "")
    memory, zone = around.memory, linux.zone
    freed = {memory: memory - held, zone.free: zone.free + held} if held else {}
    with code.loop(), code.loop():
        code.rest()
        with code.choice() as ways:
            with ways.way(
                when=all_of(when, _undisturbed(around)),
                waits_for=f"an event of {around.served.name}",
                interruptible=True,
            ):
                code.step("looks at it", takes_ns=notices_ns)
                _exit_to_user_mode(code, daemon)
                if linux.swap is not None and linux.swap.back is not None and not thread.locked:
                    linux.swap.touch_again(code, linux)
                for action in thread.does:
                    _do(code, daemon, thread, action, "")
                    _exit_to_user_mode(code, daemon)
                if makes_thread:
                    _copy_process(code, linux, realtime=thread.realtime)
                code.step(what, {**changes, **freed}, when=when)
            _interrupted(ways, code, daemon)
    _do_exit(code, daemon)
    linux.add(code, thread.name, daemon=True)


def _given_up(daemon: _Daemon, queue: dict[str, Variable]) -> dict[Variable, Number]:
    """What changes when requests are lost that one thread had handed to the next."""
    served = daemon.around.served
    changes: dict[Variable, Number] = {}
    for kind, handed in queue.items():
        changes[handed] = 0
        if served.abandoned(kind, received=True):
            changes[served.pending[kind]] = served.pending[kind] + handed
    return changes


def _copy_process(code: Code, linux: Linux, *, realtime: bool) -> None:
    """clone(): a stack in the kernel, of which each processor keeps two; kernel/fork.c."""
    with code.call(*SYSTEM_CALL, "__x64_sys_clone3", "copy_process", "dup_task_struct"):
        kmem_cache_alloc(code, linux, GFP_KERNEL, realtime=realtime, objects=NR_CACHED_STACKS)


def add_link_thread(linux: Linux, thread: ServingThread, around: Surroundings) -> None:
    """A thread that connects to the server outside again, with sockets that it has made beforehand."""
    outside = around.outside
    assert outside.linked is not None
    assert outside.refusing is not None
    code = _program(around, thread)
    daemon = _Daemon(linux, around, {}, None)
    lost = outside.linked.is_(0) & outside.refusing.is_(0)
    with code.loop(), code.loop():
        code.rest()
        with code.choice() as ways:
            with ways.way(
                when=all_of(lost, _undisturbed(around)),
                waits_for="a server outside that takes connections",
                interruptible=True,
            ):
                code.step("tries again", takes_ns=LINK_NS)
                code.step("connects to the server outside", {outside.linked: number(1) - outside.refusing})
            _interrupted(ways, code, daemon)
    _do_exit(code, daemon)
    linux.add(code, thread.name, daemon=True)


def _program(around: Surroundings, thread: ServingThread) -> Code:
    """That of a thread, to be written."""
    killed = None if around.signals is None else around.signals.killed
    return Code(thread.flags, "" if thread.in_kernel else DAEMON, killed)


def _undisturbed(around: Surroundings) -> Expression | None:
    """Whether no signal is pending; None where none ever is."""
    return None if around.signals is None else around.signals.none


def _interrupted(ways: Ways, code: Code, daemon: _Daemon) -> None:
    """A further way of a thread that waits in the kernel and that a signal takes back to user mode."""
    signals = daemon.around.signals
    if signals is not None:
        with ways.way(when=signals.pending):
            _exit_to_user_mode(code, daemon)


def _exit_to_user_mode(
    code: Code, daemon: _Daemon, kind: str = "", *, received: bool = True, loops: int = 2
) -> None:
    """exit_to_user_mode_loop(): a thread that was stopped stays here, one that was killed ends.

    Args:
        kind: of the request that it has taken; empty for none.
        received: whether it has all of that.
        loops: of its program that it is in.
    """
    signals = daemon.around.signals
    if signals is None:
        return
    with code.call(*SIGNAL), code.choice() as ways:
        if signals.alive is not None:
            taken = daemon.around.served.abandoned(kind, received=received) if kind else {}
            with ways.way("is killed", taken, when=signals.alive.is_(0)):
                code.leave(loops)
        if signals.running is not None:
            with code.call("do_signal_stop"):
                going = all_of(signals.killed and signals.killed.negated(), signals.running > 0)
                with ways.way(when=going, waits_for="SIGCONT", interruptible=True):
                    pass
        else:
            with ways.otherwise():
                pass


def _do_exit(code: Code, daemon: _Daemon) -> None:
    """The end of a thread that was killed; with the last one memory and files of the process go."""
    signals, zone, memory = daemon.around.signals, daemon.linux.zone, daemon.around.memory
    if signals is None or signals.threads is None:
        return
    left = signals.threads
    with code.call(*SIGNAL, "do_group_exit", "do_exit"), code.choice() as ways:
        with ways.way("ends", {left: left - 1}, when=left > 1):
            pass
        changes: dict[Variable, Number] = {left: 0, memory: 0, zone.free: zone.free + memory}
        for queue in daemon.handed.values():
            changes |= _given_up(daemon, queue)
        with ways.otherwise("ends, and the process with it", {**changes, **signals.files}):
            pass
    code.rest()


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _held_before(thread: ServingThread, threads: Sequence[ServingThread], kind: str) -> int:
    """Units that the threads before it in the line hold for a request."""
    if thread.takes == "requests":
        return 0
    first = next(other for other in threads if other.name == thread.takes)
    return _held_before(first, threads, kind) + _held_by(first, kind)


def _held_by(thread: ServingThread, kind: str) -> int:
    return sum(_kept_by(thread, action, kind) for action in thread.does)


def _kept_by(thread: ServingThread, action: Action, kind: str) -> int:
    """Units that are held until the reply after an action; less, where it gives some back."""
    match action:
        case "allocate":
            return 0 if thread.locked else 1
        case "send":
            return 0 if kind == SWAP_IN else 1
        case "wait":
            return 0 if kind == SWAP_IN else -1
        case _:
            return 0


def _serve(code: Code, daemon: _Daemon, thread: ServingThread, before: dict[str, int]) -> None:
    """One request, from taking it up to the reply, or to handing it on; `before` is held for it already."""
    served = daemon.around.served
    if thread.takes == "requests":
        works = [_Work(kind, served.can_take(kind), served.taken_up(kind)) for kind in served.pending]
    else:
        queue = daemon.handed[thread.takes]
        works = [_Work(kind, found > 0, {found: found - 1}) for kind, found in queue.items()]
    # threads that are alike share the processors
    slower = max(1, thread.count // daemon.around.cpus)
    with code.choice() as ways:
        for work in works:
            kind = work.kind
            with ways.way(
                f"takes a request of {served.name}",
                work.taken,
                when=all_of(work.there, _undisturbed(daemon.around)),
                waits_for=f"a request of {served.name}",
                interruptible=True,
            ):
                code.step("looks at it", takes_ns=HANDLING_NS * slower)
                _exit_to_user_mode(code, daemon, kind, received=False)
                kept = before[kind]
                for action in thread.does:
                    _do(code, daemon, thread, action, kind, kept)
                    kept += _kept_by(thread, action, kind)
                    _exit_to_user_mode(code, daemon, kind)
                if thread.name in daemon.handed:
                    queue = daemon.handed[thread.name]
                    code.step("hands it on", {queue[kind]: queue[kind] + 1}, takes_ns=REPLY_NS * slower)
                else:
                    _reply(code, daemon, thread, kind, kept)
        _interrupted(ways, code, daemon)


def _reply(code: Code, daemon: _Daemon, thread: ServingThread, kind: str, held: int) -> None:
    """The reply, which has the data of what was read, and what was held for the request is given back."""
    served, memory, zone = daemon.around.served, daemon.around.memory, daemon.linux.zone
    slower = max(1, thread.count // daemon.around.cpus)
    if served.reply_calls:
        with code.call(*SYSTEM_CALL, "__x64_sys_sendto", *served.reply_calls):
            kmem_cache_alloc(code, daemon.linux, GFP_KERNEL, realtime=thread.realtime)
            if kind == SWAP_IN:
                gives, held = {memory: memory + 1}, held + 1
                alloc_pages(
                    code,
                    daemon.linux,
                    GFP_KERNEL,
                    gives,
                    realtime=thread.realtime,
                    label="sends what was read",
                )
    freed = {memory: memory - held, zone.free: zone.free + held} if held else {}
    served.complete(code, kind, freed, takes_ns=REPLY_NS * slower)


def _do(code: Code, daemon: _Daemon, thread: ServingThread, action: Action, kind: str, held: int = 0) -> None:
    """An action; `held` units are held for the request before it."""
    linux, around, realtime = daemon.linux, daemon.around, thread.realtime
    zone, memory = linux.zone, around.memory
    gives = {memory: memory + 1}
    match action:
        case "allocate":
            if thread.locked:
                return
            with code.call("asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "do_anonymous_page"):
                alloc_pages(code, linux, GFP_HIGHUSER_MOVABLE, gives, realtime=realtime, label="a page fault")
        case "send":
            _unless_gone(code, daemon, kind, held)
            with code.call(*SYSTEM_CALL, "__x64_sys_sendto", "tcp_sendmsg", "tcp_sendmsg_locked"):
                if kind == SWAP_IN:
                    with code.call("tcp_stream_alloc_skb"):
                        kmem_cache_alloc(code, linux, GFP_KERNEL, realtime=realtime)
                else:
                    with code.call("skb_page_frag_refill"):
                        alloc_pages(code, linux, GFP_KERNEL, gives, realtime=realtime, label="sends")
        case "wait":
            freed = {memory: memory - 1, zone.free: zone.free + 1} if kind != SWAP_IN else {}
            with code.choice() as ways:
                with ways.way(
                    "the server outside answers",
                    freed,
                    when=all_of(around.outside.answers, around.outside.linked and around.outside.linked > 0),
                    waits_for="" if around.outside.answers is None else "the server outside",
                    interruptible=around.outside.answers is not None,
                    takes_ns=around.outside.takes_ns(around.remote_ns),
                ):
                    pass
                _gone(ways, code, daemon, kind, held)
        case "store":
            assert around.store is not None
            with code.call(*_entry(thread, kind)):
                if kind == SWAP_IN:
                    around.store.read(code, linux, realtime=realtime)
                else:
                    around.store.write(code, linux, {}, realtime=realtime)
        case "store-direct":
            assert around.store is not None
            with code.call(*_entry(thread, kind)):
                if kind == SWAP_IN:
                    around.store.read_direct(code, linux)
                else:
                    around.store.write_direct(code, linux)
        case "lock":
            assert daemon.lock is not None
            with code.call(*SYSTEM_CALL, "__x64_sys_futex", "futex_wait"), code.loop(), code.choice() as ways:
                with ways.way(
                    "the daemon's lock",
                    {daemon.lock: linux.next_pid()},
                    when=all_of(daemon.lock.is_(0), _undisturbed(around)),
                    waits_for="the daemon's lock",
                    interruptible=True,
                ):
                    code.leave()
                if around.signals is not None:
                    with ways.way(when=around.signals.pending):
                        _exit_to_user_mode(code, daemon, kind, loops=3)
        case "unlock":
            assert daemon.lock is not None
            code.step("gives the daemon's lock back", {daemon.lock: 0})


def _unless_gone(code: Code, daemon: _Daemon, kind: str, held: int) -> None:
    """A request is not sent to a server outside that is not there."""
    linked = daemon.around.outside.linked
    if linked is not None:
        with code.choice() as ways:
            with ways.way(when=linked > 0):
                pass
            _gone(ways, code, daemon, kind, held)


def _gone(ways: Ways, code: Code, daemon: _Daemon, kind: str, held: int) -> None:
    """A further way, where the server outside is gone: the daemon replies with an error, at once."""
    around, zone = daemon.around, daemon.linux.zone
    if around.outside.linked is None:
        return
    assert around.refuse is not None
    with ways.way(when=around.outside.linked.is_(0)):
        memory = around.memory
        around.refuse(code, kind, {memory: memory - held, zone.free: zone.free + held} if held else {})
        code.leave()


def _entry(thread: ServingThread, kind: str) -> tuple[str, ...]:
    """The functions through which it comes to its store."""
    reads = kind == SWAP_IN
    if thread.in_kernel:
        return (*TARGET_THREAD, "vfs_iter_read" if reads else "vfs_iter_write")
    return (
        *SYSTEM_CALL,
        *(("__x64_sys_pread64", "vfs_read") if reads else ("__x64_sys_pwrite64", "vfs_write")),
    )
