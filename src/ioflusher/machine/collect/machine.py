"""Looks at a machine: `collect(root)` makes the Snapshot, in two steps.

First every process, cheaply: its threads, sockets, special devices; then, of those that serve storage and
those that they may have to wait for, what they stand on. Everything is read only, without arguments or
environments, and within bounds; what could not be read is in `Snapshot.unreadable`.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ioflusher.kernel.ublk import CONTROL_DEVICE
from ioflusher.machine.collect.cgroups import read_cgroups
from ioflusher.machine.collect.device_numbers import DeviceNumbers
from ioflusher.machine.collect.files import FileReader
from ioflusher.machine.collect.hidepid import note_hidden
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.proc_files import prefix
from ioflusher.machine.collect.processes import ProcessReader, Seen
from ioflusher.machine.collect.sockets import SocketReader, Talk, assemble
from ioflusher.machine.collect.storage import collect_storage
from ioflusher.machine.collect.system import read_memory, read_system
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.peers import awaited, kept_sockets, local_hosts, reachable
from ioflusher.machine.process import Process
from ioflusher.machine.serving.infer import services as infer_services
from ioflusher.machine.serving.service import StorageService
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import DeviceKind

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Collected:
    """A machine, and who serves what on it: the collector infers that to know where to look closely.

    Attributes:
        snapshot: the machine.
        services: equal to `serving.infer.services(snapshot)`.
    """

    snapshot: Snapshot
    services: tuple[StorageService, ...]


def collect(
    root: Path = Path("/"),
    *,
    arguments: bool = False,
    extra_pids: frozenset[int] = frozenset(),
    limits: SnapshotLimits | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """The machine whose /proc and /sys lie below `root`: "/", or a recorded tree.

    `arguments`: record command lines, which may hold secrets. `extra_pids`: processes to look at as closely
    as at those that serve storage. `progress` is called with processes done and processes there are.

    Raises:
        SnapshotError: where `root` has no /proc. All else that cannot be read is in `Snapshot.unreadable`.
    """
    collected = collect_serving(
        root, arguments=arguments, extra_pids=extra_pids, limits=limits, progress=progress
    )
    return collected.snapshot


def collect_serving(
    root: Path = Path("/"),
    *,
    arguments: bool = False,
    extra_pids: frozenset[int] = frozenset(),
    listeners: bool = False,
    limits: SnapshotLimits | None = None,
    progress: Progress | None = None,
) -> Collected:
    """The same machine with who serves what on it, for those who need both: inferred once.

    `listeners`: look as closely at all processes that listen, or have ublk's control device open: they may be
    asked to serve storage.
    """
    notes = Notes()
    limits = limits or SnapshotLimits()
    job = _Job(root, notes, limits, time.monotonic() + limits.seconds, progress)
    whole = _look(job, arguments)
    services = infer_services(whole)
    serving = {service.pid for service in services if service.pid is not None}
    waiting = _standing_by(whole) if listeners else set()
    close = reachable(serving | waiting | extra_pids, awaited(whole.connections, whole.listeners))
    looked = replace(whole, processes=tuple(_look_closely(job, whole, close)))
    snapshot = replace(
        kept_sockets(looked, close),
        unreadable=notes.unreadable(close),
        system=replace(whole.system, privileged=not notes.refused),
    )
    if snapshot.system.privileged != whole.system.privileged:
        services = infer_services(snapshot)  # a file could not be read: nothing is certain any more
    return Collected(snapshot, services)


def _standing_by(whole: Snapshot) -> set[int]:
    """Processes that wait for clients, or for a ublk device to serve."""
    listening = {pid for listener in whole.listeners for pid in listener.end.pids}
    return listening | {p.pid for p in whole.processes for h in p.handles if h.path == CONTROL_DEVICE}


@dataclass(frozen=True, slots=True)
class _Job:
    """One collection: `end` is when reading processes is over, by time.monotonic()."""

    root: Path
    notes: Notes
    limits: SnapshotLimits
    end: float
    progress: Progress | None

    @property
    def over(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.end

    def left_out(self, what: str) -> None:
        """Note what nobody looked at, because the time is over."""
        self.notes(what, f"not looked at: the {self.limits.seconds:g} s for reading processes were over")


def _look(job: _Job, arguments: bool) -> Snapshot:
    """The first step: everything but files and control groups, and all connections."""
    root, notes = job.root, job.notes
    sockets = SocketReader(root, notes, job.limits)
    numbers = DeviceNumbers(prefix(root), notes)
    reader = ProcessReader(f"{prefix(root)}/proc", notes, numbers, job.limits, arguments=arguments)
    tree = Tree(root, notes)
    before = sockets.inodes()
    seen = _processes(job, reader)
    talk = _talk(sockets, seen, before, notes)
    storage = collect_storage(tree, _mount_namespaces(seen))
    if any(device.kind is DeviceKind.NBD and device.size for device in storage.devices):
        # after the devices: a socket has then received at least what its device has completed
        sockets.add_received(talk)
    points = frozenset(mount.point for mount in storage.mounts if mount.fstype.startswith("fuse"))
    return Snapshot(
        system=read_system(root, tree, privileged=not notes.refused),
        memory=read_memory(tree),
        processes=tuple(_with_mount_points(found.process, points, reader) for found in seen),
        devices=storage.devices,
        mounts=storage.mounts,
        swaps=storage.swaps,
        connections=tuple(sorted(talk.connections, key=lambda c: tuple(end.inode for end in c.ends))),
        remotes=tuple(sorted(talk.remotes, key=lambda remote: remote.end.inode)),
        listeners=tuple(sorted(talk.listeners, key=lambda listener: listener.end.inode)),
        hosts=local_hosts(talk.connections, talk.remotes, talk.listeners),
        netlink=tuple(sorted(set(talk.netlink), key=lambda user: (user.pid, user.protocol))),
        iscsi=storage.iscsi,
        tcmu=storage.tcmu,
        fuse=storage.fuse,
        nvme=storage.nvme,
    )


def _look_closely(job: _Job, whole: Snapshot, close: frozenset[int]) -> Iterator[Process]:
    """The second step: the processes, those in `close` with their files and control groups."""
    root = prefix(job.root)
    files = FileReader(f"{root}/proc", job.notes, job.limits, whole.devices, whole.mounts)
    late = 0
    for process in whole.processes:
        if process.pid not in close or process.kernel_thread:
            yield process
        elif job.over:
            late += 1
            yield process
        else:
            groups = read_cgroups(root, process.pid, job.notes)
            yield replace(process, files=files.read(process), cgroups=groups)
    if late:
        job.left_out(f"files and control groups of {late} processes")


def _processes(job: _Job, reader: ProcessReader) -> list[Seen]:
    """Every process, lowest number first, as long as the time lasts."""
    try:
        pids = reader.pids()
    except OSError as error:
        raise SnapshotError(
            f"cannot list {reader.proc}: {error.strerror}",
            errno=error.errno,
            hint="expected the root of a machine, or of a recorded tree, with its proc/ and sys/",
        ) from error
    note_hidden(reader.proc, job.notes)
    seen = []
    for done, pid in enumerate(pids):
        if job.over:
            job.left_out(f"{len(pids) - done} of {len(pids)} processes, from process {pid} on")
            break
        found = reader.read(pid)
        if found is not None:
            seen.append(found)
        if job.progress is not None:
            job.progress(done + 1, len(pids))
    return seen


def _talk(sockets: SocketReader, seen: list[Seen], before: frozenset[int] | None, notes: Notes) -> Talk:
    """All connections of the machine's processes, in every network namespace."""
    holding: defaultdict[int, list[int]] = defaultdict(list)
    namespaces: dict[int, int] = {}
    for found in seen:
        for inode in found.sockets:
            holding[inode].append(found.process.pid)
        if found.network is not None:
            namespaces.setdefault(found.network, found.process.pid)
    holders = {inode: tuple(pids) for inode, pids in holding.items()}
    talk = Talk()
    own = sockets.read()
    if before is not None:
        own = own.without_new(before, holders)
    assemble(own, holders, talk)
    first = sockets.own_namespace()
    others = {number: pid for number, pid in namespaces.items() if first not in (None, number)}
    for pid in others.values():
        assemble(sockets.read_other(pid), holders, talk)
    if others:
        notes(
            f"peers of Unix sockets in {len(others)} other network namespaces",
            "sock_diag has those of its own namespace alone",
        )
    return talk


def _mount_namespaces(seen: list[Seen]) -> dict[int, list[int]]:
    """The mount namespaces, each with its processes."""
    namespaces: defaultdict[int, list[int]] = defaultdict(list)
    for found in seen:
        if found.process.mount_namespace is not None:
            namespaces[found.process.mount_namespace].append(found.process.pid)
    return namespaces


def _with_mount_points(process: Process, points: frozenset[str], reader: ProcessReader) -> Process:
    """The process with the mount points that its command line names, where it may serve one."""
    if not any(handle.path in ("/dev/fuse", "/dev/cuse") for handle in process.handles):
        return process
    named = reader.paths_named(process.pid) & points
    return replace(process, named_mounts=tuple(sorted(named))) if named else process
