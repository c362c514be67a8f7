"""A file system mounted from an NFS server in user space on the same machine: no block device at all.

The server is the scenario's own command, which shows {directory} as /export at TCP {port}, in NFS version 4.
Pages that the client writes count as under writeback until the server has them, and the server's own writes
are stopped until there are fewer of those. PF_LESS_THROTTLE, the half of the state that ends that, was made
for the kernel's own NFS server.
"""

from ioflusher.lab.guest.counters import DeviceCounters, NfsCounters
from ioflusher.lab.guest.network import listens
from ioflusher.lab.guest.processes import Process, await_true, family
from ioflusher.lab.stacks.base import STORE, Stack, filled_in

PORT = 2049
DIRECTORY = STORE / "export"


class NfsStack(Stack):
    """A mount over the loopback network; the server's files lie on an ordinary file system."""

    device = "127.0.0.1:/export"
    _server: Process

    def start(self) -> None:
        self.mount_store()
        self.processes.step("mkdir", "-p", str(DIRECTORY))
        places = {"{directory}": str(DIRECTORY), "{port}": str(PORT)}
        argv = filled_in(self.scenario.daemon.command, places)
        self._server = self.processes.start(argv, io_flusher=self.order.io_flusher)
        self.set_up(self._server, places)
        await_true(lambda: listens(PORT), f"nobody listened at port {PORT}", self._server)

    def use(self, use: str) -> None:
        self.directory.mkdir(exist_ok=True)
        options = f"hard,vers=4.1,port={PORT}"
        self.processes.step("mount", "-t", "nfs4", "-o", options, self.device, str(self.directory))

    def counters(self) -> DeviceCounters:
        return NfsCounters(str(self.directory))

    def daemons(self) -> tuple[int, ...]:
        return family(self._server)
