"""Another server of the same store on this machine: of an nbd device one that listens, of a ublk device one
that stands by with the driver's control device open. Pure.

Two servers have one store where both have the same file open for writing, in the same way, and no other: of
a server with several files nothing here tells which one an export is. Whether it still is so when it matters
is looked at again (`rescue.actions.same_store`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.kernel.ublk import CONTROL_DEVICE
from ioflusher.machine.endpoints import Family, Listener
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.peers import split_address
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import StorageRole, StorageService
from ioflusher.machine.storage import DeviceKind
from ioflusher.nbd.address import Address

_STORES = frozenset({FileKind.WRITTEN, FileKind.DEVICE})
_ROLES = {DeviceKind.NBD: StorageRole.NBD_SERVER, DeviceKind.UBLK: StorageRole.UBLK_SERVER}


@dataclass(frozen=True, slots=True)
class OtherServer:
    """A process that could serve a device in place of the one that does.

    Attributes:
        pid, comm: its number and name.
        uri: where it listens; "" for a ublk server, which does not.
        instead_of: the process that serves the device.
        store: the file that both have.
    """

    pid: int
    comm: str
    uri: str
    instead_of: int
    store: str

    @property
    def name(self) -> str:
        """As "nbdkit (812)"."""
        return f"{self.comm} ({self.pid})"


def other_server(
    analysis: Analysis, kind: DeviceKind, services: Iterable[StorageService]
) -> OtherServer | None:
    """Another server for the device that these services make, if it has one server, which serves no other."""
    role = _ROLES.get(kind)
    serving = {s.pid: s for s in services if s.role is role and s.pid is not None}
    processes = {process.pid: process for process in analysis.snapshot.processes if process.living}
    if len(serving) != 1 or not next(iter(serving.values())).certain:
        return None
    ((pid, service),) = serving.items()
    others = [s for s in analysis.services if s.pid == pid and s.target != service.target]
    store = _store(processes.get(pid))
    if others or store is None:
        return None
    for process in processes.values():
        uri = _stands_by(process) if kind is DeviceKind.UBLK else _listens(analysis, process)
        if process.pid != pid and uri is not None and _store(process) == store:
            return OtherServer(process.pid, process.comm, uri, pid, store[0])
    return None


def _store(process: Process | None) -> tuple[str, str, bool] | None:
    """The one file that it writes: name, file system, whether past the page cache."""
    found = {_identity(file) for file in (process.files if process else None) or () if file.kind in _STORES}
    return found.pop() if len(found) == 1 else None


def _identity(file: FileUse) -> tuple[str, str, bool]:
    return file.path, file.device, file.direct


def _stands_by(process: Process) -> str | None:
    """Whether it has ublk's control device and serves none yet: "" then."""
    paths = {handle.path for handle in process.handles}
    stands_by = CONTROL_DEVICE in paths and not any(path.startswith("/dev/ublkc") for path in paths)
    return "" if stands_by else None


def _listens(analysis: Analysis, process: Process) -> str | None:
    return next((uri for at in analysis.snapshot.listeners if (uri := _uri(at, process.pid))), None)


def _uri(listener: Listener, pid: int) -> str | None:
    """Where this process listens, for this machine."""
    address = listener.end.address
    if pid not in listener.end.pids or not address or address.startswith("@"):
        return None
    if listener.family is Family.UNIX:
        return Address(path=address).uri
    host, port = split_address(address)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Address(host=here, port=int(port)).uri
