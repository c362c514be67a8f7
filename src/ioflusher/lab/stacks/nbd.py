"""A network block device: /dev/nbd0, the kernel's client, and a server on a Unix socket of the same machine.

Without `daemon.command` the server is ours, which sets the state itself: the commands of the two halves
differ in one word. Another server's command is the same in both: the state is set, or not, before it is
executed.
"""

import sys
from pathlib import Path

from ioflusher.lab.guest.processes import Process, SetupFailed, await_ready_line, await_true, family
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.stacks.base import Stack, filled_in, own_hardening
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernelclient import Attachment, attach

DEVICE = "/dev/nbd0"
SOCKET = "/run/lab/nbd.sock"


def places(order: PlayHalf, image: str) -> dict[str, str]:
    """What another server is told, by placeholder; `image` is the file behind the device, if it has one."""
    return {"{socket}": SOCKET, "{file}": image, "{remote}": order.remote}


def daemon_argv(order: PlayHalf, image: str) -> list[str]:
    """The server's command."""
    daemon = order.scenario.daemon
    if daemon.command:
        return filled_in(daemon.command, places(order, image))
    argv = [sys.executable, "-m", "ioflusher", "nbd", "serve", "--unix", SOCKET, "--max-payload", "1M"]
    argv += ["--remote", order.remote] if daemon.store == "remote" else ["--file", image]
    return argv + own_hardening(order)


class NbdStack(Stack):
    """nbd0 served over a Unix socket."""

    device = DEVICE
    _server: Process
    # the agent holds the device, by a thread that sleeps in the kernel: one program less that has to start
    _attachment: Attachment

    def start(self) -> None:
        image = str(self.make_store()) if self.scenario.daemon.store != "remote" else ""
        argv = daemon_argv(self.order, image)
        if self.scenario.daemon.command:
            self._server = self.processes.start(argv, io_flusher=self.order.io_flusher)
            self.set_up(self._server, places(self.order, image))
            await_true(lambda: Path(SOCKET).is_socket(), f"it had no socket {SOCKET}", self._server)
            uri = f"nbd+unix:///?socket={SOCKET}"
        else:
            self._server = self.processes.start(argv, stdout=True)
            uri = await_ready_line(self._server, "listening on ")
        try:
            self._attachment = attach(DEVICE, parse_uri(uri))
        except NbdError as error:
            raise SetupFailed(f"{DEVICE} was not attached: {error}{self._server.printed()}") from error

    def daemons(self) -> tuple[int, ...]:
        return family(self._server)
