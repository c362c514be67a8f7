"""Which processes and machines a process waits for over its sockets."""

from collections import defaultdict
from collections.abc import Callable

from ioflusher.machine.endpoints import Connection, Family, Remote, SocketEnd
from ioflusher.machine.graph.draft import Draft
from ioflusher.machine.graph.nodes import Need, Node, NodeKind, Reason
from ioflusher.machine.peers import is_listened_at, listening_addresses, servers, split_address
from ioflusher.machine.serving.index import is_bystander, other_end
from ioflusher.machine.snapshot import Snapshot

# Where more processes than this hold the other end, one node stands for the socket that they share.
_FEW = 8


class Peers:
    """The connections of a snapshot, by the process that waits for the other end."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._listening = listening_addresses(snapshot.listeners)
        self._certain = snapshot.system.privileged
        # with each connection: the end that serves, and whether that is certain
        self._awaited: defaultdict[int, list[tuple[Connection, SocketEnd, bool]]] = defaultdict(list)
        for connection in snapshot.connections:
            serving = servers(connection, self._listening)
            for server in serving:
                for pid in other_end(connection, server).pids:
                    self._awaited[pid].append((connection, server, len(serving) == 1))
        self._remotes: defaultdict[int, list[Remote]] = defaultdict(list)
        for remote in snapshot.remotes:
            # whoever came to a listener of ours waits for us, not we for them
            if not is_listened_at(Family.TCP, remote.end.address, self._listening):
                for pid in remote.end.pids:
                    self._remotes[pid].append(remote)

    def add(self, draft: Draft, pid: int, process: Callable[[int], str]) -> list[int]:
        """Adds what the process waits for over sockets; returns the processes among that."""
        found: list[int] = []
        for connection, server, certain in self._awaited.get(pid, ()):
            if pid in server.pids:
                continue
            if not server.pids:
                if certain:
                    self._add_unseen_holder(draft, process(pid), connection, server)
                continue
            bystander = is_bystander(connection)
            reason = Reason.LOGGER if bystander else Reason.PEER
            need = Need.START if bystander else Need.WORK
            evidence = _evidence(connection, server)
            source = process(pid)
            if len(server.pids) > _FEW:
                name = f"{len(server.pids)} processes"
                detail = f"hold socket {server.inode} {server.address}".rstrip()
                shared = f"socket:{server.inode}"
                if shared not in draft:
                    draft.add(Node(shared, NodeKind.SOCKET, name, detail))
                    for peer in server.pids:
                        draft.edge(shared, process(peer), reason, evidence, need, certain=False)
                    found += server.pids
                draft.edge(source, shared, reason, evidence, need, certain)
                continue
            for peer in server.pids:
                draft.edge(source, process(peer), reason, evidence, need, certain)
            found += server.pids
        for remote in self._remotes.get(pid, ()):
            _add_remote(draft, process(pid), remote)
        return found

    def _add_unseen_holder(
        self, draft: Draft, source: str, connection: Connection, server: SocketEnd
    ) -> None:
        """A server's end that no process is seen to hold: the kernel does, or who does could not be read."""
        if is_bystander(connection):
            return
        where = server.address or f"socket {server.inode}"
        if self._certain and connection.family is Family.TCP:
            target = draft.add(
                Node(
                    f"kernel:{where}",
                    NodeKind.KERNEL_SERVER,
                    f"the kernel at {where}",
                    "holds the socket alone",
                )
            )
        else:
            target = draft.unknown(f"holder:{where}", f"who serves {where}", "holder of the socket not seen")
        draft.edge(source, target, Reason.PEER, _evidence(connection, server), certain=self._certain)


def _add_remote(draft: Draft, source: str, remote: Remote) -> None:
    host, port = split_address(remote.peer)
    target = draft.add(
        Node(f"remote:{remote.peer}", NodeKind.REMOTE, host or remote.peer, f"TCP port {port}")
    )
    evidence = f"socket {remote.end.inode} ({remote.end.address}) is connected to {remote.peer}"
    draft.edge(source, target, Reason.REMOTE, evidence)


def _evidence(connection: Connection, server: SocketEnd) -> str:
    client = other_end(connection, server)
    kind = "Unix" if connection.family is Family.UNIX else "TCP"
    at = f" at {server.address}" if server.address else ""
    return f"{kind} socket {client.inode} is connected to socket {server.inode}{at}"
