"""Who is watched beside the processes that the audit judges."""

from dataclasses import replace

import pytest

from ioflusher.audit.view import View
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_KTHREAD
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.process import Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind
from ioflusher.watch.daemons import lio_threads
from tests.audit.machines import machine

DISK = BlockDevice("sda", "8:0", 1 << 30, DeviceKind.OTHER)
LIO = StorageService(
    None, StorageRole.ISCSI_TARGET, TargetKind.DEVICE, "sda", "the kernel holds that end", kernel=True
)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_kernels_own_iscsi_target(kernel: bool) -> None:
    """Its threads where it serves a disk of this machine; not a process that only has their name."""
    names = ((90, "iscsi_trx", PF_KTHREAD), (91, "kworker/0:1", PF_KTHREAD), (92, "iscsi_trx", 0))
    others = [Process(pid, 2, comm, 0, (Thread(pid, comm, "D", flags),)) for pid, comm, flags in names]
    snapshot = machine(devices=(DISK,))
    snapshot = replace(snapshot, processes=(*snapshot.processes, *others))
    view = View(Analysis(snapshot, (replace(LIO, kernel=kernel),)))
    found = [(daemon.process.pid, daemon.serves) for daemon in lio_threads(view)]
    assert found == ([(90, "iSCSI target of /dev/sda")] if kernel else [])
