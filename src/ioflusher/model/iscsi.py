"""An iSCSI disk over TCP: drivers/scsi/libiscsi.c, drivers/scsi/iscsi_tcp.c."""

from ioflusher.kernel.task_flags import PF_MEMALLOC, PF_WQ_WORKER
from ioflusher.model.block import BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.faults import Outside
from ioflusher.model.linux import Linux
from ioflusher.model.sockets import TCP_BYTES, TCP_REPLY
from ioflusher.model.transitions import Changes, all_of

# ISCSI_DEF_CMD_PER_LUN, drivers/scsi/libiscsi.c
CMD_PER_LUN = 32
SEND_NS = 50_000


class IscsiDriver(BlockDriver):
    """A disk of an iSCSI session, whose target is a process of this machine or outside.

    iscsi_queuecommand() leaves the command to a worker and never waits; the worker sends, with PF_MEMALLOC
    and pages of the request itself, so that it needs no memory, and does not wait for room in the socket but
    is queued again when there is some (iscsi_sw_tcp_write_space()). While the session has no connection
    nothing is sent, and iscsid makes another.

    Attributes:
        queued: commands that the worker has not sent, by kind.
        room: units that the socket still takes.
        connected: whether the session is logged in. reachable: whether the target can be reached.
    """

    reply_calls: tuple[str, ...] = TCP_REPLY

    def __init__(self, linux: Linux, name: str, *, queue_depth: int, kinds: tuple[str, ...]) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds)
        room = linux.units(TCP_BYTES)
        self.queued = {
            kind: linux.variable(
                f"{name}_{kind}s_queued",
                0,
                queue_depth,
                what=f"commands of {name} that are not sent ({kind})",
            )
            for kind in kinds
        }
        self.room = linux.variable(f"{name}_room", room, room, what=f"room in the socket of {name}")
        self.connected = linux.variable(f"{name}_connected", 1, 1, what=f"{name} has a connection")
        self.reachable = linux.variable(f"{name}_reachable", 1, 1, what=f"the target of {name} is reachable")

    def queue_rq(self, code: Code, kind: str) -> None:
        """scsi_queue_rq() to iscsi_queuecommand()."""
        with code.call("scsi_queue_rq", "iscsi_queuecommand", "iscsi_conn_queue_xmit"):
            code.step(f"to the worker of {self.name}", {self.queued[kind]: self.queued[kind] + 1})

    def add_worker(self) -> None:
        """iscsi_xmitworker() (`iscsi_q_0`)."""
        code = Code(flags=PF_WQ_WORKER | PF_MEMALLOC)
        calls = ("iscsi_data_xmit", "iscsi_xmit_task", "iscsi_sw_tcp_pdu_xmit", "sock_sendmsg", "tcp_sendmsg")
        with code.call("iscsi_xmitworker", *calls), code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, queued in self.queued.items():
                    with ways.way(
                        f"sends to the target of {self.name}",
                        {
                            queued: queued - 1,
                            self.room: self.room - 1,
                            self.pending[kind]: self.pending[kind] + 1,
                        },
                        when=(queued > 0) & (self.room > 0) & (self.connected > 0),
                        waits_for=f"a command of {self.name}, room in its socket and a connection",
                        interruptible=True,
                        takes_ns=SEND_NS,
                    ):
                        pass
        self.linux.add(code, "kworker/u:iscsi_q_0")

    def add_target_outside(self, request_ns: int, outside: Outside) -> None:
        """A target on another machine; what it has not answered is sent again over the next connection."""
        code = Code()
        with code.loop():
            code.rest()
            with code.choice() as ways:
                for kind, pending in self.pending.items():
                    with ways.way(
                        when=all_of((pending > 0) & (self.connected > 0), outside.answers),
                        waits_for=f"a command of {self.name} over a connection",
                        interruptible=True,
                        takes_ns=outside.takes_ns(request_ns),
                    ):
                        code.step(
                            "the target outside answers",
                            {**self.taken_up(kind), **self.completed(kind)},
                            completes=self.name,
                        )
        self.linux.add(code, "target", hardware=True)

    def taken_up(self, kind: str) -> Changes:
        """The target reads the command from the socket."""
        return {**super().taken_up(kind), self.room: self.room + 1}
