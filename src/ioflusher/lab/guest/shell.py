"""Inside the guest: a scenario's stage with a shell on it, which stays usable when the device freezes.

Where the workload runs, the shell keeps what the observer has: the IO_FLUSHER state, the real-time priority
and the OOM score, which go on to the programs that it starts. Locked memory does not, so the shell is locked
by itself, and it starts in a control group of which nothing is swapped out.
"""

import contextlib
import fcntl
import os
import pty
import shutil
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ioflusher.flag import FlagError
from ioflusher.flag.attach import put_state
from ioflusher.harden import join_cgroup
from ioflusher.lab.guest.cgroups import make_group
from ioflusher.lab.guest.execute import not_started, pump, run_on_ports, shell_status
from ioflusher.lab.guest.port import ReportPort, open_port
from ioflusher.lab.guest.processes import Processes, SetupFailed, become_ordinary
from ioflusher.lab.guest.stage import build_stage
from ioflusher.lab.messages import (
    RESIZE_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    CommandEnded,
    OpenShell,
    ShellReady,
    StageFailed,
    WindowSize,
)

# memory of the shell and of what it starts that reclaim leaves alone
PROTECTED_BYTES = 32 << 20
# for what a program that the shell left behind still prints
LAST_WORDS_S = 1.0


def open_shell(order: OpenShell, port: ReportPort) -> None:
    """Build the stage, start the shell, let the workload go if it is to run, and say how the shell ended."""
    try:
        stage = build_stage(order.half, port)
        if order.freeze:
            stage.start_programs()
    except (SetupFailed, OSError) as error:
        port.say(StageFailed(message=str(error)))
        return
    daemons = tuple(stage.stack.daemons())
    state = "with" if order.half.io_flusher else "without"
    environment = {
        **order.environment,
        "PS1": rf"guest, {state} the state:\w# ",
        "IOFLUSHER_DEVICE": stage.stack.device,
        "IOFLUSHER_DAEMON": " ".join(map(str, daemons)),
    }

    def started(pid: int) -> None:
        if order.freeze:
            with contextlib.suppress(FlagError):  # on a processor that it cannot be done for
                put_state(pid, True, lock_memory=True)
        port.say(ShellReady(device=stage.stack.device, daemons=daemons))
        if order.freeze:
            threading.Thread(target=stage.watch, daemon=True).start()

    prepare = partial(_stay_protected, _group()) if order.freeze else become_ordinary
    argv = _shell(interactive=order.window is not None)
    try:
        if order.window is None:
            status = run_on_ports(argv, order.cwd, environment, prepare=prepare, started=started)
        else:
            status = run_on_terminal(
                argv, order.cwd, environment, order.window, prepare=prepare, started=started
            )
    except OSError as error:
        port.say(not_started(argv[0], error))
        return
    port.say(CommandEnded(status=status))


def _shell(*, interactive: bool) -> list[str]:
    """Bash where it is installed; it reads no start-up files, which are for another machine."""
    bash = shutil.which("bash")
    if bash is None:
        return ["sh", "-i"] if interactive else ["sh"]
    return [bash, "--norc", "--noprofile", "-i"] if interactive else [bash]


def _group() -> Path | None:
    """A control group of which nothing is swapped out; None where the kernel has none."""
    limits = {"memory.swap.max": 0, "memory.min": PROTECTED_BYTES}
    try:
        return make_group(2, "shell", limits, Processes())
    except SetupFailed:
        return None


def _stay_protected(group: Path | None) -> None:
    """In the child, before the shell is executed: all that the observer has it has already."""
    if group is not None:
        join_cgroup(group.name, root=group.parent)


def run_on_terminal(
    argv: Sequence[str],
    cwd: str,
    environment: dict[str, str],
    window: WindowSize,
    *,
    prepare: Callable[[], None],
    started: Callable[[int], None],
) -> int:
    """Run a command on a terminal of its own, whose other end is on the ports; arguments as `run_on_ports`.

    Raises:
        OSError: it cannot be executed.
    """
    leader, follower = pty.openpty()
    resize(leader, window)

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        prepare()

    process = subprocess.Popen(
        argv,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=cwd if os.path.isdir(cwd) else "/",
        env=environment,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(follower)
    started(process.pid)
    output = threading.Thread(target=pump, args=(leader, open_port(STDOUT_PORT, os.O_WRONLY)), daemon=True)
    output.start()
    for task, port_name in ((pump, STDIN_PORT), (_follow_window, RESIZE_PORT)):
        threading.Thread(target=task, args=(open_port(port_name, os.O_RDONLY), leader), daemon=True).start()
    code = process.wait()
    output.join(timeout=LAST_WORDS_S)
    return shell_status(code)


def _follow_window(source: int, terminal: int) -> None:
    """Give the terminal each size that comes in, a line each."""
    with contextlib.suppress(OSError), open(source, "rb", buffering=0) as port:
        for line in port:
            with contextlib.suppress(msgspec.DecodeError):
                resize(terminal, msgspec.json.decode(line, type=WindowSize))


def resize(terminal: int, window: WindowSize) -> None:
    """Give a terminal a size; its programs are told by SIGWINCH."""
    termios.tcsetwinsize(terminal, (window.rows, window.columns))
