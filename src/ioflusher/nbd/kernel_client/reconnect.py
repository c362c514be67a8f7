"""Another server for a device that lives: NBD_CMD_RECONFIGURE, which gives the kernel sockets for dead ones.

What the kernel does (drivers/block/nbd.c, nbd_genl_reconfigure, nbd_reconnect_socket, nbd_xmit_timeout):

- It puts the sockets, in their order, in the places of dead connections, and passes over those that are too
  many without a word. A connection is dead once its socket is shut down, at either end, or a request on it
  ran into the device's time-out.
- Requests that come while every connection is dead wait for so long as the dead-connection time-out says.
- Requests that were on their way on a dead connection are sent again once their own time-out is over; without
  one, at the next of the block layer's looks, every 30 s.
- Whether it took a socket it does not say. It does set the socket's time-out for sending to the device's own
  (sk_sndtimeo), if there is one, which getsockopt(2) shows to us, who have the same socket.
"""

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass

from ioflusher.kernel.nbd_netlink import (
    NbdAttr,
    NbdGenlCommand,
    backend_attribute,
    number_attribute,
    sockets_attribute,
)
from ioflusher.nbd.address import Address
from ioflusher.nbd.client import HANDSHAKE_TIMEOUT
from ioflusher.nbd.kernel_client.connections import check_replaces, close, connect_sockets
from ioflusher.nbd.kernel_client.device import (
    AttachError,
    backend_identifier,
    check_running,
    device_index,
    sysfs,
)
from ioflusher.nbd.kernel_client.netlink import NbdNetlink
from ioflusher.nbd.kernel_client.receive_workers import UNSEEN, ReceiveWorkers

_TIMEVAL_BYTES = struct.calcsize("@ll")  # struct timeval of SO_SNDTIMEO
_BLOCK_LAYERS_TIMEOUT = 30_000  # ms


class SpareConnections:
    """Connections to another server, past the handshake, with all that it takes to give them to the kernel.

    Everything is made here; `offer` sends bytes that lie ready.

    Args:
        device: /dev/nbdN, attached over netlink.
        address: the other server; its export must be able to take the place of the device's.
        connections: how many; None: as many as the device has queues.
        timeout, dead_connection_timeout: seconds, the device's own from then on; None: as they are.
        backend: the device's back-end identifier, where it has one.
        handshake_timeout: seconds for connecting.

    Raises:
        AttachError: the device is not attached, or the export cannot take the place of its.
        NbdError: the server cannot be reached, or refuses.

    Attributes:
        address: the server.
        sockets: the connections.
    """

    def __init__(
        self,
        device: str,
        address: Address,
        *,
        connections: int | None = None,
        timeout: int | None = None,
        dead_connection_timeout: int | None = None,
        backend: str | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        index = device_index(device)
        check_running(device)
        self.address = address
        self._device = device
        wanted = queues(device) if connections is None else connections
        export, self.sockets = connect_sockets(address, wanted, timeout=handshake_timeout)
        try:
            check_replaces(export, device)
            self._netlink = NbdNetlink()
        except BaseException:
            close(self.sockets)
            raise
        body = number_attribute(NbdAttr.INDEX, index)
        if timeout is not None:
            body += number_attribute(NbdAttr.TIMEOUT, timeout)
        if dead_connection_timeout is not None:
            body += number_attribute(NbdAttr.DEAD_CONN_TIMEOUT, dead_connection_timeout)
        if backend is not None:
            body += backend_attribute(backend)
        # What is left to offer once the first so many were taken.
        self._messages = [
            self._netlink.prepare(
                NbdGenlCommand.RECONFIGURE,
                body + sockets_attribute([sock.fileno() for sock in self.sockets[taken:]]),
            )
            for taken in range(len(self.sockets))
        ]

    def offer(self) -> int:
        """Offer the kernel what it has not taken; how many it has by now, see `taken`.

        Raises:
            OSError: it refuses: EINVAL for a device that was set up by ioctl, is down, or has another
                back-end identifier.
        """
        taken = self.taken()
        if taken < len(self.sockets):
            self._netlink.send(self._messages[taken])
            taken = self.taken()
        return taken

    def taken(self) -> int:
        """How many of the sockets the kernel has; 0 where the device has no request time-out."""
        for number, sock in enumerate(self.sockets):
            if not send_timeout(sock):
                return number
        return len(self.sockets)

    def leave_sockets(self) -> None:
        """Close all but the connections."""
        self._netlink.close()

    def close(self) -> None:
        """Close our ends; what the kernel took lives on."""
        close(self.sockets)
        self._netlink.close()

    def __enter__(self) -> "SpareConnections":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Reconnection:
    """What came of offering connections to the kernel.

    Attributes:
        offered: how many.
        taken: how many took the place of dead ones; None where the kernel does not show it.
        sockets: the connections, which are the caller's to close; what the kernel took lives on.
    """

    offered: int
    taken: int | None
    sockets: list[socket.socket]


def reconnect(
    device: str,
    address: Address,
    *,
    connections: int | None = None,
    timeout: int | None = None,
    dead_connection_timeout: int | None = None,
    backend: str | None = None,
) -> Reconnection:
    """Give the kernel connections to a server in place of those that are dead.

    Arguments and errors are those of `SpareConnections`; AttachError, too, where the kernel refuses.
    """
    spare = SpareConnections(
        device,
        address,
        connections=connections,
        timeout=timeout,
        dead_connection_timeout=dead_connection_timeout,
        backend=backend,
    )
    with contextlib.closing(ReceiveWorkers(device_index(device))) as workers:
        workers.await_end(UNSEEN)  # those of connections that live go on
    try:
        shown: int | None = spare.offer()
    except OSError as error:
        spare.close()
        raise _refused(device, error) from error
    spare.leave_sockets()
    if not shown and not shows_taken(device, timeout):
        shown = None
    return Reconnection(len(spare.sockets), shown, spare.sockets)


def queues(device: str) -> int:
    """How many queues the device has: one a connection, but no more than there are processors.

    block/blk-mq.c, blk_mq_update_nr_hw_queues. A connection without a queue only stands in for a dead one.
    """
    return sum(1 for _ in (sysfs(device) / "mq").iterdir())


def send_timeout(sock: socket.socket) -> bool:
    """Whether the socket has a time-out for sending, as the kernel's client gives to those that it takes."""
    return any(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL_BYTES))


def shows_taken(device: str, timeout: int | None = None) -> bool:
    """Whether the device has a request time-out, or gets this one, and so shows what it took.

    Without one the block layer's own is 30 s (nbd_set_cmd_timeout), which could be either.
    """
    if timeout is not None:
        return timeout > 0
    try:
        return int((sysfs(device) / "queue" / "io_timeout").read_text()) != _BLOCK_LAYERS_TIMEOUT
    except OSError:  # before 5.0
        return False


def _refused(device: str, error: OSError) -> AttachError:
    hint = None
    if error.errno == errno.EINVAL:
        known = backend_identifier(device)
        hint = (
            f"it has the back-end identifier {known!r}, which must be given, too"
            if known
            else "a device that was set up by ioctl ends with its connection: attach it over netlink"
        )
    return AttachError(
        f"cannot reconnect {device!r}: {os.strerror(error.errno or 0)}", errno=error.errno, hint=hint
    )
