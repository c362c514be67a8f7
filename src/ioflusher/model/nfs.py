"""A file system mounted over NFS from a server on the same machine: fs/nfs/write.c, net/sunrpc/."""

from ioflusher.kernel.task_flags import PF_WQ_WORKER
from ioflusher.model.block import BioPool, BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.iscsi import SEND_NS
from ioflusher.model.linux import Linux
from ioflusher.model.sockets import TCP_BYTES, TCP_REPLY
from ioflusher.model.transitions import Changes


class NfsMount(BlockDriver):
    """The mount as a backing device: no block device, requests are RPC calls.

    The flusher makes calls and waits for nothing (rpc_run_task()); a worker sends them as the socket takes
    them. A page is under writeback until the server has answered.

    Attributes:
        room: units that the socket still takes.
    """

    reply_calls: tuple[str, ...] = TCP_REPLY

    def __init__(self, linux: Linux, name: str) -> None:
        super().__init__(linux, name, queue_depth=linux.zone.free.high, kinds=("write",))
        room = linux.units(TCP_BYTES)
        self.queued = linux.variable(
            f"{name}_writes_queued", 0, self.queue_depth, what=f"calls of {name} that are not sent"
        )
        self.room = linux.variable(f"{name}_room", room, room, what=f"room in the socket of {name}")

    def begin_write(self, code: Code, pool: BioPool) -> None:
        """A call has no bio."""

    def submit(self, code: Code, kind: str) -> None:
        """nfs_writepages() to rpc_run_task()."""
        with code.call("nfs_writepages", "nfs_pageio_doio", "nfs_initiate_pgio", "rpc_run_task"):
            self.queue_rq(code, kind)

    def queue_rq(self, code: Code, kind: str) -> None:
        """xprt_request_enqueue_transmit()."""
        code.step(f"a call of {self.name}", {self.queued: self.queued + 1, self.tags: self.tags - 1})

    def add_worker(self) -> None:
        """xprt_transmit() (`xprtiod`)."""
        code = Code(flags=PF_WQ_WORKER)
        calls = ("rpc_async_schedule", "xprt_transmit", "xs_tcp_send_request", "sock_sendmsg", "tcp_sendmsg")
        pending = self.pending["write"]
        with code.call(*calls), code.loop():
            code.rest()
            code.step(
                f"sends to the server of {self.name}",
                {self.queued: self.queued - 1, self.room: self.room - 1, pending: pending + 1},
                when=(self.queued > 0) & (self.room > 0),
                waits_for=f"a call of {self.name} and room in its socket",
                interruptible=True,
                takes_ns=SEND_NS,
            )
        self.linux.add(code, "kworker/u:xprtiod")

    def taken_up(self, kind: str) -> Changes:
        """The server reads the call from the socket."""
        return {**super().taken_up(kind), self.room: self.room + 1}
