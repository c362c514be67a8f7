"""`ioflusher lab shell`: a scenario's stage, and a shell on it."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import (
    ProgressLine,
    accelerator_option,
    current_directory_shares,
    kernel_option,
    progress_line,
)
from ioflusher.cli.lab_scenario import read_scenario, scenario_argument
from ioflusher.cli.messages import print_error, remark

if TYPE_CHECKING:
    from ioflusher.lab.messages import GuestReport, ShellReady, WindowSize


@click.command("shell")
@scenario_argument
@click.option(
    "--with/--without",
    "io_flusher",
    default=False,
    help="Whether the daemon carries the IO_FLUSHER state; default: without.",
)
@click.option(
    "--freeze", is_flag=True, help="Let the workload run; the shell is protected, so that it stays usable."
)
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds for what standard input says."
)
@kernel_option
@accelerator_option
def shell_command(
    scenario: str, io_flusher: bool, freeze: bool, timeout: float, kernel: str | None, accelerator: str | None
) -> None:
    """Open a shell on the stage of SCENARIO in a guest.

    The daemon serves, the swap or the file system is on its device, and you are root. On a terminal the shell
    is interactive, and Ctrl-] ends the machine whatever it does; elsewhere the shell runs what standard input
    says. IOFLUSHER_DEVICE and IOFLUSHER_DAEMON name the device and the daemon's processes.

    Exit status: the shell's; 2 the guest could not be brought up, 124 time-out, 130 Ctrl-].
    """
    from ioflusher.lab.errors import CommandTimeout
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import check_programs
    from ioflusher.lab.shell import open_shell

    if scenario == "-":
        raise click.UsageError("standard input is the shell's: give the scenario's name or a file")
    found = read_scenario(scenario)
    check_programs(found)
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
    chosen = Accelerator(accelerator) if accelerator else None
    shares = current_directory_shares()
    with (
        progress_line(quiet=not terminal) as progress,
        Lab(kernel, accelerator=chosen, shares=shares, progress=progress, scenario=found) as lab,
        contextlib.ExitStack() as stack,
    ):
        progress("booting")
        watching = _Watching(progress, stack, io_flusher=io_flusher, freeze=freeze, terminal=terminal)
        try:
            ended = open_shell(
                lab,
                found,
                io_flusher=io_flusher,
                freeze=freeze,
                stdin=0,
                window=_window if terminal else None,
                timeout_s=float("inf") if terminal else timeout,
                on_report=watching.take,
            )
        except CommandTimeout as error:
            print_error(str(error))
            sys.exit(ExitStatus.TIMED_OUT)
    if ended is None:
        sys.exit(ExitStatus.INTERRUPTED)
    if ended.message:
        print_error(ended.message)
    sys.exit(ended.status)


class _Watching:
    """Says what goes on in the guest; once the shell is there, the terminal is the guest's."""

    def __init__(
        self,
        progress: ProgressLine,
        stack: contextlib.ExitStack,
        *,
        io_flusher: bool,
        freeze: bool,
        terminal: bool,
    ) -> None:
        self._progress = progress
        self._stack = stack
        self._state = "with" if io_flusher else "without"
        self._freeze = freeze
        self._terminal = terminal
        self._device = "the device"

    def take(self, report: "GuestReport") -> None:
        """One report of the guest."""
        from ioflusher.lab.messages import DeviceFrozen, SettingUp, ShellReady, WorkEnded

        match report:
            case SettingUp():
                self._progress(f"{self._state} the state: {report.step}")
            case ShellReady():
                self._ready(report)
            case DeviceFrozen():
                self._say(
                    f"{self._device} is frozen: {report.in_flight} requests in flight, none completed for "
                    f"{report.stalled_s:.0f} s"
                )
            case WorkEnded(status=0):
                self._say("the workload is done")
            case WorkEnded():
                self._say(f"the workload ended with status {report.status}")

    def _ready(self, report: "ShellReady") -> None:
        self._device = report.device
        self._stack.enter_context(self._progress.hidden())
        if not self._terminal:
            return
        processes = " ".join(map(str, report.daemons))
        remark(f"{report.device} is served by {processes}, {self._state} the IO_FLUSHER state")
        remark("the workload runs beside this shell" if self._freeze else "the workload does not run")
        remark("Ctrl-] ends the machine, whatever it does")
        self._stack.enter_context(_raw_terminal())

    def _say(self, text: str) -> None:
        # the cursor stands anywhere, and a raw terminal adds no carriage return
        click.echo(f"\r\nioflusher: {text}\r" if self._terminal else f"ioflusher: {text}", err=True)


def _window() -> "WindowSize":
    """The size of the terminal."""
    import termios

    from ioflusher.lab.messages import WindowSize

    rows, columns = termios.tcgetwinsize(0)
    return WindowSize(rows, columns)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, until the end of the block."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
