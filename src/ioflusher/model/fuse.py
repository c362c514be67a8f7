"""A file system in user space: its queue of requests and a file on it; fs/fuse/dev.c, fs/fuse/file.c.

Without the write-back cache, which is how a daemon has it unless it asks for it, a write goes through: who
writes waits for the daemon's answer. With it pages become dirty, and the flusher sends them.
"""

from collections.abc import Callable

from ioflusher.model.block import SWAP_IN, BioPool, BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_NOFS, Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages, filemap_alloc_folio
from ioflusher.model.transitions import Changes, Expression, maximum, together
from ioflusher.model.versions import holds

# FUSE_DEFAULT_MAX_BACKGROUND, fs/fuse/inode.c
MAX_BACKGROUND = 12


class FuseQueue:
    """The requests of a FUSE mount that somebody waits for: struct fuse_iqueue.

    Attributes:
        answered: answers that who waits has not seen yet.
        aborted: whether every request ends with ENOTCONN from now on; None where that never is.
    """

    reply_calls: tuple[str, ...] = ()

    def __init__(
        self,
        linux: Linux,
        name: str,
        *,
        queue_depth: int,
        kinds: tuple[str, ...] = ("write",),
        ends: bool = False,
    ) -> None:
        self.name = name
        self.linux = linux
        self.queue_depth = queue_depth
        self.pending = {
            kind: linux.variable(
                f"{name}_{kind}s", 0, queue_depth, what=f"requests to the daemon of {name} ({kind})"
            )
            for kind in kinds
        }
        self.answered = linux.variable(f"{name}_answered", 0, queue_depth, what=f"answers of {name}")
        self.aborted = (
            linux.variable(f"{name}_aborted", 0, 1, what=f"the connection of {name} is over")
            if ends
            else None
        )

    def can_take(self, kind: str) -> Expression:
        """fuse_dev_do_read() finds a request."""
        return self.pending[kind] > 0

    def taken_up(self, kind: str) -> Changes:
        """It reads one."""
        return {self.pending[kind]: self.pending[kind] - 1}

    def complete(self, code: Code, kind: str, also: Changes, *, takes_ns: int) -> None:
        """fuse_dev_do_write(), fuse_request_end(): who waits is woken."""
        answers = {self.answered: self.answered + 1}
        code.step(f"answers to {self.name}", together(answers, also), takes_ns=takes_ns)

    def abandoned(self, kind: str, *, received: bool) -> Changes:
        """Who waits for it is told by fuse_abort_conn()."""
        return {}

    @property
    def files(self) -> Changes:
        """The daemon's end of /dev/fuse is closed: fuse_dev_release() to fuse_abort_conn()."""
        return {} if self.aborted is None else {self.aborted: 1}


class FuseFile:
    """A file that is written through: fuse_perform_write().

    Attributes:
        fails: writes what comes of an error, in a task that does one request after the other.
    """

    def __init__(self, connection: FuseQueue, fails: Callable[[Code], None]) -> None:
        self.connection = connection
        self.fails = fails

    def write(self, code: Code, linux: Linux, also: Changes, *, realtime: bool = False) -> None:
        """A page for the data, a request, and the wait for its answer."""
        name = self.connection.name
        with code.call("fuse_file_write_iter", "fuse_perform_write"):
            with code.call("fuse_fill_write_pages", "__filemap_get_folio"):
                filemap_alloc_folio(code, linux, f"a page of the file on {name}", also, realtime=realtime)
            with code.call("fuse_send_write_pages"):
                self._request(code, "write")

    def read(self, code: Code, linux: Linux, *, realtime: bool = False) -> None:
        """fuse_cache_read_iter(): a page for the data, a request, and the wait for its answer."""
        name = self.connection.name
        with code.call("fuse_file_read_iter", "filemap_read", "page_cache_ra_unbounded"):
            filemap_alloc_folio(code, linux, f"a page for what is read of {name}", realtime=realtime)
            with code.call("fuse_readahead"):
                self._request(code, SWAP_IN)

    def _request(self, code: Code, kind: str) -> None:
        to = self.connection
        with code.call("__fuse_simple_request", "__fuse_request_send"):
            code.step(f"a request to {to.name}", {to.pending[kind]: to.pending[kind] + 1})
            with code.call("request_wait_answer"), code.choice() as ways:
                with ways.way(
                    "answered",
                    {to.answered: to.answered - 1},
                    when=to.answered > 0,
                    waits_for=f"an answer of the daemon of {to.name}",
                    interruptible=True,
                ):
                    pass
                if to.aborted is not None:
                    # of what it sent, whether the daemon has taken it or not, nothing is left
                    gone = {to.pending[kind]: maximum(0, to.pending[kind] - 1)}
                    with ways.otherwise("the connection is aborted", gone, when=to.aborted > 0):
                        self.fails(code)
                        code.leave()


class FuseWriteback(BlockDriver):
    """The mount as a backing device, with the write-back cache: requests of the flusher.

    They wait for nobody's answer. Before 6.16 (`fuse_temp_pages` of `ioflusher.model.versions`) each page is
    copied into a temporary one, which the daemon is sent, and is clean at once: what is being written counts
    neither as dirty nor as writeback, but takes memory.

    Attributes:
        active: requests that the daemon has been given, at most MAX_BACKGROUND (fc->active_background).
        temporary: whether pages are copied.
    """

    def __init__(self, linux: Linux, name: str) -> None:
        super().__init__(linux, name, queue_depth=linux.zone.free.high, kinds=("write",))
        self.temporary = holds("fuse_temp_pages", linux.version)
        self.active = linux.variable(
            f"{name}_active", 0, MAX_BACKGROUND, what=f"background requests of {name}"
        )

    def begin_write(self, code: Code, pool: BioPool) -> None:
        """fuse_writepages_fill(): the temporary page."""
        if self.temporary:
            zone = self.linux.zone
            with code.call("fuse_writepages", "write_cache_pages", "fuse_writepages_fill"):
                alloc_pages(
                    code,
                    self.linux,
                    GFP_NOFS | Gfp.HIGHMEM,
                    {zone.clean: zone.clean + 1},
                    label="a temporary page",
                )

    def submit(self, code: Code, kind: str) -> None:
        """fuse_send_writepage() to fuse_request_queue_background(): it never waits."""
        with code.call("fuse_writepages", "fuse_writepages_send", "fuse_send_writepage"):
            self.queue_rq(code, kind)

    def queue_rq(self, code: Code, kind: str) -> None:
        """flush_bg_queue()."""
        code.step(
            f"a request to {self.name}",
            {self.pending[kind]: self.pending[kind] + 1, self.tags: self.tags - 1},
            when=self.tags > 0,
        )

    def can_take(self, kind: str) -> Expression:
        """A request of the background that may go to the daemon."""
        return (self.pending[kind] > 0) & (self.active < MAX_BACKGROUND)

    def taken_up(self, kind: str) -> Changes:
        """The daemon has it."""
        return {**super().taken_up(kind), self.active: self.active + 1}

    def completed(self, kind: str) -> Changes:
        """fuse_writepage_end(), and the temporary page is free."""
        zone = self.linux.zone
        changes = together(super().completed(kind), {self.active: self.active - 1})
        if self.temporary:
            changes = together(changes, {zone.clean: zone.clean - 1, zone.free: zone.free + 1})
        return changes
