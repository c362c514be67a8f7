"""Threads of the kernel's own targets, which serve a disk to the machine that they run on.

LIO serves iSCSI, nvmet NVMe over TCP, nfsd the file below a loop device. Their threads belong to no process,
and no file tells which of the kernel's threads they are: their stacks do.
"""

from collections.abc import Collection
from pathlib import Path

from ioflusher.kernel.task import parse_stat
from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.machine.serving.service import StorageRole
from ioflusher.rescue.freeze import WaitingThread
from ioflusher.rescue.stacks import wait_of
from ioflusher.support.directories import numbers_in

# By what a function on the stack begins with: drivers/target/iscsi/iscsi_target.c, iscsi_target_rx_thread();
# drivers/target/target_core_transport.c, __target_execute_cmd(), target_queued_submit_work();
# drivers/nvme/target/io-cmd-file.c, nvmet_file_buffered_io_work(); fs/nfsd/nfssvc.c, nfsd().
_FUNCTIONS = {
    StorageRole.ISCSI_TARGET.value: ("iscsi_target_", "iscsit_", "__target_", "target_"),
    StorageRole.NVME_TARGET.value: ("nvmet_",),
    StorageRole.FILE_SERVER.value: ("nfsd",),
}
KTHREADD = 2  # the parent of all threads of the kernel (init/main.c, rest_init)


def read_target_threads(roles: Collection[str], root: Path = Path("/")) -> tuple[WaitingThread, ...]:
    """The threads of the kernel's own targets in these roles, and where they stand."""
    found = []
    functions_of = {role: _FUNCTIONS[role] for role in roles if role in _FUNCTIONS}
    for pid in _kernel_threads(root) if functions_of else ():
        directory = root / "proc" / str(pid)
        try:
            thread = parse_stat((directory / "stat").read_bytes())
            text = (directory / "stack").read_text() if thread.kernel_thread else ""
        except (OSError, ValueError):
            continue  # it ended
        functions = tuple(frame.function for frame in parse_proc_stack(text))
        for role, prefixes in functions_of.items():
            if any(function.startswith(prefixes) for function in functions):
                wait = wait_of(text, thread.comm)
                found.append(WaitingThread(pid, pid, thread.comm, thread.state, wait, functions, target=role))
                break
    return tuple(found)


def _kernel_threads(root: Path) -> list[int]:
    """Numbers of the kernel's threads; of all processes where it does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return [int(pid) for pid in (root / f"proc/{KTHREADD}/task/{KTHREADD}/children").read_text().split()]
    except (OSError, ValueError):
        pass
    try:
        return numbers_in(root / "proc")
    except OSError:
        return []
