"""The sockets of the machine: who is connected with whom, and which ends the kernel alone holds."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ioflusher.kernel.sockets import (
    NETLINK_ISCSI,
    NETLINK_SCSITRANSPORT,
    TCP_LISTEN,
    TCP_TIME_WAIT,
    NetlinkSocket,
    TcpSocket,
    UnixSocket,
    parse_netlink,
    parse_tcp,
    parse_unix,
)
from ioflusher.machine.collect.deadline import Result
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.proc_files import prefix, read_text
from ioflusher.machine.collect.sock_diag import tcp_received, unix_sockets
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.endpoints import Connection, Family, Listener, NetlinkUser, Remote, SocketEnd
from ioflusher.support.text import text_of

Holders = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Sockets:
    """The sockets of one network namespace."""

    unix: tuple[UnixSocket, ...] = ()
    tcp: tuple[TcpSocket, ...] = ()
    netlink: tuple[NetlinkSocket, ...] = ()

    def without_new(self, before: frozenset[int], holders: Holders) -> "Sockets":
        """Without sockets that nobody was seen to hold and that were not there before processes were read.

        They were opened meanwhile: not the kernel holds them, but somebody who had none then.
        """

        def known(inode: int) -> bool:
            return inode in before or inode in holders

        return Sockets(
            tuple(found for found in self.unix if known(found.inode)),
            tuple(found for found in self.tcp if known(found.inode)),
            self.netlink,
        )


@dataclass(slots=True)
class Talk:
    """Who talks with whom; grows namespace by namespace."""

    connections: list[Connection] = field(default_factory=list)
    remotes: list[Remote] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    netlink: list[NetlinkUser] = field(default_factory=list)


class SocketReader:
    """Reads the sockets below `root`: this machine's own by sock_diag, others from the kernel's texts."""

    def __init__(self, root: Path, notes: Notes, limits: SnapshotLimits) -> None:
        self._proc = f"{prefix(root)}/proc"
        self._live = root == Path("/")
        self._notes = notes
        self._limits = limits

    def inodes(self) -> frozenset[int] | None:
        """The numbers of the Unix and TCP sockets now; None on a recorded root, where nothing moves."""
        if not self._live:
            return None
        net = f"{self._proc}/net"
        unix, tcp = self._unix_text(net), self._tcp_text(net)
        return frozenset([found.inode for found in unix] + [found.inode for found in tcp])

    def read(self) -> Sockets:
        """Those of the namespace that /proc/net shows."""
        net = f"{self._proc}/net"
        unix = self._with_peers() if self._live else None
        if unix is None:
            unix = self._unix_text(net)
            if unix:
                self._notes("peers of Unix sockets", "only sock_diag of the running machine has them")
        return Sockets(unix, self._tcp_text(net), self._netlink_text(net))

    def read_other(self, pid: int) -> Sockets:
        """Those of another namespace, of which `pid` is a process; without the peers of Unix sockets."""
        net = f"{self._proc}/{pid}/net"
        return Sockets(self._unix_text(net), self._tcp_text(net), self._netlink_text(net))

    def add_received(self, talk: Talk) -> None:
        """Add to the TCP ends that the kernel alone holds how many bytes they have received."""
        if not self._live:
            return
        try:
            received = tcp_received(self._limits.answer_seconds)
        except OSError as error:
            self._notes("bytes received by TCP sockets", error.strerror or str(error))
            return
        except ValueError as error:
            self._notes("bytes received by TCP sockets", str(error))
            return

        def counted(end: SocketEnd) -> SocketEnd:
            return end if end.pids else replace(end, received=received.get(end.inode))

        talk.connections = [
            Connection(found.family, (counted(found.ends[0]), counted(found.ends[1])))
            if found.family is Family.TCP
            else found
            for found in talk.connections
        ]
        talk.remotes = [replace(found, end=counted(found.end)) for found in talk.remotes]

    def own_namespace(self) -> int | None:
        """The inode number of the network namespace that /proc/net shows; None for unknown.

        A recorded tree was made by somebody in the first process's, as far as one can know.
        """
        for who in ("self", "1"):
            try:
                link = os.readlink(f"{self._proc}/{who}/ns/net")
            except OSError:
                continue
            number = link.partition("[")[2].rstrip("]")
            return int(number) if number.isdecimal() else None
        return None

    def _with_peers(self) -> tuple[UnixSocket, ...] | None:
        """The Unix sockets by sock_diag; None where it cannot say."""
        try:
            return unix_sockets(self._limits.answer_seconds)
        except OSError as error:
            self._notes("Unix sockets by sock_diag", error.strerror or str(error))
        except ValueError as error:
            self._notes("Unix sockets by sock_diag", str(error))
        return None

    def _unix_text(self, net: str) -> tuple[UnixSocket, ...]:
        return self._parsed(f"{net}/unix", parse_unix)

    def _tcp_text(self, net: str) -> tuple[TcpSocket, ...]:
        # a machine without IPv6 has no tcp6
        absent_is_fine = not os.path.lexists(f"{net}/tcp6")
        tcp6 = () if absent_is_fine else self._parsed(f"{net}/tcp6", parse_tcp)
        return self._parsed(f"{net}/tcp", parse_tcp) + tcp6

    def _netlink_text(self, net: str) -> tuple[NetlinkSocket, ...]:
        return self._parsed(f"{net}/netlink", parse_netlink)

    def _parsed(self, path: str, parse: Callable[[bytes], tuple[Result, ...]]) -> tuple[Result, ...]:
        try:
            return parse(read_text(path, self._limits.text_bytes))
        except OSError as error:
            self._notes(path, error.strerror or str(error))
        except ValueError as error:
            self._notes(path, str(error))
        return ()


def assemble(sockets: Sockets, holders: Holders, talk: Talk) -> None:
    """Add to `talk` what the sockets of one namespace say; `holders` has the processes of an inode."""
    _assemble_unix(sockets.unix, holders, talk)
    _assemble_tcp(sockets.tcp, holders, talk)
    protocols = (NETLINK_ISCSI, NETLINK_SCSITRANSPORT)
    for found in sockets.netlink:
        if found.protocol in protocols:
            talk.netlink += [NetlinkUser(pid, found.protocol) for pid in holders.get(found.inode, ())]


def _assemble_unix(sockets: tuple[UnixSocket, ...], holders: Holders, talk: Talk) -> None:
    by_inode = {found.inode: found for found in sockets}

    def end(inode: int) -> SocketEnd:
        found = by_inode.get(inode)
        return SocketEnd(inode, text_of(found.name) if found else "", holders.get(inode, ()))

    for found in sockets:
        if found.listening:
            talk.listeners.append(Listener(Family.UNIX, end(found.inode)))
        elif found.peer is not None:
            peer = by_inode.get(found.peer)
            mutual = peer is not None and peer.peer == found.inode
            # of a pair once; a datagram socket's peer need not answer, and is named from one side alone
            if not mutual or found.inode < found.peer:
                talk.connections.append(Connection(Family.UNIX, (end(found.inode), end(found.peer))))


def _assemble_tcp(sockets: tuple[TcpSocket, ...], holders: Holders, talk: Talk) -> None:
    def end(found: TcpSocket) -> SocketEnd:
        return SocketEnd(found.inode, found.local, holders.get(found.inode, ()))

    # number 0: no socket any more, or none yet (nobody accepted it)
    living = [found for found in sockets if found.inode and found.state != TCP_TIME_WAIT]
    by_address = {(found.local, found.remote): found for found in living}
    for found in living:
        if found.state == TCP_LISTEN:
            talk.listeners.append(Listener(Family.TCP, end(found)))
            continue
        peer = by_address.get((found.remote, found.local))
        if peer is None:
            talk.remotes.append(Remote(end(found), found.remote))
        elif found.inode < peer.inode:
            talk.connections.append(Connection(Family.TCP, (end(found), end(peer))))
