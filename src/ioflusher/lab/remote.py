"""The server outside the guest, and the faults that happen there.

The guest says when a fault begins and ends; whoever reads its reports passes them on to `RemoteStore.heed`.
Which protocol it speaks is said by the stack's row (`ioflusher.scenario.stacks.StackRow.remote`).
"""

import contextlib
import errno
from collections.abc import Iterator
from typing import Protocol

from ioflusher.lab.gate import Gate
from ioflusher.lab.messages import FaultBegan, FaultEnded, GuestReport
from ioflusher.lab.remote_iscsi import TARGET, iscsi_remote
from ioflusher.nbd.backends import Backend, MemoryBackend
from ioflusher.nbd.server import Server
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.stacks import STACKS

HOST_IN_GUEST = "10.0.2.2"  # QEMU's user network: this machine's loopback


class RemoteServer(Protocol):
    """A server outside that can fail."""

    def delay(self, seconds: float | None) -> None:
        """Requests take so much longer from now on; None: until told otherwise."""
        ...

    def cut(self, *, refusing: bool) -> None:
        """Cut the connections, and take none until `take_again` where it is refusing."""
        ...

    def take_again(self) -> None:
        """Take new connections."""
        ...


class DelayedBackend(Backend):
    """Another back end, whose requests can be made to wait at its gate."""

    can_write = can_flush = can_zero = True

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.gate = Gate()

    def delay(self, seconds: float | None) -> None:
        """Each request waits so long from now on, those that wait already too; None: until told otherwise."""
        self.gate.delay(seconds)

    def _wait(self) -> None:
        if not self.gate.passed():
            raise OSError(errno.EIO, "the server closes")

    @property
    def size(self) -> int:
        return self._backend.size

    def read_into(self, offset: int, view: memoryview) -> None:
        self._wait()
        self._backend.read_into(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        self._wait()
        self._backend.write(offset, view)

    def flush(self) -> None:
        self._wait()
        self._backend.flush()

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self._wait()
        self._backend.zero(offset, length, may_trim=may_trim)

    def interrupt(self) -> None:
        self.gate.shut()


class NbdRemote:
    """A server of ours with a back end in memory."""

    def __init__(self, backend: DelayedBackend, server: Server) -> None:
        self._backend = backend
        self._server = server

    def delay(self, seconds: float | None) -> None:
        self._backend.delay(seconds)

    def cut(self, *, refusing: bool) -> None:
        self._server.refusing = refusing
        self._server.hang_up()

    def take_again(self) -> None:
        self._server.refusing = False


class RemoteStore:
    """The server outside, or that there is none.

    Attributes:
        uri: where the guest reaches it; empty where the scenario needs none.
    """

    def __init__(self, scenario: Scenario, server: RemoteServer | None = None, uri: str = "") -> None:
        self._faults = scenario.fault
        self._server = server
        self.uri = uri

    def heed(self, report: GuestReport) -> None:
        """Begin or end what the guest says it is time for, where that is ours to do."""
        if not isinstance(report, FaultBegan | FaultEnded) or not self._server:
            return
        if report.fault >= len(self._faults):
            return  # no guest of ours says that
        fault = self._faults[report.fault]
        begins = isinstance(report, FaultBegan)
        match fault.kind:
            case "remote-slow":
                self._server.delay(fault.delay_ms / 1000 if begins else 0.0)
            case "remote-silent":
                self._server.delay(None if begins else 0.0)
            case "remote-cut":
                if begins:
                    self._server.cut(refusing=fault.for_s > 0)
                else:
                    self._server.take_again()


@contextlib.contextmanager
def remote_store(scenario: Scenario) -> Iterator[RemoteStore]:
    """The server outside the machine, of the device's size, where the scenario needs one.

    Raises:
        LabError: it does not serve.
    """
    size = scenario.device.size
    if scenario.daemon.store != "remote":
        yield RemoteStore(scenario)
        return
    if STACKS[scenario.device.kind].remote == "iscsi":
        with iscsi_remote(size) as target:
            yield RemoteStore(scenario, target, f"iscsi://{HOST_IN_GUEST}:{target.port}/{TARGET}")
        return
    with MemoryBackend(size) as memory:
        backend = DelayedBackend(memory)
        with Server(backend) as server:
            address = server.listen_tcp()
            server.start()
            yield RemoteStore(scenario, NbdRemote(backend, server), f"nbd://{HOST_IN_GUEST}:{address.port}")
