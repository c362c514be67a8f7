"""Target types of device-mapper tables, through the control device."""

import fcntl
import os
import stat

from ioflusher.kernel.dm import DM_DIR_CONTROL, DM_TABLE_STATUS, parse_table, table_request
from ioflusher.machine.collect.tree import Tree

_FIRST_BYTES = 1 << 14
_LARGEST_BYTES = 1 << 22  # tens of thousands of targets


class TableReader:
    """Asks the device mapper for tables; opens its control device when asked, and notes once why not."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._descriptor: int | None = None
        self._refused = False

    def __enter__(self) -> "TableReader":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def targets(self, number: str) -> tuple[str, ...]:
        """The target types of the device "major:minor"; empty where they cannot be read, which is noted."""
        if not self._open():
            return ()
        assert self._descriptor is not None
        major, _, minor = number.partition(":")
        what = f"table of the device-mapper device {number}"
        size = _FIRST_BYTES
        while size <= _LARGEST_BYTES:
            answer = table_request(int(major), int(minor), size)
            try:
                fcntl.ioctl(self._descriptor, DM_TABLE_STATUS, answer, True)
                types = parse_table(answer)
            except (OSError, ValueError) as error:
                self._tree.note(
                    what, error.strerror or str(error) if isinstance(error, OSError) else str(error)
                )
                return ()
            finally:
                answer[:] = bytes(len(answer))  # the arguments, among them keys, are gone at once
            if types is not None:
                return types
            size *= 4
        self._tree.note(what, f"longer than {_LARGEST_BYTES >> 20} MiB")
        return ()

    def _open(self) -> bool:
        if self._descriptor is None and not self._refused:
            try:
                descriptor = os.open(self._tree.place(DM_DIR_CONTROL), os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                self._refuse(error.strerror or str(error))
                return False
            if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                self._refuse("not the device mapper's control device")
                return False
            self._descriptor = descriptor
        return not self._refused

    def _refuse(self, why: str) -> None:
        self._refused = True
        self._tree.note(f"/{DM_DIR_CONTROL} (target types of device-mapper tables)", why)
