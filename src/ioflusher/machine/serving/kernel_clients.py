"""The kernel's own sockets that are no nbd device's: its clients of other protocols.

A socket that no process holds is the kernel's, and the kernel does not say of which of its clients. These are
known by the address at the other end.
"""

from ioflusher.machine.endpoints import SocketEnd
from ioflusher.machine.peers import join_address, split_address
from ioflusher.machine.serving.ceph import is_ceph_socket
from ioflusher.machine.serving.files import server_address
from ioflusher.machine.serving.index import SnapshotIndex

# The RPC client of the kernel (NFS, lockd, nfsd) registers with rpcbind and asks gssproxy:
# net/sunrpc/rpcb_clnt.c RPCBIND_SOCK_PATHNAME, RPCBIND_SOCK_ABSTRACT_NAME (since 6.4);
# net/sunrpc/auth_gss/gss_rpc_upcall.c GSSPROXY_SOCK_PATHNAME
_UNIX_SERVERS = frozenset(
    (
        *("/run/rpcbind.sock", "/var/run/rpcbind.sock", "@/run/rpcbind.sock"),
        *("/run/gssproxy.sock", "/var/run/gssproxy.sock"),
    )
)
# RPC, NFS and its mountd, SMB, 9p, iSCSI, NVMe over TCP and its discovery, DLM, USB/IP
_PORTS = frozenset(
    ("111", "2049", "20048", "445", "139", "564", "3260", "860", "4420", "8009", "21064", "3240")
)


def is_unix_address(address: str) -> bool:
    """Whether it is of a Unix socket: a path, an abstract name, or none."""
    return not address or address.startswith(("/", "@"))


class KernelClients:
    """Which connections of the kernel are explained by something else than an nbd device."""

    def __init__(self, index: SnapshotIndex) -> None:
        self._index = index
        self._addresses = {address for session in index.snapshot.iscsi for address in session.addresses}
        self._addresses |= {controller.address for controller in index.snapshot.nvme}
        for mount in index.snapshot.mounts:
            address = server_address(mount)
            if address is not None:
                self._addresses.add(join_address(*address))
            elif mount.fstype == "9p":
                self._addresses.add(mount.source)
        self._addresses.discard("")

    def explain(self, *ends: SocketEnd) -> bool:
        """Whether one end's address says that the connection carries no NBD."""
        return any(self._explains(end) for end in ends)

    def explain_address(self, address: str) -> bool:
        """The same of an address alone, such as another machine's."""
        if address in self._addresses:
            return True
        return address in _UNIX_SERVERS if is_unix_address(address) else split_address(address)[1] in _PORTS

    def _explains(self, end: SocketEnd) -> bool:
        return self.explain_address(end.address) or is_ceph_socket(self._index, end)
