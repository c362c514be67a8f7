"""A second server that stands by: the kernel takes over to it when the first one stops answering.

Which connection has died is the kernel's to say, and what it knows is more than anybody else could: a request
that ran into the device's time-out, a socket that failed, a server that closed. Whoever stands by sleeps in
poll(2) until then; nothing is asked of the device or its server meanwhile.

A connection's end shows at our reference to its socket, after a detach as well. What tells the two apart is
NBD_CMD_LINK_DEAD, which the driver sends for connections that end without one (nbd_mark_nsock_dead). It
allocates that message in a worker that may wait for memory, perhaps for this very device: so requests that
stay in flight count as well; a detach leaves none (nbd_clear_que).

Then, in this order: the first server's process is killed and has ended (`Fence`), our references to its
sockets are shut down, the kernel's workers that received from it have ended (`ReceiveWorkers`), and the
connections that lay ready are offered until the kernel has taken them all.
What had been sent and not answered it sends again, each request when its time-out is over.
"""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from enum import Enum

from ioflusher.kernel.block_counts import parse_inflight
from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernel_client.connections import close
from ioflusher.nbd.kernel_client.device import AttachError, device_index, sysfs
from ioflusher.nbd.kernel_client.fence import Fence
from ioflusher.nbd.kernel_client.netlink import NbdNetlink
from ioflusher.nbd.kernel_client.receive_workers import ReceiveWorkers
from ioflusher.nbd.kernel_client.reconnect import SpareConnections

LEFT_IN_FLIGHT = 1.0  # seconds for which requests are in flight on dead connections before that counts
NEAR = 0.1  # seconds between two looks while all connections are dead and it is not known why
RECONNECT = 5.0  # seconds between two tries to reach a standby that is gone
HURRY = 0.2  # the same while nobody else serves the device
OFFER = 0.01  # seconds until a connection that the kernel has not yet given up is offered for again
FENCING = 1.0  # seconds after which it is said that a process does not end
RECEIVING = 5.0  # seconds that the kernel's workers get to see the end of the first server's connections

Say = Callable[..., None]


class StandbyEnd(Enum):
    """Why nobody stands by any more."""

    TAKEN_OVER = "the standby serves the device"
    DETACHED = "the device was detached"
    STOPPED = "asked to end"


class OwnDevice:
    """A device that this process attached over netlink, as sysfs shows it; the files stay open.

    Raises:
        AttachError: it is not attached.
    """

    def __init__(self, device: str) -> None:
        self._files: list[int] = []
        try:
            for name in ("pid", "inflight"):
                self._files.append(os.open(sysfs(device) / name, os.O_RDONLY | os.O_CLOEXEC))
            self._pid = os.pread(self._files[0], 32, 0)
        except OSError as error:
            self.close()
            raise AttachError(f"{device!r} is not attached", errno=errno.ENOTCONN) from error

    def is_ours(self) -> bool:
        """Whether it is still attached, and not by somebody else since."""
        try:
            return os.pread(self._files[0], 32, 0) == self._pid
        except OSError:  # ENODEV: the file is another one's, or nobody's
            return False

    def in_flight(self) -> int:
        """Requests that were sent and not answered."""
        try:
            return parse_inflight(os.pread(self._files[1], 64, 0))
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())


