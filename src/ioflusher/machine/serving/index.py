"""A snapshot's facts indexed for the inference of who serves what."""

from collections import defaultdict
from collections.abc import Iterable
from ipaddress import ip_address

from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.peers import local_hosts, split_address
from ioflusher.machine.process import DeviceHandle, Process
from ioflusher.machine.snapshot import Snapshot

# Where every daemon may have a stream open that carries no I/O of a device: logging, the message bus.
_BYSTANDERS = ("/run/systemd/", "/dev/log", "/run/dbus/", "/var/run/dbus/")


def is_bystander(connection: Connection) -> bool:
    """Whether the connection leads to a logger or the message bus."""
    return any(end.address.startswith(_BYSTANDERS) for end in connection.ends)


def other_end(connection: Connection, end: SocketEnd) -> SocketEnd:
    """The end of the connection that is not this one."""
    first, second = connection.ends
    return second if end is first else first


class SnapshotIndex:
    """Indexes over one snapshot.

    Attributes:
        snapshot: it.
        certain: whether "nobody holds it" means that, and not "this collector might not look".
        held: pids by the path of a special device that they hold, "/dev/uio0".
        handles: special devices with who holds them, in order of pids.
        kernel_ends: connections of which the kernel alone holds one end and a process the other; first the
            kernel's end.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.certain = snapshot.system.privileged
        self.processes = {process.pid: process for process in snapshot.processes}
        self._by_tid = {thread.tid: p.pid for p in snapshot.processes for thread in p.threads}
        self.handles: list[tuple[Process, DeviceHandle]] = [
            (process, handle) for process in snapshot.processes for handle in process.handles
        ]
        held: defaultdict[str, list[int]] = defaultdict(list)
        for process, handle in self.handles:
            if process.pid not in held[handle.path]:
                held[handle.path].append(process.pid)
        self.held = dict(held)
        self._connections: defaultdict[int, list[tuple[SocketEnd, SocketEnd]]] = defaultdict(list)
        self.kernel_ends: list[tuple[SocketEnd, SocketEnd]] = []
        self._at: defaultdict[str, list[tuple[SocketEnd, SocketEnd]]] = defaultdict(list)
        for connection in snapshot.connections:
            self._index(connection)
        self._remote_pids = {pid for remote in snapshot.remotes for pid in remote.end.pids}
        self._local_hosts = frozenset(
            (*snapshot.hosts, *local_hosts(snapshot.connections, snapshot.remotes, snapshot.listeners))
        )
        self._listening: defaultdict[str, list[Listener]] = defaultdict(list)
        for listener in snapshot.listeners:
            if listener.family is Family.TCP:
                self._listening[split_address(listener.end.address)[1]].append(listener)

    def _index(self, connection: Connection) -> None:
        for end in connection.ends:
            pair = (end, other_end(connection, end))
            self._at[end.address].append(pair)
            if is_bystander(connection):
                continue
            for pid in end.pids:
                self._connections[pid].append(pair)
            if not end.pids and pair[1].pids:
                self.kernel_ends.append(pair)

    def name(self, pid: int) -> str:
        """The process as a sentence names it."""
        process = self.processes.get(pid)
        return f"{pid} ({process.comm})" if process is not None else str(pid)

    def process_of(self, tid: int | None) -> Process | None:
        """The process of a thread, None where it is gone."""
        pid = self._by_tid.get(tid) if tid is not None else None
        return self.processes.get(pid) if pid is not None else None

    def connections_of(self, pid: int) -> list[tuple[SocketEnd, SocketEnd]]:
        """The process's own end and the other end of each of its connections, without bystanders."""
        return self._connections.get(pid, [])

    def connections_at(self, address: str) -> list[tuple[SocketEnd, SocketEnd]]:
        """Connections with an end of this address: that end and the other one."""
        return self._at.get(address, [])

    def talks_abroad(self, pid: int) -> bool:
        """Whether the process has a TCP connection with another machine."""
        return pid in self._remote_pids

    def is_local(self, host: str) -> bool:
        """Whether the address is one of this machine, as far as is known."""
        if host in self._local_hosts or host == "localhost":
            return True
        try:
            return ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def listeners_at(self, host: str, port: str) -> list[Listener]:
        """Listening TCP sockets that a client of the address reaches, the most specific ones first."""
        listeners = self._listening.get(port, [])
        exact = [found for found in listeners if split_address(found.end.address)[0] == host]
        wild = [found for found in listeners if split_address(found.end.address)[0] in ("0.0.0.0", "::")]
        return exact or wild


def distinct(pids: Iterable[int]) -> tuple[int, ...]:
    """Each number once, lowest first."""
    return tuple(sorted(set(pids)))
