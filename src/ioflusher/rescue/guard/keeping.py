"""What was seen, kept where it survives: a file elsewhere, the kernel's log, pstore.

What is written to /dev/kmsg goes to every console, so to a serial line and to netconsole's target, and to
pstore where its console back end is on. /dev/pmsg0 is pstore's log of user space (fs/pstore/pmsg.c); it is in
/sys/fs/pstore after the next boot.
"""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import TimeoutError as NotYet
from functools import partial

from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.worker import Worker

KMSG = "/dev/kmsg"
PMSG = "/dev/pmsg0"
# LOG_LINE_MAX less the prefix (kernel/printk/printk.c); longer records are refused
LONGEST_LINE = 900
# the kernel takes ten in five seconds (printk_devkmsg=ratelimit)
MOST_LINES = 8
LONGEST_FILE = 16 << 20  # bytes; nothing is added to a file that long
WRITE_S = 2.0


class Keeping:
    """The places, open. What cannot be written in time is left behind: acting does not wait for it.

    Attributes:
        places: where it keeps what it is given, in words.

    Raises:
        RescueError: the file cannot be written.
    """

    def __init__(self, file: str | None, *, kmsg: str = KMSG, pmsg: str = PMSG) -> None:
        self._files: list[tuple[str, int]] = []
        self._workers: dict[int, Worker] = {}
        self._kmsg = -1
        if file is not None:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._files.append((file, os.open(file, flags, 0o640)))
            except OSError as error:
                raise RescueError(f"cannot write {file}: {error.strerror}", errno=error.errno) from error
        with contextlib.suppress(OSError):
            self._files.append((pmsg, os.open(pmsg, os.O_WRONLY | os.O_CLOEXEC)))
        with contextlib.suppress(OSError):
            self._kmsg = os.open(kmsg, os.O_WRONLY | os.O_CLOEXEC)
        kernel = [(kmsg, self._kmsg)] if self._kmsg >= 0 else []
        for _, number in (*self._files, *kernel):
            self._workers[number] = Worker("keeping")
        self.places = tuple(place for place, _ in (*self._files, *kernel))

    def keep(self, lines: Sequence[str], summary: Sequence[str]) -> tuple[str, ...]:
        """Keep the lines, and in the kernel's log the summary; the places that did not take it in time."""
        text = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        begun = [
            (place, self._workers[number].begin(partial(_append, number, text)))
            for place, number in self._files
        ]
        if self._kmsg >= 0:
            records = [f"<4>ioflusher guard: {line[:LONGEST_LINE]}".encode() for line in summary[:MOST_LINES]]
            begun.append((KMSG, self._workers[self._kmsg].begin(partial(_log, self._kmsg, records))))
        late = []
        for place, future in begun:
            try:
                future.result(WRITE_S)
            except NotYet:
                late.append(f"{place}: not within {WRITE_S:g} s")
            except OSError as error:
                late.append(f"{place}: {error.strerror}")
        return tuple(late)


def _append(number: int, text: bytes) -> str:
    if os.fstat(number).st_size < LONGEST_FILE:
        os.write(number, text)
        with contextlib.suppress(OSError):  # /dev/pmsg0 has nothing to flush
            os.fdatasync(number)
    return ""


def _log(number: int, records: Sequence[bytes]) -> str:
    for record in records:
        os.write(number, record)
    return ""
