"""Which daemons are watched: those that the audit judges, with the devices whose requests need them.

And the threads by which LIO, the kernel's own iSCSI target, serves disks to the machine that it runs on: they
store as a daemon does, and nothing puts the state on them.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ioflusher.audit.view import AuditedDaemon, View
from ioflusher.kernel.task import parse_start_time
from ioflusher.machine.collect.machine import collect_serving
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.layers import LayerKind
from ioflusher.machine.serving.service import StorageRole
from ioflusher.machine.storage import DeviceKind

LIO_THREAD = "iscsi_trx"  # drivers/target/iscsi/iscsi_target_login.c: it receives a connection's commands


@dataclass(frozen=True, slots=True)
class WatchedDaemon:
    """A daemon; the fields are those of `DaemonSample`.

    Attributes:
        aside: numbers of threads that only wait in ioctl(NBD_DO_IT).
    """

    pid: int
    comm: str
    started: int
    serves: str
    devices: tuple[str, ...]
    aside: frozenset[int] = frozenset()


def find_daemons(root: Path = Path("/")) -> tuple[WatchedDaemon, ...]:
    """Look at the whole machine for them: 0.4 s of a processor with 2,000 processes.

    Raises:
        SnapshotError: where `root` has no /proc.
    """
    collected = collect_serving(root)
    view = View(Analysis(collected.snapshot, collected.services))
    found = []
    for daemon in (*view.daemons, *lio_threads(view)):
        pid = daemon.process.pid
        with contextlib.suppress(OSError, ValueError):  # it is gone again
            started = parse_start_time((root / "proc" / str(pid) / "stat").read_bytes())
            found.append(
                WatchedDaemon(
                    pid=pid,
                    comm=daemon.process.comm,
                    started=started,
                    serves=daemon.serves,
                    devices=_devices(view, daemon),
                    aside=daemon.in_nbd_do_it,
                )
            )
    return tuple(found)


def lio_threads(view: View) -> tuple[AuditedDaemon, ...]:
    """LIO's threads, where it serves a disk of this machine; of which connection each is, nothing tells."""
    targets = tuple(
        target
        for target in view.targets
        if target.service.kernel and target.service.role is StorageRole.ISCSI_TARGET
    )
    threads = (p for p in view.snapshot.processes if p.kernel_thread and p.comm == LIO_THREAD)
    return tuple(AuditedDaemon(thread, targets) for thread in threads) if targets else ()


def _devices(view: View, daemon: AuditedDaemon) -> tuple[str, ...]:
    """Whole block devices: those that it serves, and loop devices on a file system that it serves."""
    names: dict[str, None] = {}
    for target in daemon.targets:
        if target.layer.kind is LayerKind.DEVICE:
            device = view.layers.devices.get(target.layer.name)
            if device is not None:
                names[view.whole_device(device).name] = None
            continue
        for layer in sorted(view.layers.above(target.layer), key=lambda layer: layer.name):
            device = view.layers.devices.get(layer.name) if layer.kind is LayerKind.DEVICE else None
            if device is not None and device.kind is DeviceKind.LOOP:
                names[device.name] = None
    return tuple(names)
