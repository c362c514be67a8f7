"""The device mapper's control device, open for messages and questions."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from ioflusher.kernel.dm import (
    DM_DIR_CONTROL,
    DM_TABLE_STATUS,
    DM_TARGET_MSG,
    ask_status,
    message_request,
    parse_multipath_state,
    parse_queues_without_path,
    parse_states,
)
from ioflusher.rescue.errors import RescueError

_ANSWER_BYTES = 4096  # a hundred paths


@dataclass(frozen=True, slots=True)
class MultipathMap:
    """A multipath map.

    Attributes:
        paths: of each path whether it is in use.
        queues: whether requests wait while no path is; else they fail.
    """

    paths: tuple[bool, ...]
    queues: bool

    @property
    def stands_still(self) -> bool:
        """Whether what it is asked for waits."""
        return self.queues and not any(self.paths)


class MapperControl:
    """Sends messages to targets, and asks about them, always with the same memory.

    Raises:
        RescueError: the control device cannot be opened.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._answer = bytearray(_ANSWER_BYTES)
        path = root / DM_DIR_CONTROL
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise RescueError(
                f"cannot open {path}: {error.strerror}", errno=error.errno, hint="it needs root"
            ) from error

    def message(self, name: str, text: str) -> None:
        """Send it to the first target of the device of this name; OSError where it does not take it."""
        fcntl.ioctl(self._file, DM_TARGET_MSG, message_request(name, text))

    def multipath(self, name: str) -> MultipathMap | None:
        """The multipath map of this name; None for another device.

        Raises:
            OSError, ValueError: it does not tell.
        """
        states = self._targets(name, table=False)
        if "multipath" not in states:
            return None
        arguments = self._targets(name, table=True)["multipath"]
        return MultipathMap(parse_multipath_state(states["multipath"]), parse_queues_without_path(arguments))

    def _targets(self, name: str, *, table: bool) -> dict[str, str]:
        ask_status(self._answer, name, table=table)
        fcntl.ioctl(self._file, DM_TABLE_STATUS, self._answer)
        return dict(parse_states(self._answer))

    def close(self) -> None:
        """Close it."""
        os.close(self._file)
