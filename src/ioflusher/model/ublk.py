"""The user-space block device over io_uring: drivers/block/ublk_drv.c."""

from ioflusher.kernel.task_flags import PF_WQ_WORKER
from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Changes
from ioflusher.model.versions import holds

# UBLK_DAEMON_MONITOR_PERIOD
MONITOR_NS = 5_000_000_000


class UblkDriver(BlockDriver):
    """A ublk device with one queue.

    A request becomes work of the server's own thread (io_uring_cmd_complete_in_task()), which copies its data
    into the server's memory when it next enters the kernel: who submits waits for nothing but a tag, and a
    thread of the server that waits elsewhere takes none.

    Attributes:
        gone: whether the server has ended, and the device with it; None where that never is.
    """

    def __init__(
        self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...], ends: bool = False
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        self.can_fail = ends
        what = f"the server of {name} is gone"
        self.gone = linux.variable(f"{name}_gone", 0, 1, what=what) if ends else None
        self.fails = None if self.gone is None else self.gone > 0

    def queue_rq(self, code: Code, kind: str) -> None:
        """ublk_queue_rq(): it never waits."""
        with code.call("ublk_queue_rq", "ublk_queue_cmd"):
            code.step(f"to the server of {self.name}", {self.pending[kind]: self.pending[kind] + 1})

    def abandoned(self, kind: str, *, received: bool) -> Changes:
        """It is one of those that are aborted."""
        return {self.pending[kind]: self.pending[kind] + 1}

    @property
    def files(self) -> Changes:
        """The server's io_uring is closed: its commands are cancelled."""
        return {} if self.gone is None else {self.gone: 1}

    def add_abort(self) -> None:
        """ublk_abort_requests() and ublk_stop_dev(): no server may come back, so all is an error."""
        if self.gone is None:
            return
        code = Code(flags=PF_WQ_WORKER)
        with code.call("process_one_work"):
            code.rest()
            code.wait(self.gone > 0, f"the end of the server of {self.name}", interruptible=True)
            if not holds("ublk_cancels_commands", self.linux.version):
                with code.call("ublk_daemon_monitor_work"):
                    code.step("looks after the server", takes_ns=MONITOR_NS)
        with code.call("process_one_work", "ublk_stop_dev"), code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, pending in self.pending.items():
                    with ways.way(
                        when=pending > 0,
                        waits_for=f"a request of {self.name}",
                        interruptible=True,
                    ):
                        self.fail(code, kind, {pending: pending - 1})
        self.linux.add(code, "kworker/0:ublk_stop")
