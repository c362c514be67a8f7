"""Who serves file systems: FUSE daemons, and servers of NFS, CIFS and 9p on this same machine."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from ioflusher.machine.process import Process
from ioflusher.machine.serving.at_address import servers_at
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.service import (
    Candidate,
    Confidence,
    StorageRole,
    StorageService,
    TargetKind,
)
from ioflusher.machine.storage import Mount

DEV_FUSE = "/dev/fuse"
_MINOR_BITS = 20  # include/linux/kdev_t.h, MKDEV: the connection's number is the kernel's own s_dev

_MOST_CANDIDATES = 8

NETWORK_PORTS = {"nfs": "2049", "nfs4": "2049", "cifs": "445", "smb3": "445", "9p": "564"}


def is_fuse(mount: Mount) -> bool:
    """Whether a FUSE daemon serves it."""
    return mount.fstype.partition(".")[0] in ("fuse", "fuseblk")


def connection_number(number: str) -> int | None:
    """The connection below /sys/fs/fuse/connections of the file system "major:minor" (fs/fuse/control.c)."""
    major, _, minor = number.partition(":")
    if not (major.isdecimal() and minor.isdecimal() and len(number) < 24):
        return None
    return int(major) << _MINOR_BITS | int(minor)


def fuse_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """The daemon of each FUSE file system, by the strongest fact there is for it."""
    mounts: dict[str, list[Mount]] = {}
    for mount in index.snapshot.mounts:
        if is_fuse(mount):
            mounts.setdefault(mount.number, []).append(mount)
    by_connection = {connection_number(number): number for number in mounts}
    by_connection.pop(None, None)
    free: dict[int, Process] = {}
    named: set[str] = set()
    naming: set[int] = set()
    for process, handle in index.handles:
        if handle.path != DEV_FUSE or not mounts:
            continue
        if handle.connection is None:
            free[process.pid] = process
            continue
        naming.add(process.pid)
        number = by_connection.get(handle.connection)
        if number is not None:
            named.add(number)
            evidence = f"a descriptor of {index.name(process.pid)} is of FUSE connection {handle.connection}"
            yield _fuse(process.pid, number, evidence)
    for pid in naming:
        free.pop(pid, None)
    for number in named:
        del mounts[number]
    yield from _by_mount_point(index, mounts, free)
    yield from _by_name(index, mounts, free)
    yield from _by_what_is_left(index, mounts, free)


def _fuse(
    pid: int | None,
    number: str,
    evidence: str,
    *,
    certain: bool = True,
    candidate: Candidate | None = None,
) -> StorageService:
    role = StorageRole.FUSE_SERVER
    return StorageService(pid, role, TargetKind.MOUNT, number, evidence, certain, candidate=candidate)


def _by_mount_point(
    index: SnapshotIndex, mounts: dict[str, list[Mount]], free: dict[int, Process]
) -> Iterator[StorageService]:
    """A daemon whose command line names the mount point; what is found is taken out of both."""
    at = {mount.point: number for number, found in mounts.items() for mount in found}
    claims = {
        (at[point], process.pid): point
        for process in free.values()
        for point in process.named_mounts
        if point in at
    }
    for (number, pid), point in _unambiguous(claims):
        evidence = f"{index.name(pid)} holds {DEV_FUSE}, and its command line names the mount point {point}"
        yield _fuse(pid, number, evidence)
        del mounts[number], free[pid]


def _by_name(
    index: SnapshotIndex, mounts: dict[str, list[Mount]], free: dict[int, Process]
) -> Iterator[StorageService]:
    """The only daemon with the name that the type of the only such file system has: "fuse.sshfs"."""
    types = Counter(found[0].fstype for found in mounts.values())
    names: defaultdict[str, list[Process]] = defaultdict(list)
    for process in free.values():
        for name in {process.comm, (process.exe or "").rpartition("/")[2]}:
            names[name].append(process)
    claims = {}
    for number, found in mounts.items():
        subtype = found[0].fstype.partition(".")[2]
        if subtype and types[found[0].fstype] == 1:
            # a thread's name is cut at 15 bytes
            for process in names.get(subtype) or names.get(subtype[:15], []):
                claims[number, process.pid] = found[0].fstype
    for (number, pid), fstype in _unambiguous(claims):
        evidence = f"{index.name(pid)} holds {DEV_FUSE}, and no other has the name in the type {fstype}"
        yield _fuse(pid, number, evidence)
        del mounts[number], free[pid]


def _unambiguous(claims: dict[tuple[str, int], str]) -> list[tuple[tuple[str, int], str]]:
    """The claims of a file system by a process that nobody disputes, and that is the process's only one."""
    by_number = Counter(number for number, _ in claims)
    by_pid = Counter(pid for _, pid in claims)
    return [(claim, why) for claim, why in claims.items() if by_number[claim[0]] == by_pid[claim[1]] == 1]


