"""The user-space block device over io_uring: drivers/block/ublk_drv.c."""

from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code


class UblkDriver(BlockDriver):
    """A ublk device with one queue.

    A request becomes work of the server's own thread (io_uring_cmd_complete_in_task()), which copies its data
    into the server's memory when it next enters the kernel: who submits waits for nothing but a tag, and a
    thread of the server that waits elsewhere takes none.
    """

    def queue_rq(self, code: Code, kind: str) -> None:
        """ublk_queue_rq(): it never waits."""
        with code.call("ublk_queue_rq", "ublk_queue_cmd"):
            code.step(f"to the server of {self.name}", {self.pending[kind]: self.pending[kind] + 1})
