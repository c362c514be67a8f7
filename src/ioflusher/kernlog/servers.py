"""Who serves what on the machine that a log is from: its snapshot tells, a log does not."""

from collections import Counter

from ioflusher.kernlog.records import DeviceServer
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.process import Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind

# as in stacks/daemons.txt
_SERVES = {
    StorageRole.NBD_SERVER: "nbd",
    StorageRole.UBLK_SERVER: "ublk",
    StorageRole.TCMU_HANDLER: "tcmu",
    StorageRole.ISCSI_TARGET: "iscsi",
    StorageRole.FUSE_SERVER: "fuse",
}
_FILE_SYSTEMS = {"nfs4": "nfs", "smb3": "cifs", "virtiofs": "fuse"}


def servers_of(analysis: Analysis) -> tuple[DeviceServer, ...]:
    """The processes that must act so that I/O completes, without those that may be one of several.

    A process is known again by its number and its threads' names; once it was started anew, by such of these
    names as no other process had.
    """
    snapshot = analysis.snapshot
    processes = {process.pid: process for process in snapshot.processes}
    bearers = Counter(name for process in snapshot.processes for name in _names(process))
    found = []
    for service in analysis.services:
        process = processes.get(service.pid) if service.pid is not None else None
        recovers = not service.essential or service.role is StorageRole.NBD_CLIENT
        if process is None or service.kernel or recovers or service.candidate is not None:
            continue
        alone = frozenset(name for name in _names(process) if bearers[name] == 1)
        threads = frozenset((thread.tid, thread.comm) for thread in process.living)
        target, serves = _target(service, analysis)
        found.append(DeviceServer(target, process.pid, process.comm, serves, threads, alone))
    return tuple(found)


def _names(process: Process) -> frozenset[str]:
    return frozenset({process.comm, *(thread.comm for thread in process.living)})


def _target(service: StorageService, analysis: Analysis) -> tuple[str, str]:
    """What is served, and which kind of server that makes it."""
    if service.kind is TargetKind.DEVICE:
        return service.target, _SERVES.get(service.role, "block")
    mounts = analysis.layers.mounts.get(service.target)
    if not mounts:
        return f"file system {service.target}", _SERVES.get(service.role, "block")
    kind = mounts[0].fstype
    return mounts[0].point, _SERVES.get(service.role) or _FILE_SYSTEMS.get(kind, kind)
