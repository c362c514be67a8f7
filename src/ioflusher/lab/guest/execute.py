"""Inside the guest: run one command with its streams on ports of their own."""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence

from ioflusher.lab.guest.port import ReportPort, open_port
from ioflusher.lab.messages import (
    STDERR_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    CommandEnded,
    CommandStarted,
    RunCommand,
)

# a child that the command leaves behind may hold its output open for ever; the command itself is done
LAST_WORDS_S = 5.0


def pump(source: int, target: int) -> None:
    """Copy until the source ends or the target no longer takes anything."""
    try:
        while data := os.read(source, 65536):
            while data:
                data = data[os.write(target, data) :]
    except OSError:
        pass


def _feed(source: int, target: int) -> None:
    pump(source, target)
    os.close(target)


def execute(order: RunCommand, port: ReportPort) -> None:
    """Run the command and say how it ended."""
    try:
        status = run_on_ports(
            order.argv, order.cwd, order.environment, started=lambda pid: port.say(CommandStarted())
        )
    except OSError as error:
        port.say(not_started(order.argv[0], error))
        return
    port.say(CommandEnded(status=status))


def not_started(program: str, error: OSError) -> CommandEnded:
    """What is said of a command that could not be executed; statuses as a shell's."""
    status = 127 if isinstance(error, FileNotFoundError) else 126
    return CommandEnded(status=status, message=f"{program}: {error.strerror}")


def run_on_ports(
    argv: Sequence[str],
    cwd: str,
    environment: dict[str, str],
    *,
    prepare: Callable[[], None] | None = None,
    started: Callable[[int], None],
) -> int:
    """Run a command with its three streams on ports; returns its exit status, as a shell gives it.

    Args:
        argv, environment: the command.
        cwd: where it starts, if the guest has that directory.
        prepare: called in the child before it is executed.
        started: called with its number once it runs, before anything of its output is passed on.

    Raises:
        OSError: it cannot be executed.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd if os.path.isdir(cwd) else "/",
        env=environment,
        bufsize=0,
        preexec_fn=prepare,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = [
        threading.Thread(target=pump, args=(stream.fileno(), open_port(name, os.O_WRONLY)))
        for stream, name in ((process.stdout, STDOUT_PORT), (process.stderr, STDERR_PORT))
    ]
    # not waited for: the command may end without reading all that it could
    stdin = os.dup(process.stdin.fileno())
    process.stdin.close()
    threading.Thread(target=_feed, args=(open_port(STDIN_PORT, os.O_RDONLY), stdin), daemon=True).start()
    started(process.pid)
    for thread in outputs:
        thread.start()
    code = process.wait()
    for thread in outputs:
        thread.join(timeout=LAST_WORDS_S)
    return shell_status(code)


def shell_status(code: int) -> int:
    """A process's status as a shell gives it: 128 and the signal's number if one ended it."""
    return code if code >= 0 else 128 - code
