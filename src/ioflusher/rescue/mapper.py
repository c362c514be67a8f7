"""The device mapper's control device, open for messages and questions."""

import fcntl
import os
from pathlib import Path

from ioflusher.kernel.dm import (
    DM_DIR_CONTROL,
    DM_TABLE_STATUS,
    DM_TARGET_MSG,
    message_request,
    parse_multipath_state,
    parse_states,
    status_request,
)
from ioflusher.rescue.errors import RescueError

_STATES_BYTES = 16 << 10


class MapperControl:
    """Sends messages to targets, and asks for their state.

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

    def paths(self, name: str) -> tuple[bool, ...]:
        """Of each path of the multipath device of this name whether it is in use; none for another device.

        Raises:
            OSError, ValueError: it does not tell.
        """
        request = status_request(name, _STATES_BYTES)
        fcntl.ioctl(self._file, DM_TABLE_STATUS, request)
        states = dict(parse_states(request))
        return parse_multipath_state(states["multipath"]) if "multipath" in states else ()

    def close(self) -> None:
        """Close it."""
        os.close(self._file)
