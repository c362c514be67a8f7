"""Which processes a process may have to wait for, by their sockets; and which sockets to keep."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ioflusher.machine.endpoints import Connection, Family, Listener, Remote, SocketEnd
from ioflusher.machine.snapshot import Snapshot


def servers(connection: Connection, listening: frozenset[tuple[Family, str]]) -> tuple[SocketEnd, ...]:
    """The ends of a connection that the other end may have to wait for.

    A client waits for its server: the end whose address somebody listens at, or the one that is bound to a
    name while the other is not. Where neither end is the server (a socket pair), each waits for the other.
    """
    first, second = connection.ends
    for is_server in (
        lambda end: is_listened_at(connection.family, end.address, listening),
        lambda end: connection.family is Family.UNIX and end.address != "",
    ):
        chosen = [end for end in (first, second) if is_server(end)]
        if len(chosen) == 1:
            return tuple(chosen)
    return (first, second)


def listening_addresses(listeners: Iterable[Listener]) -> frozenset[tuple[Family, str]]:
    """Where somebody waits for clients."""
    return frozenset((listener.family, listener.end.address) for listener in listeners)


def is_listened_at(family: Family, address: str, listening: frozenset[tuple[Family, str]]) -> bool:
    """Whether a socket with this address was made by a listener of `listening`."""
    return not listening.isdisjoint(_listeners_of(family, address))


def _listeners_of(family: Family, address: str) -> tuple[tuple[Family, str], ...]:
    """The addresses at which a listener's accepted sockets may have this one."""
    if family is Family.UNIX:
        return ((family, address),) if address else ()
    port = address.rpartition(":")[2]
    # one that takes clients at every address; an IPv6 one may take IPv4 clients too
    return (family, address), (family, f"0.0.0.0:{port}"), (family, f"[::]:{port}")


def awaited(connections: Iterable[Connection], listeners: Iterable[Listener]) -> Mapping[int, frozenset[int]]:
    """For each process the processes at the other ends of its connections that it may have to wait for."""
    listening = listening_addresses(listeners)
    found: defaultdict[int, set[int]] = defaultdict(set)
    for connection in connections:
        for server in servers(connection, listening):
            first, second = connection.ends
            client = second if server is first else first
            for pid in client.pids:
                found[pid].update(server.pids)
    return {pid: frozenset(peers - {pid}) for pid, peers in found.items()}


def reachable(start: Iterable[int], edges: Mapping[int, frozenset[int]]) -> frozenset[int]:
    """The start and all that can be reached from it."""
    reached = set(start)
    left = list(reached)
    while left:
        new = edges.get(left.pop(), frozenset()) - reached
        reached |= new
        left += new
    return frozenset(reached)


def kept_sockets(snapshot: Snapshot, pids: frozenset[int]) -> Snapshot:
    """The snapshot with those connections and listeners alone of which an end matters, in the same order."""
    return replace(
        snapshot,
        connections=tuple(c for c in snapshot.connections if any(_matters(end, pids) for end in c.ends)),
        remotes=tuple(found for found in snapshot.remotes if _matters(found.end, pids)),
        listeners=tuple(found for found in snapshot.listeners if _matters(found.end, pids)),
    )


def _matters(end: SocketEnd, pids: frozenset[int]) -> bool:
    """Whether the kernel alone holds the end, or a process of `pids` does."""
    return not end.pids or not pids.isdisjoint(end.pids)


def local_hosts(
    connections: Iterable[Connection], remotes: Iterable[Remote], listeners: Iterable[Listener]
) -> tuple[str, ...]:
    """Addresses of this machine, as far as its TCP sockets have them, without those that mean "any"."""
    tcp = (found for found in connections if found.family is Family.TCP)
    ends = [end for connection in tcp for end in connection.ends]
    ends += [remote.end for remote in remotes]
    ends += [listener.end for listener in listeners if listener.family is Family.TCP]
    return tuple(sorted({split_address(end.address)[0] for end in ends} - {"0.0.0.0", "::", ""}))


def split_address(address: str) -> tuple[str, str]:
    """Host and port of "host:port" or "[host]:port"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def join_address(host: str, port: str) -> str:
    """The opposite of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
