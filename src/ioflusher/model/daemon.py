"""Daemons in user space that serve a device: what each of their threads does for a request.

A daemon is a short description, and so is its program here: receive, allocate, store, send, wait, reply.
What the description calls for becomes the system calls and the kernel's functions below them, with the
flags of the thread.
"""

from dataclasses import dataclass
from typing import Literal

from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE, PF_MEMALLOC_NOIO
from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages
from ioflusher.model.transitions import Variable
from ioflusher.model.writeback import BackingDevice, balance_dirty_pages

# PR_SET_IO_FLUSHER, kernel/sys.c
PR_IO_FLUSHER = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE

SYSTEM_CALL = ("entry_SYSCALL_64_after_hwframe", "do_syscall_64")

# what a daemon does in user space for a request, before it asks the kernel for anything
HANDLING_NS = 500_000
REPLY_NS = 200_000

Verb = Literal["allocate", "store", "store-direct", "send", "wait", "lock", "unlock"]


@dataclass(frozen=True, slots=True)
class ServingThread:
    """A thread of a daemon, or several that are alike.

    Attributes:
        name: its name in the kernel.
        does: what it does between receiving a request and replying to it, in order.
        io_flusher: whether it carries the state.
        realtime: whether it is a real-time task.
        locked: whether its own memory is there beforehand, so that "allocate" takes nothing.
        count: how many there are.
    """

    name: str
    does: tuple[Verb, ...]
    io_flusher: bool = False
    realtime: bool = False
    locked: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a daemon works with.

    Attributes:
        device: what it serves.
        store: where it stores, if that is in this machine.
        memory: units that daemons hold: of their own, and in sockets.
        locks: its locks by name, each with the number of the task that holds it, 0 for nobody.
        remote_ns: what a server outside takes for a request.
    """

    device: BlockDriver
    store: BackingDevice | None
    memory: Variable
    locks: dict[str, Variable]
    remote_ns: int = 1_000_000


def add_daemon(linux: Linux, thread: ServingThread, around: Surroundings) -> None:
    """The threads, each with its program."""
    for each in range(thread.count):
        code = Code(flags=PR_IO_FLUSHER if thread.io_flusher else 0)
        with code.loop():
            code.rest()
            _serve(code, linux, thread, around)
        alike = thread.name if thread.count > 1 else ""
        linux.add(code, thread.name if not each else f"{thread.name}-{each + 1}", alike=alike)


def _serve(code: Code, linux: Linux, thread: ServingThread, around: Surroundings) -> None:
    device = around.device
    with code.choice() as ways:
        for kind, pending in device.pending.items():
            with ways.way(
                f"takes a request of {device.name}",
                device.taken_up(kind),
                when=pending > 0,
                waits_for=f"a request of {device.name}",
                interruptible=True,
            ):
                code.step("looks at it", takes_ns=HANDLING_NS)
                for verb in thread.does:
                    _do(code, linux, thread, around, verb)
                code.step(
                    f"replies to {device.name}",
                    device.completed(kind),
                    completes=device.name,
                    takes_ns=REPLY_NS,
                )


def _do(code: Code, linux: Linux, thread: ServingThread, around: Surroundings, verb: Verb) -> None:
    zone = linux.zone
    gives = {around.memory: around.memory + 1}
    if verb == "allocate":
        if thread.locked:
            return
        with code.call("asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "do_anonymous_page"):
            alloc_pages(
                code, linux, GFP_HIGHUSER_MOVABLE, gives, realtime=thread.realtime, label="a page fault"
            )
    if verb == "send":
        with code.call(
            *SYSTEM_CALL, "__x64_sys_sendto", "tcp_sendmsg", "tcp_sendmsg_locked", "skb_page_frag_refill"
        ):
            alloc_pages(
                code, linux, GFP_KERNEL, gives, realtime=thread.realtime, label="sends to the server outside"
            )
    if verb == "wait":
        freed = {around.memory: around.memory - 1, zone.free: zone.free + 1}
        code.step("the server outside answers", freed, takes_ns=around.remote_ns)
    if verb == "store":
        _write(code, linux, thread, around.store)


def _write(code: Code, linux: Linux, thread: ServingThread, store: BackingDevice | None) -> None:
    assert store is not None
    with code.call(
        *SYSTEM_CALL, "__x64_sys_pwrite64", "vfs_write", "ext4_file_write_iter", "generic_perform_write"
    ):
        with code.call("ext4_da_write_begin", "__filemap_get_folio"):
            alloc_pages(
                code,
                linux,
                GFP_HIGHUSER_MOVABLE,
                {store.dirty: store.dirty + 1},
                realtime=thread.realtime,
                label=f"a page of its file on {store.device.name}",
            )
        balance_dirty_pages(code, linux, store, realtime=thread.realtime)
