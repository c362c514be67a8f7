"""Block devices: bios and their pool, tags, and what happens when a request is completed; block/.

A request is a unit here. Its kind says what it is for, and so what its completion gives back.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ioflusher.kernel.task_flags import PF_MEMALLOC, PF_WQ_WORKER
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_NOIO
from ioflusher.model.linux import Linux
from ioflusher.model.plug import blk_add_rq_to_plug, sched_submit_work
from ioflusher.model.reclaim import reclaimable, try_to_free_pages
from ioflusher.model.transitions import Changes, Expression, Variable, number, together, where

# the kind of a request that reads from swap
SWAP_IN = "swapin"
# block/bio.c: BIO_POOL_SIZE, the elements of fs_bio_set
BIO_POOL_SIZE = 2


@dataclass(frozen=True, slots=True)
class BioPool:
    """What fs_bio_set keeps for when there is no memory for a bio (block/bio.c, mm/mempool.c)."""

    elements: Variable


def bio_alloc_bioset(code: Code, linux: Linux, pool: BioPool) -> None:
    """A bio of free memory, or an element of the pool, or a wait for one: mempool_alloc(), mm/mempool.c.

    It asks with __GFP_NOMEMALLOC: below the min watermark nobody gets one of free memory, not even who has
    PF_MEMALLOC. Where no element is left who is not in reclaim already reclaims without I/O.
    """
    zone = linux.zone
    with code.call("bio_alloc_bioset", "mempool_alloc"), code.loop(), code.choice() as ways:
        with ways.way("a bio", when=zone.free > zone.wmark_min):
            code.leave()
        with ways.otherwise(
            "an element of the bio pool",
            {pool.elements: pool.elements - 1},
            when=pool.elements > 0,
            waits_for="an element of the bio pool",
        ):
            code.leave()
        if not code.flags & PF_MEMALLOC:
            with ways.otherwise(when=reclaimable(linux, GFP_NOIO)), code.call("__alloc_pages_slowpath"):
                try_to_free_pages(code, linux, GFP_NOIO)
        sched_submit_work(ways, code, linux)


def bio_put(pool: BioPool) -> Changes:
    """mempool_free(): the pool is filled up first."""
    return {pool.elements: where(pool.elements < BIO_POOL_SIZE, pool.elements + 1, pool.elements)}


class Served(Protocol):
    """What a daemon serves: a block device, or the connection of a FUSE file system.

    Attributes:
        name: such as "nbd0". queue_depth: requests that it may have at once. pending: requests that nobody
        has taken up, by kind. reply_calls: the functions that a reply goes through to a socket, which takes
        a socket buffer; empty where it takes no memory.
    """

    name: str
    queue_depth: int
    pending: dict[str, Variable]
    reply_calls: tuple[str, ...]

    def can_take(self, kind: str) -> Expression:
        """Whether the server finds a request of this kind."""

    def taken_up(self, kind: str) -> Changes:
        """What changes when the server takes one."""

    def complete(self, code: Code, kind: str, also: Changes, *, takes_ns: int) -> None:
        """The server has done it: what the driver does in the server's own task; `also` changes with it."""

    def abandoned(self, kind: str, *, received: bool) -> Changes:
        """What changes when a thread of the server ends that was at a request, `received` whole or not."""


