"""The device mapper's control device, open for messages."""

import fcntl
import os
from pathlib import Path

from ioflusher.kernel.dm import DM_DIR_CONTROL, DM_TARGET_MSG, message_request
from ioflusher.rescue.errors import RescueError


class MapperControl:
    """Sends messages to targets.

    Raises:
        RescueError: the control device cannot be opened.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        path = root / DM_DIR_CONTROL
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise RescueError(f"cannot open {path}: {error.strerror}", errno=error.errno) from error

    def message(self, name: str, text: str) -> None:
        """Send it to the first target of the device of this name; OSError where it does not take it."""
        fcntl.ioctl(self._file, DM_TARGET_MSG, message_request(name, text))

    def close(self) -> None:
        """Close it."""
        os.close(self._file)
