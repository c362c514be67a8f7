"""Numbers of character devices by their names, from /sys/dev/char."""

import os

from ioflusher.machine.notes import Notes, read_small
from ioflusher.machine.tree import text_of


class DeviceNumbers:
    """Finds "major:minor" for a path such as /dev/fuse, without touching the file itself.

    A file system of a daemon that no longer answers may lie anywhere; sysfs always answers. `root` is what
    comes before "/sys".
    """

    def __init__(self, root: str, notes: Notes) -> None:
        self._directory = f"{root}/sys/dev/char"
        self._notes = notes
        self._numbers: dict[str, str] | None = None

    def of(self, path: str) -> str:
        """The device's number; "" where sysfs does not know it."""
        if self._numbers is None:
            self._numbers = self._read()
        return self._numbers.get(path, "")

    def _read(self) -> dict[str, str]:
        found = {}
        try:
            names = os.listdir(self._directory)
        except OSError as error:
            self._notes(self._directory, error.strerror or str(error))
            return {}
        for number in names:
            try:
                uevent = read_small(f"{self._directory}/{number}/uevent")
            except OSError:
                continue  # unplugged meanwhile
            for line in uevent.split(b"\n"):
                if line.startswith(b"DEVNAME="):
                    found[f"/dev/{text_of(line[8:])}"] = number
        return found