class BlockDriver(abc.ABC):
    """A block device and its driver.

    Attributes:
        name: such as "nbd0".
        tags: requests that it still takes (blk_mq_tags).
        pending: requests that were handed to whoever serves the device and were not taken up, by kind.
        reply_calls: of `Served`.
        can_fail: whether a request may end with an error.
        fails: whether every request ends with one from now on; None where that never is.
        insertions: of `inserted`, by kind.
    """

    reply_calls: tuple[str, ...] = ()
    can_fail: bool = False
    fails: Expression | None = None

    def __init__(self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...]) -> None:
        self.name = name
        self.linux = linux
        self.queue_depth = queue_depth
        self.tags = linux.variable(f"{name}_tags", queue_depth, queue_depth, what=f"free tags of {name}")
        self.pending = {
            kind: linux.variable(
                f"{name}_{kind}s",
                0,
                queue_depth,
                what=f"requests of {name} that wait for its server ({kind})",
            )
            for kind in kinds
        }
        self.completions: dict[str, Changes] = {}
        self.failures: dict[str, Changes] = {}
        self.insertions: dict[str, Variable] = {}
        linux.devices[name] = self

    def submit(self, code: Code, kind: str) -> None:
        """A request to the device: submit_bio(), a tag, the driver's queue_rq()."""
        with code.call("submit_bio_noacct", "blk_mq_submit_bio"):
            self._get_tag(code)
            if code.plug is not None and (self.name, kind) in code.plug.held:
                blk_add_rq_to_plug(code, self.linux, self, kind)
                return
            with code.call("blk_mq_dispatch_rq_list"):
                self.queue_rq(code, kind)

    def _get_tag(self, code: Code) -> None:
        """blk_mq_get_tag(): who finds none goes to sleep (io_schedule())."""
        with code.call("blk_mq_get_tag"), code.loop(), code.choice() as ways:
            with ways.way(
                f"a tag of {self.name}",
                {self.tags: self.tags - 1},
                when=self.tags > 0,
                waits_for=f"a tag of {self.name}",
                begins=self.name,
            ):
                code.leave()
            sched_submit_work(ways, code, self.linux)

    def inserted(self, kind: str) -> Variable:
        """Requests of a kind that were plugged and that kblockd has to issue (struct blk_mq_ctx.rq_lists)."""
        if kind not in self.insertions:
            what = f"requests of {self.name} for kblockd ({kind})"
            name = f"{self.name}_{kind}s_inserted"
            self.insertions[kind] = self.linux.variable(name, 0, self.queue_depth, what=what)
        return self.insertions[kind]

    @abc.abstractmethod
    def queue_rq(self, code: Code, kind: str) -> None:
        """The driver hands a request to whoever serves the device."""

    def add_dispatcher(self, requests: Mapping[str, Variable], waits_for: str, program: str) -> None:
        """A worker of kblockd that hands requests to the driver: blk_mq_run_work_fn().

        Args:
            requests: those that wait for it, by kind.
            waits_for: what it waits for where there is none.
            program: its name.
        """
        code = Code(flags=PF_WQ_WORKER)
        with code.call("blk_mq_run_work_fn", "blk_mq_dispatch_rq_list"), code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, waiting in requests.items():
                    with ways.way(
                        "", {waiting: waiting - 1}, when=waiting > 0, waits_for=waits_for, interruptible=True
                    ):
                        self.queue_rq(code, kind)
        self.linux.add(code, program)

    def begin_write(self, code: Code, pool: BioPool) -> None:
        """What a request of the flusher needs before it can be submitted."""
        bio_alloc_bioset(code, self.linux, pool)

    def can_take(self, kind: str) -> Expression:
        """Whether the server finds a request of this kind."""
        return self.pending[kind] > 0

    def taken_up(self, kind: str) -> Changes:
        """What changes when the server takes a request of this kind."""
        return {self.pending[kind]: self.pending[kind] - 1}

    def complete(self, code: Code, kind: str, also: Changes, *, takes_ns: int) -> None:
        """The reply, from which the driver's receiver completes the request."""
        code.step(
            f"replies to {self.name}",
            together(self.completed(kind), also),
            completes=self.name,
            takes_ns=takes_ns,
        )

    def completed(self, kind: str) -> Changes:
        """What changes when a request of this kind is completed: the tag, and what waited for it."""
        return {self.tags: self.tags + 1, **self.completions[kind]}

    def failed(self, kind: str) -> Changes:
        """The same for one that ends with an error."""
        return {self.tags: self.tags + 1, **self.failures[kind]}

    def fail(
        self, code: Code, kind: str, also: Changes | None = None, *, takes_ns: int | None = None
    ) -> None:
        """A request ends with BLK_STS_IOERR: blk_mq_end_request(). It counts as completed."""
        label = f"an I/O error of {self.name}"
        changes = together(self.failed(kind), also or {})
        code.step(label, changes, completes=self.name, takes_ns=takes_ns)

    def abandoned(self, kind: str, *, received: bool) -> Changes:
        """What changes when a thread of the server ends that had taken a request of this kind."""
        return {}

    @property
    def in_flight(self) -> Expression:
        """Requests that have a tag and are not completed."""
        return number(self.queue_depth) - self.tags


class DiskDriver(BlockDriver):
    """A disk whose requests the machine below it completes, each after a while."""

    def __init__(
        self,
        linux: Linux,
        name: str,
        *,
        request_ns: int,
        queue_depth: int = 256,
        kinds: tuple[str, ...] = ("write",),
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        self.request_ns = request_ns

    def queue_rq(self, code: Code, kind: str) -> None:
        """virtio_queue_rq(), drivers/block/virtio_blk.c: it never waits."""
        code.step(f"to {self.name}", {self.pending[kind]: self.pending[kind] + 1})

    def add_server(self) -> None:
        """What completes its requests: an interrupt, a task here for it takes its time."""
        code = Code()
        with code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, pending in self.pending.items():
                    with ways.way(
                        f"{self.name} completes",
                        {**self.taken_up(kind), **self.completed(kind)},
                        when=pending > 0,
                        waits_for=f"a request of {self.name}",
                        interruptible=True,
                        takes_ns=self.request_ns,
                    ):
                        pass
        self.linux.add(code, self.name, hardware=True)
