"""Looks for daemons beside the sampling: in a thread of its own, when something changed, and not too often.

A search reads the whole machine, and may wait for a lock that somebody in reclaim holds: the view goes on
meanwhile. It is begun where a block device or a mount came or went, or where a daemon has ended, once more a
little later (a device is often there before its daemon is known), and now and then without a reason; never
so often that searching takes more than `SHARE` of a processor.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.machine.collect.kept import KeptFile
from ioflusher.watch.daemons import WatchedDaemon, find_daemons

SHARE = 0.004
AGAIN_S = 5.0
NOW_AND_THEN_S = 120.0
Find = Callable[[], tuple[WatchedDaemon, ...]]


class Discovery:
    """Who is watched, as far as is known now.

    Attributes:
        failed: why the last search failed; "" where it did not.
    """

    def __init__(self, find: Find = find_daemons, *, root: Path = Path("/")) -> None:
        self._find = find
        self._partitions = KeptFile(root / "proc/partitions")
        self._devices = self._partitions.read()
        self._mounts: int | None = None
        self._poll = select.poll()
        with contextlib.suppress(OSError):
            self._mounts = os.open(root / "proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            # fs/proc_namespace.c, mounts_poll(): POLLPRI once after each change
            self._poll.register(self._mounts, select.POLLPRI)
        self._found: tuple[WatchedDaemon, ...] | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._ended = False
        self._busy = False
        self._not_before = 0.0
        self._next = 0.0
        self._again: float | None = None
        self._changed = False
        self.failed = ""
        self._thread = threading.Thread(target=self._work, name="discovery", daemon=True)

    def first(self) -> tuple[WatchedDaemon, ...]:
        """Search now, and have further searches go on beside the caller.

        Raises:
            IoflusherError: it failed.
        """
        begun = time.thread_time()
        found = self._find()
        self._schedule(time.thread_time() - begun)
        self._thread.start()
        return found

    def poll(self, *, gone: bool) -> tuple[WatchedDaemon, ...] | None:
        """What a search has found since the last call; None: nothing new. Begins one where it is time.

        `gone`: whether a daemon has ended since it was found.
        """
        now = time.monotonic()
        devices = self._partitions.read()
        self._changed = self._changed or devices != self._devices or bool(self._poll.poll(0))
        self._devices = devices
        due = now >= self._next or (self._again is not None and now >= self._again)
        if (due or self._changed or gone) and not self._busy and now >= self._not_before:
            self._again = now + AGAIN_S if self._changed or gone else None
            self._changed = False
            self._busy = True
            self._wanted.set()
        with self._lock:
            found, self._found = self._found, None
        return found

    def _schedule(self, took: float) -> None:
        now = time.monotonic()
        self._not_before = now + min(took / SHARE, NOW_AND_THEN_S)
        self._next = now + max(NOW_AND_THEN_S, took / SHARE)

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ended:
                return
            begun = time.thread_time()
            try:
                found = self._find()
                self.failed = ""
                with self._lock:
                    self._found = found
            except (IoflusherError, OSError) as error:
                self.failed = str(error)
            self._schedule(time.thread_time() - begun)
            self._busy = False

    def close(self) -> None:
        """No further search; one that is under way is not waited for."""
        self._ended = True
        self._wanted.set()
        self._partitions.close()
        if self._mounts is not None:
            self._poll.unregister(self._mounts)
            os.close(self._mounts)
            self._mounts = None