def _by_what_is_left(
    index: SnapshotIndex, mounts: dict[str, list[Mount]], free: dict[int, Process]
) -> Iterator[StorageService]:
    """File systems for which no fact names the daemon: one of those that hold the device is it."""
    by_user: defaultdict[str, list[Process]] = defaultdict(list)
    for process in free.values():
        by_user[str(process.uid)].append(process)
    for number, found in mounts.items():
        point = found[0].point
        candidates = by_user.get(found[0].option("user_id") or "") or list(free.values())
        alone = len(candidates) == 1 and len(mounts) == 1
        shown = candidates[:_MOST_CANDIDATES]
        for rank, process in enumerate(shown, 1):
            evidence = (
                f"{index.name(process.pid)} is the only holder of {DEV_FUSE} left for {point}"
                if alone
                else f"{index.name(process.pid)} holds {DEV_FUSE}, and may be the daemon of {point}: "
                f"one of {len(candidates)}"
            )
            candidate = None
            if not alone:
                why = f"it holds {DEV_FUSE}"
                candidate = Candidate(Confidence.LIKELY, rank, len(shown), why)
            yield _fuse(process.pid, number, evidence, certain=alone and index.certain, candidate=candidate)
        if not candidates:
            evidence = f"{point} is mounted, and nobody is seen to hold {DEV_FUSE} for it"
            yield _fuse(None, number, evidence, certain=index.certain)


def server_address(mount: Mount) -> tuple[str, str] | None:
    """Host and port of the server of a file system that is mounted over TCP; None for others."""
    if mount.fstype not in NETWORK_PORTS or (
        mount.fstype == "9p" and mount.option("trans") not in (None, "tcp")
    ):
        return None
    host = mount.option("addr") or mount.source
    return host.strip("[]"), mount.option("port") or NETWORK_PORTS[mount.fstype]


def file_server_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Servers on this machine of file systems that it mounts over a network protocol."""
    done: set[str] = set()
    for mount in index.snapshot.mounts:
        if mount.fstype not in NETWORK_PORTS or mount.number in done:
            continue
        done.add(mount.number)
        address = server_address(mount)
        if address is None:
            yield from _of_socket(index, mount)
        else:
            yield from _of_address(index, mount, *address)


def _of_socket(index: SnapshotIndex, mount: Mount) -> Iterator[StorageService]:
    """9p over a Unix socket: its path is the source (net/9p/trans_fd.c, p9_fd_create_unix).

    Over virtio and its like the server is another machine's, the hypervisor's.
    """
    if mount.option("trans") != "unix":
        return
    pids = distinct(pid for own, _ in index.connections_at(mount.source) for pid in own.pids)
    for pid in pids:
        evidence = f"{index.name(pid)} holds the other end of the kernel's connection to {mount.source}"
        yield _file_server(pid, mount, evidence, certain=len(pids) == 1)
    if not pids:
        evidence = f"{mount.point} leads to {mount.source}, where nobody is seen to serve"
        yield _file_server(None, mount, evidence, certain=index.certain)


def _of_address(index: SnapshotIndex, mount: Mount, host: str, port: str) -> Iterator[StorageService]:
    """By TCP: whoever holds the server's end of the kernel's connection, else who listens there."""
    for found in servers_at(index, host, port, mount.point):
        yield _file_server(found.pid, mount, found.evidence, certain=found.certain, kernel=found.kernel)


def _file_server(
    pid: int | None, mount: Mount, evidence: str, *, certain: bool = True, kernel: bool = False
) -> StorageService:
    return StorageService(
        pid, StorageRole.FILE_SERVER, TargetKind.MOUNT, mount.number, evidence, certain, kernel
    )
