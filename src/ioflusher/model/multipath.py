"""dm-multipath with queue_if_no_path: drivers/md/dm-mpath.c, drivers/md/dm-rq.c."""

from ioflusher.kernel.task_flags import PF_WQ_WORKER
from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Changes, Expression


class MultipathDriver(BlockDriver):
    """A map over paths to one disk, all of which one fault takes offline.

    A request that finds no path that is thought to work is kept and tried again (DM_MAPIO_DELAY_REQUEUE).
    The map gives a path up when a request on it fails (fail_path()); only multipathd takes it back, with the
    message "reinstate_path", once it has seen it work.

    Attributes:
        online: whether the disk can be reached. active: paths that the map uses.
    """

    def __init__(
        self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...], paths: int
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        self.paths = paths
        self.online = linux.variable(f"{name}_online", 1, 1, what=f"the disk of {name} can be reached")
        self.active = linux.variable(f"{name}_active", paths, paths, what=f"paths that {name} uses")

    def queue_rq(self, code: Code, kind: str) -> None:
        """dm_mq_queue_rq(): it never waits."""
        with code.call("dm_mq_queue_rq", "map_request", "multipath_clone_and_map"):
            code.step(f"mapped by {self.name}", {self.pending[kind]: self.pending[kind] + 1})

    @property
    def reinstates(self) -> tuple[Expression, Changes]:
        """When multipathd finds a path that works again, and what its message changes."""
        return (self.online > 0) & (self.active < self.paths), {self.active: self.paths}

    def add_disk(self, request_ns: int) -> None:
        """The disk, and fail_path() of requests that cannot reach it."""
        code = Code()
        with code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, pending in self.pending.items():
                    with ways.way(
                        when=(pending > 0) & (self.active > 0) & (self.online > 0),
                        waits_for=f"a request of {self.name} and a path",
                        interruptible=True,
                        takes_ns=request_ns,
                    ):
                        code.step(
                            f"{self.name} completes",
                            {**self.taken_up(kind), **self.completed(kind)},
                            completes=self.name,
                        )
        self.linux.add(code, "sda", hardware=True)
        worker = Code(flags=PF_WQ_WORKER)
        with worker.call("process_one_work", "fail_path"), worker.loop():
            worker.rest()
            worker.step(
                "a path fails",
                {self.active: self.active - 1},
                when=(self.active > 0) & self.online.is_(0) & (self.in_flight > 0),
                waits_for="a request that fails",
                interruptible=True,
            )
        self.linux.add(worker, "kworker/u:kmpathd")
