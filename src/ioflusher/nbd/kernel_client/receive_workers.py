"""The kernel's workers that receive for a device, each of which must end before its connection is replaced.

Such a worker (drivers/block/nbd.c, recv_work) reads until its connection ends, and then marks as dead
whatever socket lies in the connection's place by then: it does not ask which one it was started for, as the
handling of time-outs does by the socket's cookie. If a request that could not be sent showed the connection's
end first, and another server's socket came into the place before the worker ran, the worker shuts down that
one. The kernel says that it took it; requests wait for the dead-connection time-out all the same. On a busy
machine of one processor that came of 2 take-overs in 8.

A kworker's name has the work queue that it works for, with a "+" (kernel/workqueue.c, wq_worker_comm).
"""

import contextlib
import os
import time
from pathlib import Path

PROC = Path("/proc")
UNSEEN = 0.2  # seconds that the workers get where they cannot be seen: from within a PID namespace
POLL = 0.005  # seconds
_NAME_BYTES = 64  # of /proc/PID/comm, at most


class ReceiveWorkers:
    """Those of one device that run now; their files stay open, so that no name has to be looked up later.

    Args:
        index: N of nbdN.
    """

    def __init__(self, index: int) -> None:
        self._work = b"+nbd%d-recv\n" % index
        self._files: list[int] = []
        for place in PROC.glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):  # it has ended
                file = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
                self._files.append(file)
                if not self._runs(file):
                    os.close(self._files.pop())
        self._seen = bool(self._files)

    def await_end(self, seconds: float) -> int:
        """Wait until none of them runs any more, at most so long; how many still do."""
        if not self._seen:
            time.sleep(min(seconds, UNSEEN))
        deadline = time.monotonic() + seconds
        while (running := sum(map(self._runs, self._files))) and time.monotonic() < deadline:
            time.sleep(POLL)
        return running

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def _runs(self, file: int) -> bool:
        try:
            return os.pread(file, _NAME_BYTES, 0).endswith(self._work)
        except OSError:  # ESRCH: the kworker has ended
            return False
