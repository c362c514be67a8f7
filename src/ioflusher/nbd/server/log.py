"""Log lines that hold up nobody: written by a thread of their own, dropped when that is held up.

Whoever reads a log may be waiting for the very device that a server serves.
"""

import logging
import os
import queue
import threading
import time
from typing import Any

from ioflusher.support.text import printable

WAITING_LINES = 256  # lines that may wait to be written; further ones are dropped and counted
LAST_MOMENT = 1.0  # seconds that lines which wait get at the end


def event(logger: logging.Logger, level: int, what: str, **facts: Any) -> None:
    """Log what happened, and facts about it that both forms show."""
    if logger.isEnabledFor(level):
        logger.log(level, what, extra={"facts": facts})


class TextForm(logging.Formatter):
    """A line: the time (UTC), what happened, and name=value for each fact, everything odd escaped."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        words = [f"{name}={_value(value)}" for name, value in facts.items()]
        return " ".join([_time(record), printable(record.getMessage()), *words])


class JsonForm(logging.Formatter):
    """A JSON object a line: time, level, event, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        import msgspec

        document: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": printable(record.getMessage()),
        }
        facts: dict[str, Any] = getattr(record, "facts", {})
        for name, value in facts.items():
            document[name] = printable(value) if isinstance(value, str) else value
        return msgspec.json.encode(document).decode()


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _value(value: object) -> str:
    text = printable(str(value)).replace('"', r"\"")
    return f'"{text}"' if not text or set(text) & set(' "=') else text


class BackgroundHandler(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="nbd-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode(errors="backslashreplace") + b"\n"
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = b"%d lines were dropped\n" % dropped + line
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                pass  # nobody reads it any more

    def close(self) -> None:
        """Let the lines that wait be written, if that is soon done."""
        try:
            self._lines.put(None, timeout=LAST_MOMENT)
            self._thread.join(LAST_MOMENT)
        except queue.Full:
            pass
        super().close()
