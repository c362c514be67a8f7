"""Keeping a server that was given up from its store: its process is killed, and has ended."""

import contextlib
import os
import select
import signal
from collections.abc import Iterable

from ioflusher.nbd.kernel_client.device import AttachError


class Fence:
    """Processes that must not live when another one takes their place.

    They are held on to by process file descriptors: a number that another process got meanwhile is not meant.

    Args:
        pids: their numbers; none: nothing keeps the server that was given up from going on.

    Raises:
        AttachError: there is no such process, or it is this one or the system's first.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._alive: dict[int, int] = {}  # pidfd: number
        try:
            for pid in pids:
                if pid in (1, os.getpid()):
                    raise AttachError(f"process {pid} is not to be killed", hint="give the server's own")
                try:
                    self._alive[os.pidfd_open(pid)] = pid
                except OSError as error:
                    raise AttachError(
                        f"cannot hold process {pid}: {error.strerror}",
                        errno=error.errno,
                        hint="give the process that does the server's writing",
                    ) from error
        except BaseException:
            self.close()
            raise

    def kill(self, seconds: float) -> tuple[int, ...]:
        """Send SIGKILL to each, and wait up to so long; those that have not ended.

        A process that waits inside the kernel for its store ends no earlier than that wait does; until then
        what it asked for may still be written. Call it again.
        """
        poll = select.poll()
        for fd in self._alive:
            with contextlib.suppress(ProcessLookupError):  # it ended, and its parent has asked for its status
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            poll.register(fd, select.POLLIN)
        if self._alive:
            for fd, _ in poll.poll(seconds * 1000):
                del self._alive[fd]
                os.close(fd)
        return tuple(self._alive.values())

    def close(self) -> None:
        """Let them live."""
        while self._alive:
            os.close(self._alive.popitem()[0])
