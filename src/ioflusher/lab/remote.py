"""The server outside the guest, and the faults that happen there.

The guest says when a fault begins and ends; whoever reads its reports passes them on to `RemoteStore.heed`.
"""

import contextlib
import errno
import threading
from collections.abc import Iterator

from ioflusher.lab.messages import FaultBegan, FaultEnded, GuestReport
from ioflusher.lab.scenario import Scenario
from ioflusher.nbd.backends import Backend, MemoryBackend
from ioflusher.nbd.server import Server

HOST_IN_GUEST = "10.0.2.2"  # QEMU's user network: this machine's loopback


class DelayedBackend(Backend):
    """Another back end, whose requests can be made to wait.

    Attributes:
        delay_s: seconds that each request takes longer, None for as long as it stays None.
    """

    can_write = can_flush = can_zero = True

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._changed = threading.Condition()
        self._delay_s: float | None = 0.0
        self._interrupted = False

    def delay(self, seconds: float | None) -> None:
        """Each request waits so long from now on, those that wait already too; None: until told otherwise."""
        with self._changed:
            self._delay_s = seconds
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            while (delay_s := self._delay_s) != 0.0 and not self._interrupted:
                # a delay that was changed meanwhile begins anew
                if not self._changed.wait(delay_s):
                    return
            if self._interrupted:
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
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()


class RemoteStore:
    """The server outside, or that there is none.

    Attributes:
        uri: where the guest reaches it; empty where the scenario needs none.
    """

    def __init__(self, scenario: Scenario, backend: DelayedBackend | None, server: Server | None) -> None:
        self._faults = scenario.fault
        self._backend = backend
        self._server = server
        self.uri = ""

    def heed(self, report: GuestReport) -> None:
        """Begin or end what the guest says it is time for, where that is ours to do."""
        if not isinstance(report, FaultBegan | FaultEnded) or not self._backend or not self._server:
            return
        if report.fault >= len(self._faults):
            return  # no guest of ours says that
        fault = self._faults[report.fault]
        begins = isinstance(report, FaultBegan)
        match fault.kind:
            case "remote-slow":
                self._backend.delay(fault.delay_ms / 1000 if begins else 0.0)
            case "remote-silent":
                self._backend.delay(None if begins else 0.0)
            case "remote-cut":
                self._server.refusing = begins and fault.for_s > 0
                if begins:
                    self._server.hang_up()


@contextlib.contextmanager
def remote_store(scenario: Scenario) -> Iterator[RemoteStore]:
    """The server outside the machine, of the device's size, where the scenario needs one."""
    if scenario.daemon.store != "remote":
        yield RemoteStore(scenario, None, None)
        return
    with MemoryBackend(scenario.device.size) as memory:
        backend = DelayedBackend(memory)
        with Server(backend) as server:
            store = RemoteStore(scenario, backend, server)
            address = server.listen_tcp()
            server.start()
            store.uri = f"nbd://{HOST_IN_GUEST}:{address.port}"
            yield store
