"""Another server of the same store in place of the one that has frozen (NBD_CMD_RECONFIGURE).

A thread that is paused in balance_dirty_pages() ends at once when it is killed (mm/page-writeback.c: it is
TASK_KILLABLE), and with its process the device's connections end; a thread that waits for memory does not.
The order is that of `nbd attach --standby`: first the device is told how long requests wait without a
connection, for without that they fail; then the server is killed, and has ended, so that no two write to the
store, and the kernel's workers that received from it have (`ReceiveWorkers`); then the kernel gets the
connections that lie ready. Requests that were on their way are sent again when their time-out is over: the
device's own, or 30 s after they were sent.
"""

import time
from contextlib import ExitStack

from ioflusher.kernel.nbd_netlink import NbdAttr, NbdGenlCommand, backend_attribute, number_attribute
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.kernel_client.device import backend_identifier, device_index
from ioflusher.nbd.kernel_client.netlink import NbdNetlink
from ioflusher.nbd.kernel_client.receive_workers import ReceiveWorkers
from ioflusher.nbd.kernel_client.reconnect import SpareConnections, shows_taken
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.actions.same_store import FirstServer, find_other, lost_with_server
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze
from ioflusher.rescue.other_server import OtherServer

PATIENCE_S = 120  # for which requests wait without a connection
TIMEOUT_S = 30  # of a request, where the device has none: the block layer's own, and with it the kernel
# shows which connections it took
CONNECT_S = 2.0
OFFER_S = 5.0  # for the kernel to see that the first server's connections have ended
POLL_S = 0.01


class NbdTakeOver(RescueAction):
    """The server is killed, and the device goes on with another one of the same store."""

    name = "nbd-take-over"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        device = freeze.device
        other = find_other(
            freeze,
            DeviceKind.NBD,
            "no other server of the same store is known: one process that has the same file open, alone, "
            "and listens",
        )
        if isinstance(other, str):
            return self.no(other)
        reconnect = "ioflusher nbd reconnect"
        return RescueStep(
            action=self.name,
            loss=Loss.DEVICE,
            loses=lost_with_server(other) + "; its other clients lose their connection",
            reason=f"{other.name} has {other.store} open, too, and listens at {other.uri}: with its server "
            "killed the device waits for another one, and goes on with that; requests that are on their way "
            f"are sent again within {TIMEOUT_S} s",
            commands=(
                # nothing is dead yet: it sets the two times, and says that it connected nothing
                f"{reconnect} --timeout {TIMEOUT_S} --dead-connection-timeout {PATIENCE_S} {device.path} "
                f"'{other.uri}'",
                f"kill -9 {other.instead_of}",
                f"{reconnect} {device.path} '{other.uri}'",
            ),
            wait_s=TIMEOUT_S + 10.0,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        assert freeze.device.other_server is not None
        return _TakeOver(freeze.device.path, freeze.device.other_server)


class _TakeOver(Prepared):
    """Connections to the other server, past the handshake, and the first one's process, held on to."""

    def __init__(self, path: str, other: OtherServer) -> None:
        self._path = path
        self._other = other
        backend = backend_identifier(path)
        index = number_attribute(NbdAttr.INDEX, device_index(path))
        named = index + backend_attribute(backend) if backend else index
        with ExitStack() as stack:
            self._first = FirstServer(other)
            stack.callback(self._first.close)
            self._netlink = NbdNetlink()
            stack.callback(self._netlink.close)
            # with nothing but its number the kernel changes nothing, and refuses a device set up by ioctl
            self._tell(named)
            self._has_timeout = shows_taken(path)
            self._spare = SpareConnections(
                path, parse_uri(other.uri), backend=backend, handshake_timeout=CONNECT_S
            )
            stack.callback(self._spare.close)
            self._workers = ReceiveWorkers(device_index(path))
            stack.callback(self._workers.close)
            self._close = stack.pop_all()
        timeout = b"" if self._has_timeout else number_attribute(NbdAttr.TIMEOUT, TIMEOUT_S)
        self._times = named + timeout + number_attribute(NbdAttr.DEAD_CONN_TIMEOUT, PATIENCE_S)
        self._no_timeout = named + number_attribute(NbdAttr.TIMEOUT, 0)

    def do(self) -> str:
        self._tell(self._times)
        self._first.end()
        deadline = time.monotonic() + OFFER_S
        self._workers.await_end(OFFER_S)
        taken, wanted = 0, len(self._spare.sockets)
        while taken < wanted:
            if time.monotonic() > deadline:
                raise RescueError(
                    f"the kernel took {taken} of {wanted} connections of {self._other.name}; "
                    f"requests wait for {PATIENCE_S} s",
                    hint=f"ioflusher nbd reconnect {self._path} '{self._other.uri}'",
                )
            try:
                taken = self._spare.offer()
            except OSError as error:
                raise RescueError(
                    f"the kernel refuses connections to {self._other.uri}: {error.strerror}",
                    errno=error.errno,
                ) from error
            time.sleep(POLL_S)
        return f"process {self._other.instead_of} is killed, and {self._path} has {self._other.name}"

    def undo(self) -> str:
        if self._has_timeout:
            return ""
        self._tell(self._no_timeout)
        return f"{self._path} has no time-out of requests again"

    def _tell(self, attributes: bytes) -> None:
        try:
            self._netlink.send(self._netlink.prepare(NbdGenlCommand.RECONFIGURE, attributes))
        except OSError as error:
            raise RescueError(
                f"{self._path} cannot have another server: {error.strerror}",
                errno=error.errno,
                hint="a device that was set up by ioctl ends with its connection: attach it over netlink",
            ) from error

    def close(self) -> None:
        self._close.close()
