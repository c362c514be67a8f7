"""What is kept of a look, and files of such records.

A file is JSON, a line each: first a `Heading`, then a `WatchRecord` for each look. Each line is written by
one write(2) and is on the disk before the next is taken, so a machine that goes down loses at most the line
that it was writing; such a half line is left out when the file is read, and said to be there.
"""

import os
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ioflusher.errors import IoflusherError
from ioflusher.watch.alarms import Alarm
from ioflusher.watch.sample import MachineSample

FORMAT = "ioflusher-watch"
VERSION = 1
_WAITING = 256  # records, while the disk does not take any


class RecordingError(IoflusherError):
    """A recording could not be written, or a file is none."""


@dataclass(frozen=True, slots=True)
class Heading:
    """Whose records follow.

    Attributes:
        hostname, release: as in uname(2).
        began: ISO 8601 in UTC.
    """

    format: str
    version: int
    hostname: str
    release: str
    began: str


@dataclass(frozen=True, slots=True)
class ToldAlarm:
    """An alarm as it is shown.

    Attributes:
        alarm: it.
        what, advice: `Alarm.what` and `Alarm.advice`, for readers of the file.
        stack: /proc/PID/task/TID/stack of the thread; None where it could not be read, or for a near miss.
    """

    alarm: Alarm
    what: str
    advice: str
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """One look."""

    sample: MachineSample
    alarms: tuple[ToldAlarm, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchRecording:
    """A file that was read.

    Attributes:
        broken: lines that were none: the last one of a machine that went down.
    """

    heading: Heading
    records: tuple[WatchRecord, ...]
    broken: int


_heading = msgspec.json.Decoder(Heading)
_record = msgspec.json.Decoder(WatchRecord)


def encode(record: WatchRecord | Heading) -> bytes:
    """One line, without its end."""
    return msgspec.json.encode(record)


def own_heading() -> Heading:
    """This machine, now."""
    name = os.uname()
    return Heading(
        FORMAT, VERSION, name.nodename, name.release, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )


class WatchRecorder:
    """Appends records to a file, in a thread of its own: the file may lie on what is frozen.

    Raises:
        RecordingError: the file cannot be written, or has something else in it.

    Attributes:
        lost: records that had to be left out, because the disk took none for too long.
        failed: why writing failed; "" where it did not.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordingError(f"cannot write {path}: {error.strerror}", errno=error.errno) from error
        size = os.fstat(self._file).st_size
        if size and f'"format":"{FORMAT}"'.encode() not in os.pread(self._file, 4096, 0):
            os.close(self._file)
            raise RecordingError(
                f"{path} is not a recording of ioflusher watch, and is left as it is",
                hint="name a file that does not exist, or a recording, which goes on",
            )
        self.lost = 0
        self.failed = ""
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        # the last line may be a half one
        half = size and os.pread(self._file, 1, size - 1) != b"\n"
        self._queue.put((b"\n" if half else b"") + encode(own_heading()) + b"\n")
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def write(self, record: WatchRecord) -> None:
        """Have it written; returns at once."""
        with suppress(queue.Full):
            self._queue.put_nowait(encode(record) + b"\n")
            return
        self.lost += 1

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                written = os.write(self._file, line)
                if written < len(line):
                    raise OSError(28, f"{written} of {len(line)} bytes were written")
                os.fdatasync(self._file)
                self.failed = ""
            except OSError as error:
                if error.errno == 22:  # a pipe or terminal has nothing to be synchronised
                    continue
                self.failed = error.strerror or str(error)
                self.lost += 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, as long as that takes no longer."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._file)


def read_recording(path: Path) -> WatchRecording:
    """A file of records.

    Raises:
        RecordingError: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}", errno=error.errno) from error
    return parse_recording(data, str(path))


def parse_recording(data: bytes, name: str) -> WatchRecording:
    """What such a file holds; `name` is for errors.

    Raises:
        RecordingError: it is none.
    """
    heading = None
    records = []
    broken = 0
    for line in filter(None, data.split(b"\n")):
        try:
            if line.startswith(b'{"format"'):
                found = _heading.decode(line)
                if (found.format, found.version) != (FORMAT, VERSION):
                    raise RecordingError(
                        f"{name}: expected {FORMAT} version {VERSION}, found {found.format} {found.version}"
                    )
                heading = heading or found
            elif heading is not None:
                records.append(_record.decode(line))
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            broken += 1
    if heading is None:
        raise RecordingError(
            f"{name} is not a recording: expected the first line of `ioflusher watch --record`"
        )
    return WatchRecording(heading, tuple(records), broken)
