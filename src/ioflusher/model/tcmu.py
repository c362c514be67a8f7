"""A unit of the kernel's SCSI target in user space: drivers/target/target_core_user.c, over tcm_loop."""

from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_NOIO
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages
from ioflusher.model.transitions import Changes


class TcmuDriver(BlockDriver):
    """A unit whose commands lie in a ring that the handler maps, their data in pages beside it.

    tcm_loop may wait in queuecommand() (since 5.13, with the submission in the caller's own task), so whoever
    submits a request puts it into the ring, under cmdr_lock, and asks for pages where the data area has not
    been as large before. The handler's reply takes the same lock (tcmu_irqcontrol()).

    Attributes:
        cmdr_lock: who has the ring, by number of the task; 0 for nobody (struct tcmu_dev).
        pages: units of the data area that are there; they stay.
    """

    def __init__(self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...]) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        self.cmdr_lock = linux.variable(
            f"{name}_cmdr_lock", 0, 63, what=f"holder of cmdr_lock of {name}", unit="task"
        )
        self.pages = linux.variable(
            f"{name}_pages", 0, queue_depth, what=f"data area of {name}", unit="memory"
        )

    def queue_rq(self, code: Code, kind: str) -> None:
        """scsi_queue_rq() to tcmu_queue_cmd(). A request that has its tag has its place in the ring."""
        with code.call("scsi_queue_rq", "tcm_loop_queuecommand", "target_submit", "tcmu_queue_cmd"):
            self._lock(code)
            with code.call("queue_cmd_ring"):
                with code.choice() as ways:
                    with ways.way(when=self.pages >= self.in_flight):
                        pass
                    with ways.otherwise(), code.call("tcmu_alloc_data_space", "tcmu_get_empty_block"):
                        alloc_pages(
                            code,
                            self.linux,
                            GFP_NOIO,
                            {self.pages: self.pages + 1},
                            label=f"a page of the data area of {self.name}",
                        )
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
