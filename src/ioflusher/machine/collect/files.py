"""What a process stands on: its program, libraries, open files. The second of the collector's two steps."""

import os
from collections.abc import Iterable

from ioflusher.kernel.fdinfo import O_APPEND, O_PATH, FdInfo, parse_fdinfo
from ioflusher.kernel.maps import Mapping, parse_maps
from ioflusher.machine.collect.deadline import within
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.proc_files import read_small, read_text
from ioflusher.machine.collect.threads import GONE
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.storage import BlockDevice, Mount
from ioflusher.support.text import text_of

# File systems that no device is behind, and that hold no data of anybody.
_PSEUDO = frozenset(
    (
        *("proc", "sysfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs"),
        *("configfs", "bpf", "pstore", "mqueue", "efivarfs", "binfmt_misc", "selinuxfs", "nsfs", "fusectl"),
    )
)
# Memory that the kernel shows as a file.
_MEMORY = (
    b"[",
    b"/memfd:",
    b"/SYSV",
    b"/dev/zero",
    b"/[aio]",
    b"/anon_hugepage",
    b"anon_inode:",
    b"socket:[",
)


class FileReader:
    """Reads the files of processes below `proc`; devices and mounts are those of the machine."""

    def __init__(
        self,
        proc: str,
        notes: Notes,
        limits: SnapshotLimits,
        devices: Iterable[BlockDevice],
        mounts: Iterable[Mount],
    ) -> None:
        self._proc = proc
        self._notes = notes
        self._limits = limits
        self._devices = {f"/dev/{device.name.replace('!', '/')}": device.number for device in devices}
        self._mounts = {mount.mount_id: mount for mount in mounts}

    def read(self, process: Process) -> tuple[FileUse, ...] | None:
        """The files of a process; None where neither its mappings nor its descriptors could be read."""
        mapped = self._mapped(process)
        opened = self._opened(process.pid)
        if mapped is None and opened is None:
            return None
        uses = dict.fromkeys([*(mapped or ()), *(opened or ())])
        files = sorted(uses, key=lambda use: (use.path, use.kind.value, use.device, use.mount_id or 0))
        if len(files) > self._limits.files:
            self._notes.of_process(
                process.pid, "fd", f"{len(files)} files; the first {self._limits.files} are recorded"
            )
        return tuple(files[: self._limits.files])

    def _mapped(self, process: Process) -> list[FileUse] | None:
        pid = process.pid
        try:
            # Its memory map is locked while the process changes it, which a frozen one may do for ever.
            mappings = within(self._limits.answer_seconds, lambda: self._mappings(pid))
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "maps", error)
            return None
        except ValueError as error:
            self._notes.of_process(pid, "maps", str(error))
            return None
        kinds: dict[tuple[bytes, str], FileKind] = {}
        for mapping in mappings:
            if not mapping.path or mapping.path.startswith(_MEMORY):
                continue
            key = (mapping.path, mapping.device)
            if text_of(mapping.path) == process.exe:
                kinds[key] = FileKind.EXECUTABLE
            elif mapping.executable:
                kinds[key] = FileKind.LIBRARY
            else:
                kinds.setdefault(key, FileKind.MAPPED)
        uses = [FileUse(text_of(path), kind, device) for (path, device), kind in kinds.items()]
        return [use for use in uses if not use.path.startswith("/dev/")]

    def _mappings(self, pid: int) -> tuple[Mapping, ...]:
        limit = self._limits.text_bytes
        data = read_text(f"{self._proc}/{pid}/maps", limit)
        if len(data) >= limit:
            self._notes.of_process(pid, "maps", f"longer than {limit} bytes; the rest is not recorded")
            data = data[: data.rfind(b"\n")]
        return parse_maps(data)

    def _opened(self, pid: int) -> list[FileUse] | None:
        directory = f"{self._proc}/{pid}/fd"
        try:
            names = os.listdir(directory)[: self._limits.descriptors]
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "fd", error)
            return None
        uses = []
        for name in names:
            try:
                link = os.readlink(os.fsencode(f"{directory}/{name}"))
                if not link.startswith(b"/") or link.startswith(_MEMORY):
                    continue
                info = parse_fdinfo(read_small(f"{self._proc}/{pid}/fdinfo/{name}"))
            except GONE:
                continue
            except ValueError as error:
                self._notes.of_process(pid, "fdinfo", str(error))
                continue
            except OSError as error:
                self._notes.of_process(pid, "fd", error)
                return None
            use = self._use(text_of(link), info)
            if use is not None:
                uses.append(use)
        return uses

    def _use(self, path: str, info: FdInfo) -> FileUse | None:
        if info.flags & O_PATH:
            return None  # a name, not open for input or output
        direct = bool(info.flags & os.O_DIRECT)
        if path in self._devices:
            return FileUse(path, FileKind.DEVICE, self._devices[path], info.mount_id, direct)
        mount = None if info.mount_id is None else self._mounts.get(info.mount_id)
        if (mount is not None and mount.fstype in _PSEUDO) or path.startswith("/dev/"):
            return None
        if not info.writable:
            kind = FileKind.READ
        elif info.flags & O_APPEND:
            kind = FileKind.LOG
        else:
            kind = FileKind.WRITTEN
        return FileUse(path, kind, mount.number if mount else "", info.mount_id, direct)
