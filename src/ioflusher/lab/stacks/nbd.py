"""A network block device: /dev/nbd0, the kernel's client, and a server of the same machine.

Without `daemon.command` the server is ours, which sets the state itself: the commands of the two halves
differ in one word. Another server's command is the same in both: the state is set, or not, before it is
executed. The server listens on a Unix socket or on TCP; some attach the device themselves.

The device is set up by ioctl; over netlink where its connection is to be cut.
"""

from collections.abc import Mapping
from pathlib import Path

from ioflusher.lab.guest.network import listens, listens_at
from ioflusher.lab.guest.processes import Process, SetupFailed, await_ready_line, await_true, family
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.stacks.base import Fault, Stack, filled_in, own_daemon
from ioflusher.lab.stacks.nbd_cut import CuttableConnection
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernel_client.attachment import Attachment, attach

DEVICE = "/dev/nbd0"
SOCKET = "/run/lab/nbd.sock"
PORT = 10809  # IANA's for nbd


class NbdStack(Stack):
    """nbd0 served over a Unix socket."""

    device = DEVICE
    uri = f"nbd+unix:///?socket={SOCKET}"
    listen = ("--unix", SOCKET)  # our own server's option
    _server: Process
    # the agent holds the device, by a thread that sleeps in the kernel: one program less that has to start
    _attachment: Attachment
    _cuttable: CuttableConnection

    def start(self) -> None:
        daemon = self.scenario.daemon
        image = str(self.make_store()) if daemon.store != "remote" else ""
        if daemon.command:
            places = self.places(image)
            argv = filled_in(daemon.command, places)
            self._server = self.processes.start(argv, io_flusher=self.order.io_flusher)
            self.set_up(self._server, places)
            await_true(self.listens, f"nobody listened at {self.uri}", self._server)
            uri = self.uri
        else:
            self._server = self.processes.start(own_server(self.order, image, self.listen), stdout=True)
            uri = await_ready_line(self._server, "listening on ")
        try:
            self._attach(uri)
        except NbdError as error:
            raise SetupFailed(f"{DEVICE} was not attached: {error}; {self._server.told()}") from error

    def _attach(self, uri: str) -> None:
        if all(fault.kind != "connection-cut" for fault in self.scenario.fault):
            self._attachment = attach(DEVICE, parse_uri(uri))
            return
        self._cuttable = CuttableConnection(DEVICE, parse_uri(uri))

    def faults(self) -> Mapping[str, Fault]:
        return {
            **super().faults(),
            "connection-cut": Fault(lambda: self._cuttable.cut(), lambda: self._cuttable.restore()),
        }

    def places(self, image: str) -> dict[str, str]:
        """What another server is told, by placeholder; `image` is the file behind the device, if any."""
        return {"{socket}": SOCKET, "{file}": image, "{remote}": self.order.remote}

    def listens(self) -> bool:
        """Whether somebody waits for clients; without a connection, of which some servers take one alone."""
        return listens_at(SOCKET)

    def daemons(self) -> tuple[int, ...]:
        return family(self._server)


class NbdTcpStack(NbdStack):
    """nbd0 served over TCP on the loopback."""

    uri = f"nbd://127.0.0.1:{PORT}"
    listen = ("--tcp", f"127.0.0.1:{PORT}")

    def places(self, image: str) -> dict[str, str]:
        return {**super().places(image), "{port}": str(PORT)}

    def listens(self) -> bool:
        return listens(PORT)


class NbdDeviceStack(Stack):
    """nbd0, attached by the daemon itself."""

    device = DEVICE
    _daemon: Process

    def start(self) -> None:
        places = {"{device}": DEVICE, "{file}": str(self.make_store())}
        argv = filled_in(self.scenario.daemon.command, places)
        self._daemon = self.processes.start(argv, io_flusher=self.order.io_flusher)
        self.set_up(self._daemon, places)
        size = Path("/sys/block/nbd0/size")
        await_true(lambda: int(size.read_text()) > 0, f"{DEVICE} was not attached", self._daemon)

    def daemons(self) -> tuple[int, ...]:
        return family(self._daemon)


def own_server(order: PlayHalf, image: str, listen: tuple[str, ...]) -> list[str]:
    """The command of our own server."""
    store = ["--remote", order.remote] if order.scenario.daemon.store == "remote" else ["--store", image]
    return own_daemon(order, "nbd", *listen, *store)
