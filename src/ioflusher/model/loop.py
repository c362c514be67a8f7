"""The loop device, a file as a block device: drivers/block/loop.c."""

from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE, PF_MEMALLOC_NOIO, PF_WQ_WORKER
from ioflusher.model.block import SWAP_IN, BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.files import File

# copying a unit into the page cache of the file, and completing the request
WRITE_NS = 100_000


class LoopDriver(BlockDriver):
    """A loop device. One worker writes its requests into the file, one after the other.

    loop_process_work() sets PF_LOCAL_THROTTLE and PF_MEMALLOC_NOIO, the two bits of PR_SET_IO_FLUSHER: the
    kernel does for its own block device in a file what a daemon has to do for its.
    """

    _handled = ""  # the kind of request whose handling is being written

    def queue_rq(self, code: Code, kind: str) -> None:
        """loop_queue_rq(): it never waits."""
        with code.call("loop_queue_rq", "loop_queue_work"):
            code.step(f"to the worker of {self.name}", {self.pending[kind]: self.pending[kind] + 1})

    def add_worker(self, file: File) -> None:
        """loop_workfn(); before 5.14 a kernel thread of the device's own (87579e9b7d8d)."""
        code = Code(flags=PF_WQ_WORKER | PF_LOCAL_THROTTLE | PF_MEMALLOC_NOIO)
        with code.call("loop_workfn", "loop_process_work"), code.loop(), code.loop():
            code.rest()
            with code.choice() as ways:
                for kind in self.pending:
                    with ways.way(
                        f"takes a request of {self.name}",
                        self.taken_up(kind),
                        when=self.can_take(kind),
                        waits_for=f"a request of {self.name}",
                        interruptible=True,
                    ):
                        self._handled = kind
                        with code.call("loop_handle_cmd", "do_req_filebacked", "lo_rw_aio"):
                            if kind == SWAP_IN:
                                file.read(code, self.linux)
                            else:
                                file.write(code, self.linux, {})
                        self.complete(code, kind, {}, takes_ns=WRITE_NS)
        self.linux.add(code, f"kworker/u:{self.name}")

    def fail_handled(self, code: Code) -> None:
        """The request that its worker is at ends with an error: lo_complete_rq()."""
        self.fail(code, self._handled)
