"""Numbers of devices by their names, from /sys/dev/char and /sys/dev/block."""

import os

from ioflusher.machine.collect.proc_files import read_small
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.support.text import text_of


class DeviceNumbers:
    """Finds "major:minor" for a path such as /dev/fuse, without touching the file itself.

    A file system of a daemon that no longer answers may lie anywhere; sysfs always answers. `root` is what
    comes before "/sys".
    """

    def __init__(self, root: str, notes: Notes) -> None:
        self._directories = (f"{root}/sys/dev/char", f"{root}/sys/dev/block")
        self._notes = notes
        self._numbers: dict[str, str] | None = None

    def of(self, path: str) -> str:
        """The device's number; "" where sysfs does not know it."""
        if self._numbers is None:
            self._numbers = {}
            for directory in self._directories:
                self._numbers |= self._read(directory)
        return self._numbers.get(path, "")

    def _read(self, directory: str) -> dict[str, str]:
        found = {}
        try:
            names = os.listdir(directory)
        except OSError as error:
            self._notes(directory, error.strerror or str(error))
            return {}
        for number in names:
            try:
                uevent = read_small(f"{directory}/{number}/uevent")
            except OSError:
                continue  # unplugged meanwhile
            for line in uevent.split(b"\n"):
                if line.startswith(b"DEVNAME="):
                    found[f"/dev/{text_of(line[8:])}"] = number
        return found