class Standby:
    """Whoever stands by for one device.

    Args:
        device: /dev/nbdN, attached over netlink by this process with a time-out of requests.
        sockets: the connections that the kernel uses; they are closed at the end.
        standby: the address of the second server.
        connect: makes the connections to it.
        fence: what must not live when the standby takes over.
        say: is told what happens, with facts.

    Raises:
        AttachError, NbdError: the standby cannot be reached, or cannot take the first server's place.
    """

    def __init__(
        self,
        device: str,
        sockets: Sequence[socket.socket],
        standby: Address,
        connect: Callable[[Address], SpareConnections],
        fence: Fence,
        say: Say,
    ) -> None:
        self._index = device_index(device)
        self._standby = standby
        self._connect = connect
        self._fence = fence
        self._say = say
        self._sockets = list(sockets)
        self._living = {sock.fileno() for sock in sockets}
        self._told_dead = 0
        self._hung_up_at: float | None = None
        self._try_at = 0.0
        self._stopped = False
        self._poll = select.poll()
        self._spare: SpareConnections | None = None
        self._wake = -1
        with contextlib.ExitStack() as stack:
            self._device = OwnDevice(device)
            stack.callback(self._device.close)
            self._workers = ReceiveWorkers(self._index)
            stack.callback(self._workers.close)
            self._notices = NbdNetlink()
            stack.callback(self._notices.close)
            self._notices.hear()
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._wake)
            self._take_spare(connect(standby))
            for sock in sockets:
                # not that something can be read: answers are the kernel's
                self._poll.register(sock, select.POLLRDHUP)
            self._poll.register(self._notices, select.POLLIN)
            self._poll.register(self._wake, select.POLLIN)
            self._close = stack.pop_all()

    def watch(self) -> StandbyEnd:
        """Stand by until the standby has taken over, the device is detached, or `stop`."""
        while not self._stopped:
            self._look(self._patience())
            if self._hung_up_at is not None:
                if not self._device.is_ours():
                    return StandbyEnd.DETACHED
                if self._first_is_dead():
                    return self._take_over()
            self._renew_spare()
        return StandbyEnd.STOPPED

    def stop(self) -> None:
        """Have `watch` return; signal handlers may call it. A take-over that has begun is finished."""
        self._stopped = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close everything; the device goes on with the server that it has."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        close(self._sockets)
        self._close.close()

    def __enter__(self) -> "Standby":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _patience(self) -> float | None:
        """Seconds until the next look if nothing happens; None: for ever."""
        if self._hung_up_at is not None:
            return NEAR
        return None if self._spare is not None else max(0.0, self._try_at - time.monotonic())

    def _look(self, seconds: float | None) -> None:
        """Wait for something to happen, and note it."""
        spares = {sock.fileno() for sock in self._spare.sockets} if self._spare is not None else set()
        for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000):
            if fd in self._living:
                self._poll.unregister(fd)
                self._living.remove(fd)
                if not self._living:
                    self._hung_up_at = time.monotonic()
            elif fd in spares:
                self._drop_spare()
                self._say("the standby hung up", standby=self._standby.uri)
                spares = set()
            elif fd == self._notices.fileno():
                self._told_dead += self._notices.deaths().count(self._index)
            elif fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)

    def _first_is_dead(self) -> bool:
        """Whether every connection has ended, and not by a detach."""
        if self._hung_up_at is None:
            return False
        if self._told_dead >= len(self._sockets):
            return True
        since = time.monotonic() - self._hung_up_at
        return since >= LEFT_IN_FLIGHT and self._device.in_flight() > 0

    def _take_over(self) -> StandbyEnd:
        began = time.monotonic()
        living = self._fence.kill(FENCING)
        while living:
            self._say("the first server does not end", processes=",".join(map(str, living)))
            living = self._fence.kill(FENCING)
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # the kernel was quicker
                sock.shutdown(socket.SHUT_RDWR)
        if running := self._workers.await_end(RECEIVING):
            self._say("the kernel's workers do not end", workers=running)
        while self._device.is_ours():
            self._look(0.0)  # the standby may have hung up
            self._renew_spare()
            if self._spare is None:
                time.sleep(HURRY)
            elif self._offer(self._spare):
                self._say("taken over", server=self._standby.uri, seconds=round(time.monotonic() - began, 3))
                return StandbyEnd.TAKEN_OVER
            else:
                time.sleep(OFFER)
        return StandbyEnd.DETACHED

    def _offer(self, spare: SpareConnections) -> bool:
        """Whether the kernel has taken all."""
        try:
            return spare.offer() == len(spare.sockets)
        except OSError as error:
            self._say("the kernel refuses the standby", error=error.strerror)
            return False

    def _take_spare(self, spare: SpareConnections) -> None:
        self._spare = spare
        for sock in spare.sockets:
            self._poll.register(sock, select.POLLRDHUP)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            for sock in self._spare.sockets:
                self._poll.unregister(sock)
            self._spare.close()
            self._spare = None
            self._try_at = time.monotonic()

    def _renew_spare(self) -> None:
        """Reach a standby that is gone again, now and then."""
        now = time.monotonic()
        if self._spare is not None or now < self._try_at:
            return
        self._try_at = now + (RECONNECT if self._living else HURRY)
        try:
            self._take_spare(self._connect(self._standby))
        except (NbdError, OSError) as error:
            if self._living:
                self._say("the standby cannot be reached", error=str(error))
        else:
            self._say("the standby is there again", standby=self._standby.uri)
