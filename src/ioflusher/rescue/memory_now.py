"""The figures of memory that actions go by, read without a snapshot: at once, in a frozen machine too."""

import os
from pathlib import Path

from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.errors import RescueError

# Memory's field -> /proc/sys/vm
_SYSCTLS = {
    "dirty_bytes": "dirty_bytes",
    "dirty_background_bytes": "dirty_background_bytes",
    "dirty_ratio": "dirty_ratio",
    "dirty_background_ratio": "dirty_background_ratio",
    "min_free_kib": "min_free_kbytes",
}


class MemoryFiles:
    """/proc/meminfo and vm.dirty_*, kept open.

    Raises:
        RescueError: one of them is not there.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._files: dict[str, int] = {}
        try:
            self._meminfo = os.open(root / "proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)
            for name, file in _SYSCTLS.items():
                self._files[name] = os.open(root / "proc/sys/vm" / file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise RescueError(f"cannot read {error.filename}: {error.strerror}", errno=error.errno) from error

    def read(self) -> Memory:
        """The figures now; those of swap and the other marks are left unknown."""
        info = parse_meminfo(os.pread(self._meminfo, 8192, 0))
        numbers = {name: int(os.pread(file, 64, 0)) for name, file in self._files.items()}
        return Memory(
            total_kib=info.total_kib,
            free_kib=info.free_kib,
            available_kib=info.available_kib,
            dirty_kib=info.dirty_kib,
            writeback_kib=info.writeback_kib,
            **numbers,
        )

    def close(self) -> None:
        """Close the files."""
        for file in (*self._files.values(), getattr(self, "_meminfo", -1)):
            if file >= 0:
                os.close(file)
        self._files.clear()
