"""The client of QEMU's machine protocol, against the other end of a socket."""

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ioflusher.lab.monitor import Monitor, MonitorError

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Qemu:
    """Greets, then answers each command with what `answer` says, events among it; records the commands."""

    def __init__(self, answer: Answer) -> None:
        self.here, self.there = socket.socketpair()
        self.commands: list[dict[str, Any]] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self.there, self.there.makefile("rwb") as lines:
            self._say(lines, {"QMP": {"version": {}, "capabilities": []}})
            for line in lines:
                command = json.loads(line)
                self.commands.append(command)
                for said in self._answer(command):
                    if said == {"end": True}:
                        self.there.shutdown(socket.SHUT_RDWR)
                        return
                    self._say(lines, said if "event" in said else {"id": command["id"], **said})

    @staticmethod
    def _say(lines: Any, said: dict[str, Any]) -> None:
        lines.write(json.dumps(said).encode() + b"\r\n")
        lines.flush()

    def close(self) -> None:
        """End it."""
        self.here.shutdown(socket.SHUT_RDWR)
        self.here.close()
        self._thread.join(10)


@pytest.fixture
def started() -> Iterator[Callable[[Answer], Qemu]]:
    """Starts one and ends it."""
    running: list[Qemu] = []

    def start(answer: Answer) -> Qemu:
        running.append(Qemu(answer))
        return running[-1]

    yield start
    for qemu in running:
        qemu.close()


def ignore(event: str) -> None:
    """Nobody listens."""


def test_a_command_and_its_answer_with_events_between(started: Callable[[Answer], Qemu]) -> None:
    """Capabilities come first; an event before an answer is an event, and may itself ask."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer(command: dict[str, Any]) -> list[dict[str, Any]]:
        if command["execute"] == "dump":
            return [{"event": "STOP", "timestamp": {}}, {"return": {"bytes": 7}}]
        return [{"return": {}}]

    qemu = started(answer)
    monitor = Monitor(qemu.here, lambda event: heard.put((event, monitor.ask("quit"))))
    assert monitor.ask("dump", protocol="file:/x") == {"bytes": 7}
    assert heard.get(timeout=10) == ("STOP", {})
    assert [command["execute"] for command in qemu.commands] == ["qmp_capabilities", "dump", "quit"]
    assert qemu.commands[1]["arguments"] == {"protocol": "file:/x"}


def test_a_refusal_is_told_in_qemus_words(started: Callable[[Answer], Qemu]) -> None:
    """Such as that there is no room for a dump."""
    refusal = {"error": {"class": "GenericError", "desc": "No space left on device"}}
    qemu = started(lambda command: [refusal if command["execute"] == "dump" else {"return": {}}])
    with pytest.raises(MonitorError, match="QEMU: dump: No space left on device"):
        Monitor(qemu.here, ignore).ask("dump")


def test_a_machine_that_is_gone_and_one_that_says_nothing(started: Callable[[Answer], Qemu]) -> None:
    """Neither is waited for without end, and later questions fail as well."""
    ends = started(lambda command: [{"end": True} if command["execute"] == "dump" else {"return": {}}])
    monitor = Monitor(ends.here, ignore)
    for _ in range(2):
        with pytest.raises(MonitorError, match="QEMU: dump: "):
            monitor.ask("dump", 5)
    silent = started(lambda command: [] if command["execute"] == "dump" else [{"return": {}}])
    with pytest.raises(MonitorError, match=r"no answer within 0\.05 s"):
        Monitor(silent.here, ignore).ask("dump", 0.05)


def test_an_answer_that_comes_too_late_is_not_the_next_ones(started: Callable[[Answer], Qemu]) -> None:
    """A dump that was given up answers while something else is asked."""
    late: list[dict[str, Any]] = [{"return": "of the dump", "id": 2}, {"return": "of the interrupt"}]
    answers: dict[str, list[dict[str, Any]]] = {"dump": [], "inject-nmi": late}
    qemu = started(lambda command: answers.get(command["execute"], [{"return": {}}]))
    monitor = Monitor(qemu.here, ignore)
    with pytest.raises(MonitorError, match="no answer"):
        monitor.ask("dump", 0.05)
    assert monitor.ask("inject-nmi") == "of the interrupt"
