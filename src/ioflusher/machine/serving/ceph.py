"""Who serves krbd devices and CephFS mounts: the daemons of a Ceph cluster on this same machine.

net/ceph/messenger.c: the kernel's client holds one socket for each daemon that it speaks with; that
of a store it closes when 60 s went by without a request (osd_idle_ttl, include/linux/ceph/libceph.h).
"""

from collections.abc import Iterator

from ioflusher.machine.endpoints import Family, SocketEnd
from ioflusher.machine.peers import split_address
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import DeviceKind

# src/include/msgr.h: CEPH_MON_PORT_IANA, CEPH_MON_PORT_LEGACY
_MONITOR_PORTS = frozenset(("3300", "6789"))
_DAEMON = "ceph-"


def is_ceph_socket(index: SnapshotIndex, end: SocketEnd) -> bool:
    """Whether the end is a Ceph daemon's: at a monitor's port, or held by a process called ceph-..."""
    if not end.address or end.address.startswith(("/", "@")):
        return False
    if split_address(end.address)[1] in _MONITOR_PORTS:
        return True
    return any(_is_daemon(index, pid) for pid in end.pids)


def _is_daemon(index: SnapshotIndex, pid: int) -> bool:
    process = index.processes.get(pid)
    return process is not None and process.comm.startswith(_DAEMON)


def ceph_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """The local daemons that the kernel's Ceph client speaks with, for each rbd device and CephFS mount."""
    targets = [
        *((TargetKind.DEVICE, d.name) for d in index.snapshot.devices if d.kind is DeviceKind.RBD),
        *dict.fromkeys((TargetKind.MOUNT, m.number) for m in index.snapshot.mounts if m.fstype == "ceph"),
    ]
    if not targets:
        return
    connected = {
        pid: server
        for kernel, server in index.kernel_ends
        if is_ceph_socket(index, server)
        for pid in server.pids
    }
    listening = {
        pid: listener.end
        for listener in index.snapshot.listeners
        if listener.family is Family.TCP
        for pid in listener.end.pids
        if pid not in connected and _is_daemon(index, pid)
    }
    for kind, target in targets:
        for pid in distinct(connected):
            evidence = f"{index.name(pid)} holds the other end of the kernel's connection to "
            yield _daemon(index, pid, kind, target, evidence + connected[pid].address, certain=index.certain)
        # the kernel connects to a store again with the next request
        for pid in distinct(listening) if connected else ():
            evidence = f"{index.name(pid)} listens at {listening[pid].address}, not connected now"
            yield _daemon(index, pid, kind, target, evidence, certain=False)


def _daemon(
    index: SnapshotIndex, pid: int, kind: TargetKind, target: str, evidence: str, *, certain: bool
) -> StorageService:
    """A monitor is asked for maps when something changed, a store or metadata server at each request."""
    process = index.processes.get(pid)
    monitor = process is not None and process.comm.startswith(("ceph-mon", "ceph-mgr"))
    role = StorageRole.CEPH_DAEMON
    return StorageService(pid, role, kind, target, evidence, certain, essential=not monitor)
