"""Looks at a machine: `collect(root)` makes the Snapshot, in two steps.

First every process, cheaply: its threads, sockets, special devices; then, of those that serve storage and
those that they may have to wait for, what they stand on. Everything is read only, without arguments or
environments, and within bounds; what could not be read is in `Snapshot.unreadable`.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ioflusher.machine.collect_cgroups import read_cgroups
from ioflusher.machine.collect_files import FileReader
from ioflusher.machine.collect_processes import ProcessReader, Seen
from ioflusher.machine.collect_sockets import SocketReader, Talk, assemble
from ioflusher.machine.collect_storage import collect_storage
from ioflusher.machine.collect_system import read_memory, read_system
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.handles import DeviceNumbers
from ioflusher.machine.hidden import note_hidden
from ioflusher.machine.notes import Limits, Notes, prefix
from ioflusher.machine.peers import awaited, kept_connections, kept_listeners, kept_remotes, reachable
from ioflusher.machine.process import Process
from ioflusher.machine.serving import services
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.tree import Tree

Progress = Callable[[int, int], None]


def collect(
    root: Path = Path("/"),
    *,
    arguments: bool = False,
    extra_pids: frozenset[int] = frozenset(),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """The machine whose /proc and /sys lie below `root`: "/", or a recorded tree.

    `arguments`: record command lines, which may hold secrets. `extra_pids`: processes to look at as closely
    as at those that serve storage. `progress` is called with processes done and processes there are.

    Raises:
        SnapshotError: where `root` has no /proc. All else that cannot be read is in `Snapshot.unreadable`.
    """
    limits = limits or Limits()
    notes = Notes()
    whole = _look(root, notes, limits, arguments, progress)
    serving = {service.pid for service in services(whole) if service.pid is not None}
    close = reachable(serving | extra_pids, awaited(whole.connections, whole.listeners))
    files = FileReader(f"{prefix(root)}/proc", notes, limits, whole.devices, whole.mounts)
    return replace(
        whole,
        processes=tuple(
            replace(
                process, files=files.read(process), cgroups=read_cgroups(prefix(root), process.pid, notes)
            )
            if process.pid in close and not process.kernel_thread
            else process
            for process in whole.processes
        ),
        connections=kept_connections(whole.connections, close),
        remotes=kept_remotes(whole.remotes, close),
        listeners=kept_listeners(whole.listeners, close),
        unreadable=notes.unreadable(close),
        system=replace(whole.system, privileged=not notes.refused),
    )


def _look(root: Path, notes: Notes, limits: Limits, arguments: bool, progress: Progress | None) -> Snapshot:
    """The first step: everything but files and control groups, and all connections."""
    sockets = SocketReader(root, notes, limits)
    reader = ProcessReader(
        f"{prefix(root)}/proc", notes, DeviceNumbers(prefix(root), notes), limits, arguments=arguments
    )
    tree = Tree(root, notes)
    before = sockets.inodes()
    seen = _processes(reader, notes, limits, progress)
    talk = _talk(sockets, seen, before, notes)
    storage = collect_storage(root, notes)
    points = frozenset(mount.point for mount in storage.mounts if mount.fstype.startswith("fuse"))
    return Snapshot(
        system=read_system(root, tree, privileged=not notes.refused),
        memory=read_memory(tree),
        processes=tuple(_with_mount_points(found.process, points, reader) for found in seen),
        devices=storage.devices,
        mounts=storage.mounts,
        swaps=storage.swaps,
        connections=tuple(talk.connections),
        remotes=tuple(talk.remotes),
        listeners=tuple(talk.listeners),
        netlink=tuple(sorted(set(talk.netlink), key=lambda user: (user.pid, user.protocol))),
        iscsi=storage.iscsi,
        tcmu=storage.tcmu,
        fuse=storage.fuse,
    )


def _processes(reader: ProcessReader, notes: Notes, limits: Limits, progress: Progress | None) -> list[Seen]:
    """Every process, lowest number first, as long as the time lasts."""
    try:
        pids = reader.pids()
    except OSError as error:
        raise SnapshotError(
            f"cannot list {reader.proc}: {error.strerror}",
            errno=error.errno,
            hint="expected the root of a machine, or of a recorded tree, with its proc/ and sys/",
        ) from error
    note_hidden(reader.proc, notes)
    end = time.monotonic() + limits.seconds
    seen = []
    for done, pid in enumerate(pids):
        if time.monotonic() > end:
            notes(
                f"{len(pids) - done} of {len(pids)} processes, from process {pid} on",
                f"not looked at: the {limits.seconds:g} s for reading processes were over",
            )
            break
        found = reader.read(pid)
        if found is not None:
            seen.append(found)
        if progress is not None:
            progress(done + 1, len(pids))
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
    others = {number: pid for number, pid in namespaces.items() if number != sockets.own_namespace()}
    for pid in others.values():
        assemble(sockets.read_other(pid), holders, talk)
    if others:
        notes(
            f"peers of Unix sockets in {len(others)} other network namespaces",
            "sock_diag tells those of its own namespace alone",
        )
    return talk


def _with_mount_points(process: Process, points: frozenset[str], reader: ProcessReader) -> Process:
    """The process with the mount points that its command line names, where it may serve one."""
    if not any(handle.path in ("/dev/fuse", "/dev/cuse") for handle in process.handles):
        return process
    named = reader.paths_named(process.pid) & points
    return replace(process, named_mounts=tuple(sorted(named))) if named else process
