"""The network block device: drivers/block/nbd.c."""

from ioflusher.kernel.task_flags import PF_WQ_WORKER
from ioflusher.model.block import SWAP_IN, BlockDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.sockets import TCP_BYTES, TCP_REPLY, UNIX_BYTES, UNIX_REPLY
from ioflusher.model.transitions import Changes, Expression, Number, Variable, together, total
from ioflusher.model.versions import holds

# between two tries to make another connection
RETRY_NS = 200_000_000
# a reply without data
REFUSAL_NS = 200_000


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
        with code.call("nbd_queue_rq", "nbd_handle_cmd"):
            self.take_tx_lock(code)
            with code.call("nbd_send_cmd", "sock_xmit", "sock_sendmsg", *self.sends):
                code.step(
                    f"sends to the server of {self.name}",
                    self.sent(kind),
                    when=self.room > 0,
                    waits_for=f"room in the socket of {self.name}",
                    interruptible=True,
                )

    def take_tx_lock(self, code: Code) -> None:
        """mutex_lock(&nsock->tx_lock)."""
        with code.call("mutex_lock"):
            code.step(
                f"tx_lock of {self.name}",
                {self.tx_lock: self.linux.next_pid()},
                when=self.tx_lock.is_(0),
                waits_for=f"tx_lock of {self.name}",
            )

    def sent(self, kind: str) -> Changes:
        """A request is in the socket, and tx_lock free."""
        return {self.room: self.room - 1, self.pending[kind]: self.pending[kind] + 1, self.tx_lock: 0}

    def taken_up(self, kind: str) -> Changes:
        """The server reads the request from the socket."""
        return {**super().taken_up(kind), self.room: self.room + 1}


class EndingNbdDriver(NbdDriver):
    """One that was set up by ioctl, without a time-out, and whose only connection may end: with its server.

    recv_work() sees the end and marks the socket dead (nbd_mark_nsock_dead()); there is no other one
    (find_fallback()), so that what is submitted later ends with an error. What was sent whole is never
    answered: its timer only starts again (nbd_xmit_timeout() without a time-out). What was being sent ends
    with an error: a request of a file system, which since 6.11 is larger than a Unix socket holds.

    Where the server itself stays in NBD_DO_IT (`attaches`), SIGKILL interrupts that, and since 5.19 all that
    is in flight ends with an error as well (nbd_clear_que()).

    Attributes:
        dead: whether the socket is (struct nbd_sock).
        attaches: whether the server has attached the device.
        whole: whether a request of a kind lies whole in the socket.
    """

    can_fail = True

    def __init__(
        self,
        linux: Linux,
        name: str,
        *,
        queue_depth: int,
        kinds: tuple[str, ...],
        tcp: bool = False,
        attaches: bool = False,
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds, tcp=tcp)
        self.attaches = attaches
        small = tcp or not holds("nbd_large_requests", linux.version)
        self.whole = {kind: small or kind in ("swap", SWAP_IN) for kind in kinds}
        self.dead = linux.variable(f"{name}_dead", 0, 1, what=f"the socket of {name} is dead")
        self.fails = self.dead > 0

    @property
    def ended(self) -> Changes:
        """The connection ends."""
        return {self.dead: 1}

    def refuse(self, code: Code, kind: str, also: Changes) -> None:
        """The server replies with an error: nbd_handle_reply()."""
        self.fail(code, kind, also, takes_ns=REFUSAL_NS)

    def queue_rq(self, code: Code, kind: str) -> None:
        """The same, where the socket may be dead, or die while somebody waits for room in it."""
        calls = ("nbd_send_cmd", "sock_xmit", "sock_sendmsg", *self.sends)
        with code.call("nbd_queue_rq", "nbd_handle_cmd"):
            self.take_tx_lock(code)
            with code.choice() as ways:
                with (
                    code.call(*calls),
                    ways.way(
                        f"sends to the server of {self.name}",
                        self.sent(kind),
                        when=(self.room > 0) & self.dead.is_(0),
                        waits_for=f"room in the socket of {self.name}",
                        interruptible=True,
                    ),
                ):
                    pass
                with ways.way(when=self.dead > 0):
                    self.fail(code, kind, {self.tx_lock: 0})

    @property
    def clears(self) -> bool:
        """Whether nbd_clear_que() ends what was in flight."""
        return self.attaches and holds("nbd_clears_when_killed", self.linux.version)

    def abandoned(self, kind: str, *, received: bool) -> Changes:
        """Nobody answers it; it ends where it was being sent, and where nbd_clear_que() finds it."""
        if self.clears or not (received or self.whole[kind]):
            return {self.pending[kind]: self.pending[kind] + 1}
        return {}

    def add_workers(self) -> None:
        """What ends requests that are on their way: their senders, and nbd_clear_que() in NBD_DO_IT."""
        ended = [kind for kind in self.pending if self.clears or not self.whole[kind]]
        if not ended:
            return
        code = Code()
        with code.loop():
            code.rest()
            with code.choice() as ways:
                for kind in ended:
                    pending = self.pending[kind]
                    with ways.way(
                        when=(self.dead > 0) & (pending > 0),
                        waits_for="the end of the connection",
                        interruptible=True,
                    ):
                        self.fail(code, kind, {pending: pending - 1})
        self.linux.add(code, "nbd-do-it" if self.clears else "kworker/0:1H-kblockd")


