"""QEMU's machine protocol (QMP) over a connected socket: commands with their answers, and events."""

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from ioflusher.lab.errors import LabError

ANSWER_S = 10.0


class MonitorError(LabError):
    """QEMU refused a command, or did not answer."""


class Monitor:
    """Talks to one QEMU; `on_event` is called with the name of every event, in a thread of its own.

    A connection that ends, as it does with the machine, is an error for whoever waits for an answer, and for
    nobody else.
    """

    def __init__(self, connection: socket.socket, on_event: Callable[[str], None]) -> None:
        self._connection = connection
        self._on_event = on_event
        self._lock = threading.Lock()
        self._asked = 0
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="monitor", daemon=True).start()
        with contextlib.suppress(MonitorError):  # a QEMU that ended at once is told by whoever waits for it
            self.ask("qmp_capabilities")

    def ask(self, command: str, timeout_s: float = ANSWER_S, **arguments: object) -> Any:
        """Execute a command and return its answer.

        Raises:
            MonitorError: it was refused, no answer came in time, or the machine is gone.
        """
        with self._lock:
            self._asked += 1
            request = {"execute": command, "arguments": arguments, "id": self._asked}
            try:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
                answer = self._answer(time.monotonic() + timeout_s)
            except OSError as error:
                raise MonitorError(f"QEMU: {command}: {error.strerror}") from error
            except queue.Empty:
                raise MonitorError(f"QEMU: {command}: no answer within {timeout_s:g} s") from None
        if answer is None:
            raise MonitorError(f"QEMU: {command}: the machine is gone")
        if "error" in answer:
            raise MonitorError(f"QEMU: {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def _answer(self, until: float) -> dict[str, Any] | None:
        """The answer to the last command; those to commands that were given up are passed over."""
        while True:
            answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            if answer is None:
                self._answers.put(None)  # the next one who asks hears it, too
            if answer is None or answer.get("id") == self._asked:
                return answer

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "event" in said:
                    threading.Thread(target=self._on_event, args=(said["event"],), daemon=True).start()
                elif "return" in said or "error" in said:
                    self._answers.put(said)
        self._answers.put(None)
