"""A unit of the kernel's SCSI target in user space: drivers/target/target_core_user.c, over tcm_loop."""

from ioflusher.kernel.task_flags import PF_WQ_WORKER
from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_NOIO
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages
from ioflusher.model.transitions import Changes

# requests in flight at most. can_queue is 1024 (drivers/target/loopback/tcm_loop.c), of which mq-deadline
# leaves three quarters to writes, and those of swap are smaller than a unit: in a guest 767 had 42 MiB
IN_FLIGHT = 336


class TcmuDriver(BlockDriver):
    """A unit whose commands lie in a ring that the handler maps, their data in pages beside it.

    tcm_loop leaves a command to a worker of the target and never waits (target_queue_submission(), read in
    6.1 and 6.13). The worker puts it into the ring, under cmdr_lock, and asks for pages where the data area
    has not been as large before. The handler's reply takes the same lock (tcmu_irqcontrol()).

    Attributes:
        queued: commands that the worker has not taken, by kind.
        cmdr_lock: who has the ring, by number of the task; 0 for nobody (struct tcmu_dev).
        pages: units of the data area that are there; they stay.
    """

    def __init__(self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...]) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        self.queued = {
            kind: linux.variable(
                f"{name}_{kind}s_queued",
                0,
                queue_depth,
                what=f"commands of {name} that are not in its ring ({kind})",
            )
            for kind in kinds
        }
        self.cmdr_lock = linux.variable(
            f"{name}_cmdr_lock", 0, 63, what=f"holder of cmdr_lock of {name}", unit="task"
        )
        self.pages = linux.variable(
            f"{name}_pages", 0, queue_depth, what=f"data area of {name}", unit="memory"
        )

    def queue_rq(self, code: Code, kind: str) -> None:
        """scsi_queue_rq() to target_queue_submission()."""
        with code.call("scsi_queue_rq", "tcm_loop_queuecommand", "target_queue_submission"):
            code.step(f"to the worker of {self.name}", {self.queued[kind]: self.queued[kind] + 1})

    def add_worker(self) -> None:
        """target_queued_submit_work() to tcmu_queue_cmd(). What has its tag has its place in the ring."""
        code = Code(flags=PF_WQ_WORKER)
        with code.call("target_queued_submit_work"), code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, queued in self.queued.items():
                    with ways.way(
                        f"takes a command of {self.name}",
                        {queued: queued - 1},
                        when=queued > 0,
                        waits_for=f"a command of {self.name}",
                        interruptible=True,
                    ):
                        self._into_ring(code, kind)
        self.linux.add(code, "kworker/0:target_submission")

    def _into_ring(self, code: Code, kind: str) -> None:
        pages = self.pages
        with code.call("target_execute_cmd", "tcmu_queue_cmd"):
            self._lock(code)
            with code.call("queue_cmd_ring"):
                with code.choice() as ways:
                    with ways.way(when=pages >= self.in_flight):
                        pass
                    with ways.otherwise(), code.call("tcmu_alloc_data_space", "tcmu_get_empty_block"):
                        label = f"a page of the data area of {self.name}"
                        alloc_pages(code, self.linux, GFP_NOIO, {pages: pages + 1}, label=label)
                code.step(
                    f"into the ring of {self.name}",
                    {self.pending[kind]: self.pending[kind] + 1, self.cmdr_lock: 0},
                )

    def complete(self, code: Code, kind: str, also: Changes, *, takes_ns: int) -> None:
        """A write() to the uio device: tcmu_irqcontrol(), tcmu_handle_completions()."""
        with code.call("uio_write", "tcmu_irqcontrol"):
            self._lock(code)
            super().complete(code, kind, {**also, self.cmdr_lock: 0}, takes_ns=takes_ns)

    def _lock(self, code: Code) -> None:
        with code.call("mutex_lock"):
            code.step(
                f"cmdr_lock of {self.name}",
                {self.cmdr_lock: self.linux.next_pid()},
                when=self.cmdr_lock.is_(0),
                waits_for=f"cmdr_lock of {self.name}",
            )