class ReconnectedNbdDriver(NbdDriver):
    """One that was set up over netlink, with a time-out of requests and a long one of dead connections.

    A request without an answer for so long makes the socket a dead one, if it is not, and is put back into
    the queue (nbd_xmit_timeout(), nbd_requeue_cmd()). Who is to send one on a dead socket waits for another
    (wait_for_reconnect()), in state D and without tx_lock, until somebody gives the driver one
    (NBD_CMD_RECONFIGURE, nbd_reconnect_socket()).

    A thread of the daemon that has a request of an old connection does that first, then takes those of the
    new one; its reply is lost.

    Attributes:
        timeout_ns: of requests, and of sending (sk_sndtimeo).
        dead: whether the socket is (struct nbd_sock).
        served: requests that the server has taken, by kind. stale: those of them from an old connection.
        unanswered: requests that were on their way when their connection ended. requeued: those that timed
        out.
        wanted: whether another connection is to be made. asked: whether the server is to take it.
        accepted: whether it has.
    """

    def __init__(
        self,
        linux: Linux,
        name: str,
        *,
        queue_depth: int,
        kinds: tuple[str, ...],
        timeout_ns: int,
        tcp: bool = False,
    ) -> None:
        super().__init__(linux, name, queue_depth=queue_depth, kinds=kinds, tcp=tcp)
        self.timeout_ns = timeout_ns

        def counted(which: str, what: str) -> dict[str, Variable]:
            return {
                kind: linux.variable(f"{name}_{kind}s_{which}", 0, queue_depth, what=f"{what} ({kind})")
                for kind in kinds
            }

        self.dead = linux.variable(f"{name}_dead", 0, 1, what=f"the socket of {name} is dead")
        self.served = counted("served", f"requests of {name} that its server has taken")
        self.stale = counted("stale", f"requests of {name} taken from an old connection")
        self.unanswered = counted("unanswered", f"requests of {name} whose connection ended")
        self.requeued = counted("requeued", f"requests of {name} to be sent again")
        self.wanted = linux.variable(f"{name}_wanted", 0, 1, what=f"{name} is to have another connection")
        self.asked = linux.variable(f"{name}_asked", 0, 1, what=f"a connection for {name} to be taken")
        self.accepted = linux.variable(f"{name}_accepted", 0, 1, what=f"a connection for {name}, taken")

    @property
    def ended(self) -> Changes:
        """The connection ends: nbd_mark_nsock_dead(). Nothing that is on its way will be answered."""
        changes: dict[Variable, Number] = {self.dead: 1, self.room: self.room.high}
        for kind, pending in self.pending.items():
            changes[pending] = 0
            changes[self.stale[kind]] = self.served[kind]
            changes[self.unanswered[kind]] = self.unanswered[kind] + self._on_the_way(kind)
        return changes

    @property
    def cut(self) -> tuple[Changes, Changes]:
        """Both ends of the connection are shut; in the end another one is made."""
        return {**self.ended, self.wanted: 0}, {self.wanted: 1}

    def queue_rq(self, code: Code, kind: str) -> None:
        """nbd_handle_cmd(): from the top again where the socket was dead."""
        again: Changes = {self.requeued[kind]: self.requeued[kind] + 1, self.tx_lock: 0}
        with code.call("nbd_queue_rq", "nbd_handle_cmd"), code.loop():
            self.take_tx_lock(code)
            with code.choice() as ways:
                with (
                    ways.way("finds the socket dead", {self.tx_lock: 0}, when=self.dead > 0),
                    code.call("wait_for_reconnect"),
                ):
                    code.wait(self.dead.is_(0), f"another connection of {self.name}")
                with (
                    ways.otherwise(),
                    code.call("nbd_send_cmd", "sock_xmit", "sock_sendmsg", *self.sends),
                    code.choice() as sending,
                ):
                    with sending.way(
                        f"sends to the server of {self.name}",
                        self.sent(kind),
                        when=(self.room > 0) & self.dead.is_(0),
                        waits_for=f"room in the socket of {self.name}",
                        interruptible=True,
                    ):
                        code.leave()
                    with sending.way("is to be sent again", again, when=self.dead > 0):
                        code.leave()
                    with sending.way(
                        "could not send for so long",
                        {**self.ended, **again},
                        when=self.room.is_(0) & self.dead.is_(0),
                        after_ns=self.timeout_ns,
                    ):
                        code.leave()

    def taken_up(self, kind: str) -> Changes:
        """The server reads the request from the socket."""
        return {**super().taken_up(kind), self.served[kind]: self.served[kind] + 1}

    def complete(self, code: Code, kind: str, also: Changes, *, takes_ns: int) -> None:
        """The reply; over an old connection it comes to nobody."""
        served, stale = self.served[kind], self.stale[kind]
        done = {served: served - 1}
        with code.choice() as ways:
            with ways.way(when=stale > 0):
                lost = together({**done, stale: stale - 1}, also)
                code.step(f"its reply to {self.name} is lost", lost, takes_ns=takes_ns)
            with ways.otherwise():
                super().complete(code, kind, together(done, also), takes_ns=takes_ns)

    def add_workers(self) -> None:
        """blk_mq_timeout_work() and what blk_mq_requeue_work() starts, in kblockd."""
        in_time = total(self._on_the_way(kind) for kind in self.pending)
        requeued = {self.requeued[kind]: self._to_be_sent(kind) for kind in self.pending}
        late: Changes = {**self.ended, **dict.fromkeys(self.unanswered.values(), 0), **requeued}
        self._add_timer("kworker/0:1H-kblockd", in_time, "answers", late)
        # those of an old connection say nothing of the new one: its cookie is another
        old = {self.requeued[kind]: self.requeued[kind] + old for kind, old in self.unanswered.items()}
        gone = total(self.unanswered.values())
        self._add_timer(
            "kworker/0:2H-kblockd", gone, "time", {**dict.fromkeys(self.unanswered.values(), 0), **old}
        )
        again = f"requests of {self.name} to be sent again"
        self.add_dispatcher(self.requeued, again, "kworker/1:1H-kblockd")

    def _on_the_way(self, kind: str) -> Expression:
        """Requests that were sent over the connection that there is, and are not answered."""
        return self.pending[kind] + self.served[kind] - self.stale[kind]

    def _to_be_sent(self, kind: str) -> Expression:
        """What there is to be sent again when the connection is given up."""
        return self.requeued[kind] + self.unanswered[kind] + self._on_the_way(kind)

    def _add_timer(self, name: str, requests: Expression, awaited: str, late: Changes) -> None:
        """What happens to requests whose time is up: nbd_xmit_timeout()."""
        code = Code(flags=PF_WQ_WORKER)
        with code.call("blk_mq_timeout_work"), code.loop():
            code.rest()
            code.wait(requests > 0, f"requests of {self.name}", interruptible=True)
            with code.choice() as ways:
                what = f"{awaited} for requests of {self.name}"
                with ways.way(when=requests.is_(0), waits_for=what, interruptible=True):
                    pass
                with (
                    ways.way(f"requests of {self.name} have timed out", after_ns=self.timeout_ns),
                    code.call("blk_mq_handle_expired", "nbd_xmit_timeout"),
                ):
                    self.take_tx_lock(code)
                    code.step("puts them back into the queue", {**late, self.tx_lock: 0})
        self.linux.add(code, name)

    def add_client(self) -> None:
        """Who gives the driver another connection, once the server has taken one: a real-time task.

        Where the connection was cut again meanwhile the new one is shut as well.
        """
        code = Code()
        with code.loop():
            code.rest()
            code.wait(self.wanted > 0, "the end of the fault", interruptible=True)
            code.step("connects to the server", {self.asked: 1}, takes_ns=RETRY_NS)
            with code.call("unix_stream_connect"):
                code.step(
                    "is connected",
                    {self.accepted: 0},
                    when=self.accepted > 0,
                    waits_for="the server to take a connection",
                    interruptible=True,
                )
            with code.call("nbd_genl_reconfigure", "nbd_reconnect_socket"):
                alive: Changes = {self.dead: 0, self.wanted: 0}
                with code.choice() as ways:
                    with ways.way(f"gives {self.name} the connection", alive, when=self.wanted > 0):
                        pass
                    with ways.otherwise():
                        pass
        self.linux.add(code, "reconnect")
