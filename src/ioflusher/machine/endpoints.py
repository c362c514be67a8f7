"""Kernel objects behind which user space stands, and sockets between processes of this machine."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class IscsiSession:
    """A session of the iSCSI initiator, /sys/class/iscsi_session.

    Attributes:
        name: "session3".
        target: its name, as iqn....
        state: "LOGGED_IN", "FAILED", "FREE".
        addresses: "address:port" of each connection; IPv6 in brackets.
        devices: names of the block devices behind it.
    """

    name: str
    target: str
    state: str
    addresses: tuple[str, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TcmuDevice:
    """A device of the kernel's target that a handler in user space serves, target_core_user.

    Attributes:
        uio: "uio0", whose holder is the handler.
        name: of the uio device, "tcm-user/HBA/NAME/CONFIG" without what follows the name.
        wwid_suffix: hexadecimal digits of its unit serial, by which its SCSI disks are known; None: unknown.
    """

    uio: str
    name: str
    wwid_suffix: str | None = None


@dataclass(frozen=True, slots=True)
class NvmeController:
    """A controller of NVMe over TCP, /sys/class/nvme with the transport "tcp".

    Attributes:
        name: "nvme0".
        subsystem: its qualified name, as nqn....
        state: "live", "connecting", "deleting".
        address: "address:port" of the target; IPv6 in brackets.
        devices: names of the block devices of its namespaces.
    """

    name: str
    subsystem: str
    state: str
    address: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FuseConnection:
    """A connection of /sys/fs/fuse/connections.

    Attributes:
        number: its directory's name: the device number of the mount.
        waiting: requests that wait for the daemon; None for unknown.
    """

    number: int
    waiting: int | None


class Family(Enum):
    """The kinds of sockets that connect processes of one machine."""

    UNIX = "unix"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class SocketEnd:
    """One end of a connection.

    Attributes:
        inode: the socket's number, as /proc/PID/fd shows it.
        address: "127.0.0.1:10809", "[::1]:10809", a path, "@name" for abstract, "" for none.
        pids: who holds it; empty: the kernel alone does (an NBD or iSCSI device, an NFS mount), or unknown.
        received: bytes that it has received; only of TCP sockets that the kernel alone holds, and only where
            an nbd device is set up. None for unknown.
    """

    inode: int
    address: str
    pids: tuple[int, ...]
    received: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Two sockets of this machine that talk to each other."""

    family: Family
    ends: tuple[SocketEnd, SocketEnd]


@dataclass(frozen=True, slots=True)
class Remote:
    """A TCP connection of a process, or of the kernel alone, with another machine."""

    end: SocketEnd
    peer: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits for clients; `end.pids` is empty where the kernel serves (nfsd, LIO)."""

    family: Family
    end: SocketEnd


@dataclass(frozen=True, slots=True)
class NetlinkUser:
    """A process that holds a netlink socket of a storage protocol.

    Attributes:
        pid: the process.
        protocol: NETLINK_ISCSI (8), NETLINK_SCSITRANSPORT (18); include/uapi/linux/netlink.h.
    """

    pid: int
    protocol: int
