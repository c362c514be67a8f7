"""The network block device: drivers/block/nbd.c."""

from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.sockets import TCP_BYTES, TCP_REPLY, UNIX_BYTES, UNIX_REPLY
from ioflusher.model.transitions import Changes


class NbdDriver(BlockDriver):
    """An nbd device whose server is a process of this machine, on a Unix socket or over TCP.

    The queue may wait (BLK_MQ_F_BLOCKING), so queue_rq() runs in whoever submits: a task that reclaims
    memory sends the request itself. It holds tx_lock while it waits for room in the socket, which the
    server alone makes.

    Attributes:
        tx_lock: who sends, by number of the task; 0 for nobody (struct nbd_sock).
        room: units that the socket still takes.
        sends: the functions of the socket, down to where a sender waits.
    """

    def __init__(
        self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...], tcp: bool = False
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        room = linux.units(TCP_BYTES if tcp else UNIX_BYTES)
        self.sends = (
            ("tcp_sendmsg", "tcp_sendmsg_locked", "sk_stream_wait_memory")
            if tcp
            else ("unix_stream_sendmsg", "sock_alloc_send_pskb")
        )
        self.reply_calls = TCP_REPLY if tcp else UNIX_REPLY
        self.tx_lock = linux.variable(
            f"{name}_tx_lock", 0, 63, what=f"holder of tx_lock of {name}", unit="task"
        )
        self.room = linux.variable(f"{name}_room", room, room, what=f"room in the socket of {name}")

    def queue_rq(self, code: Code, kind: str) -> None:
        """nbd_queue_rq() to sock_xmit()."""
        me = self.linux.next_pid()
        with code.call("nbd_queue_rq", "nbd_handle_cmd"):
            with code.call("mutex_lock"):
                code.step(
                    f"tx_lock of {self.name}",
                    {self.tx_lock: me},
                    when=self.tx_lock.is_(0),
                    waits_for=f"tx_lock of {self.name}",
                )
            with code.call("nbd_send_cmd", "sock_xmit", "sock_sendmsg", *self.sends):
                code.step(
                    f"sends to the server of {self.name}",
                    {self.room: self.room - 1, self.pending[kind]: self.pending[kind] + 1, self.tx_lock: 0},
                    when=self.room > 0,
                    waits_for=f"room in the socket of {self.name}",
                    interruptible=True,
                )

    def taken_up(self, kind: str) -> Changes:
        """The server reads the request from the socket."""
        return {**super().taken_up(kind), self.room: self.room + 1}
