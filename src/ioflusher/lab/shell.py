"""A scenario's stage in a fresh guest, with a shell on it: at a terminal, or for what a script says."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from ioflusher.lab.disks import guest_disks
from ioflusher.lab.errors import CommandTimeout, LabError, MachineLost
from ioflusher.lab.execute import STREAMS, copy_in, copy_out, guest_environment
from ioflusher.lab.experiment import disks_for, guest_for
from ioflusher.lab.messages import (
    RESIZE_PORT,
    STDERR_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    AgentFailed,
    CommandEnded,
    GuestReport,
    OpenShell,
    PlayHalf,
    ShellReady,
    StageFailed,
    WindowSize,
)
from ioflusher.lab.remote import remote_store
from ioflusher.lab.session import Lab, await_agent
from ioflusher.lab.vm import Ended, VirtualMachine
from ioflusher.scenario.records import Scenario

ESCAPE = b"\x1d"  # Ctrl-], as of telnet(1): the one key that does not go to the guest
LOOK_S = 0.2  # between two looks at the terminal's size
SETUP_DEADLINE_S = 300.0
# a guest whose device is frozen may not come to its end, and its streams with it
LAST_OUTPUT_S = 3.0


def open_shell(
    lab: Lab,
    scenario: Scenario,
    *,
    io_flusher: bool,
    freeze: bool,
    stdin: int,
    window: Callable[[], WindowSize] | None = None,
    timeout_s: float = float("inf"),
    on_report: Callable[[GuestReport], None],
) -> CommandEnded | None:
    """Boot a guest, build the scenario's stage there, and run a shell until it ends.

    Args:
        io_flusher: whether the daemon carries the state.
        freeze: whether the workload runs beside the shell, which is protected then.
        stdin: descriptor of what the shell reads; what it prints goes to descriptors 1 and 2.
        window: gives the size of the terminal on these; None: the shell reads a script.
        timeout_s: seconds for the shell.
        on_report: is called with every report of the guest.

    Returns:
        How the shell ended; None where somebody left by `ESCAPE`.

    Raises:
        LabError: the stage could not be built, or the machine was lost.
        CommandTimeout: the time is up.
    """
    with remote_store(scenario) as remote, guest_disks(disks_for(scenario)) as disks:
        half = PlayHalf(scenario, io_flusher, remote.uri)
        order = OpenShell(half, freeze, os.getcwd(), guest_environment(), window and window())
        streams = (*STREAMS, RESIZE_PORT)

        def heed(report: GuestReport) -> None:
            remote.heed(report)
            on_report(report)

        with lab.boot(guest_for(scenario, disks), order, streams=streams) as vm:
            await_agent(vm)
            return _Session(vm, stdin, window, heed).last(timeout_s)


class _Session:
    """The streams of one shell, copied both ways by threads."""

    def __init__(
        self,
        vm: VirtualMachine,
        stdin: int,
        window: Callable[[], WindowSize] | None,
        on_report: Callable[[GuestReport], None],
    ) -> None:
        self._vm = vm
        self._stdin = stdin
        self._window = window
        self._size = window and window()
        self._on_report = on_report
        self._left = threading.Event()
        self._outputs: list[threading.Thread] = []

    def last(self, timeout_s: float) -> CommandEnded | None:
        """Follow the guest until the shell has ended; see `open_shell`."""
        deadline = time.monotonic() + SETUP_DEADLINE_S
        while not self._left.is_set():
            report = self._vm.next_report(LOOK_S)
            self._hand_size_on()
            match report:
                case None:
                    if time.monotonic() > deadline:
                        raise CommandTimeout("the shell was still open in the guest when its time was up")
                    continue
                case Ended():
                    raise MachineLost(self._vm.last_words("the shell ended"), console=self._vm.console_tail())
                case AgentFailed():
                    raise MachineLost(f"the guest's agent failed:\n{report.traceback}")
                case StageFailed():
                    raise LabError(
                        f"the guest could not build the scenario's stage: {report.message}\n"
                        f"the last lines of its console:\n{self._vm.console_tail()}"
                    )
            self._on_report(report)
            match report:
                case ShellReady():
                    deadline = time.monotonic() + timeout_s
                    self._connect()
                case CommandEnded():
                    for output in self._outputs:
                        output.join(timeout=LAST_OUTPUT_S)
                    return report
        return None

    def _connect(self) -> None:
        """Let the streams flow."""
        streams = self._vm.streams
        self._outputs = [
            threading.Thread(target=copy_out, args=(streams[port], descriptor), daemon=True)
            for port, descriptor in ((STDOUT_PORT, 1), (STDERR_PORT, 2))
        ]
        take = copy_in if self._window is None else self._take_keys
        for thread in (
            *self._outputs,
            threading.Thread(target=take, args=(self._stdin, streams[STDIN_PORT]), daemon=True),
        ):
            thread.start()

    def _take_keys(self, terminal: int, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 65536):
                keys, escape, _ = data.partition(ESCAPE)
                target.sendall(keys)
                if escape:
                    break
        self._left.set()

    def _hand_size_on(self) -> None:
        """Tell the guest where the terminal's size has changed."""
        if self._window is None or (size := self._window()) == self._size:
            return
        self._size = size
        with contextlib.suppress(OSError):
            self._vm.streams[RESIZE_PORT].sendall(msgspec.json.encode(size) + b"\n")
