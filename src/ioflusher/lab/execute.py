"""Run one command of this machine in a fresh guest."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ioflusher.lab.errors import CommandTimeout, MachineLost
from ioflusher.lab.messages import (
    STDERR_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    AgentFailed,
    CommandEnded,
    RunCommand,
)
from ioflusher.lab.session import Guest, Lab, await_agent
from ioflusher.lab.vm import Ended, VirtualMachine

STREAMS = (STDIN_PORT, STDOUT_PORT, STDERR_PORT)


@dataclass(frozen=True, slots=True)
class Done:
    """How the command ended.

    Attributes:
        status: its exit status, 128 and the signal's number if one ended it, 126 or 127 if it did not start.
        message: why it did not start, else empty.
        boot_s: seconds from power-on to the first event.
        run_s: seconds from the agent's start to the command's end.
    """

    status: int
    message: str
    boot_s: float
    run_s: float


def copy_out(source: socket.socket, target: int) -> None:
    """Copy what a guest prints, until its stream ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            while data:
                data = data[os.write(target, data) :]


def copy_in(source: int, target: socket.socket) -> None:
    """Copy what a guest shall read, and its end."""
    with contextlib.suppress(OSError):
        while data := os.read(source, 65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def guest_environment() -> dict[str, str]:
    """The environment of a command in a guest: our programs are found, our settings stay here."""
    return {
        "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
    }


def execute(
    lab: Lab,
    argv: Sequence[str],
    *,
    guest: Guest | None = None,
    timeout_s: float = 600.0,
    stdin: int | None = None,
    stdout: int = 1,
    stderr: int = 2,
    on_start: Callable[[], None] = lambda: None,
) -> Done:
    """Boot a guest, run the command there as root, stream what it prints to the descriptors.

    Raises MachineLost when the guest panics or does not answer, CommandTimeout when `timeout_s`
    seconds pass. `on_start` is called once the guest runs.
    """
    order = RunCommand(tuple(argv), os.getcwd(), guest_environment())
    with lab.boot(guest or Guest(), order, streams=STREAMS) as vm:
        copies = [
            threading.Thread(target=copy_out, args=(vm.streams[port], fd), daemon=True)
            for port, fd in ((STDOUT_PORT, stdout), (STDERR_PORT, stderr))
        ]
        for copy in copies:
            copy.start()
        if stdin is None:
            vm.streams[STDIN_PORT].shutdown(socket.SHUT_WR)
        else:
            threading.Thread(target=copy_in, args=(stdin, vm.streams[STDIN_PORT]), daemon=True).start()
        boot_s = await_agent(vm)
        on_start()
        began_s = vm.elapsed_s
        done = _await_exit(vm, argv, time.monotonic() + timeout_s)
        run_s = vm.elapsed_s - began_s
        # the guest reboots after its last word, which ends QEMU and with it the streams
        for copy in copies:
            copy.join(timeout=20)
        return Done(done.status, done.message, boot_s, run_s)


def _await_exit(vm: VirtualMachine, argv: Sequence[str], deadline: float) -> CommandEnded:
    while True:
        report = vm.next_report(deadline - time.monotonic())
        if report is None:
            raise CommandTimeout(f"{argv[0]} was still running in the guest when its time was up")
        if isinstance(report, Ended):
            raise MachineLost(vm.last_words(f"{argv[0]} ended"), console=vm.console_tail())
        if isinstance(report, CommandEnded):
            return report
        if isinstance(report, AgentFailed):
            raise MachineLost(f"the guest's agent failed:\n{report.traceback}")
