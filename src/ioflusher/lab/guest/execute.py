"""Inside the guest: run one command with its streams on ports of their own."""

import os
import subprocess
import threading

from ioflusher.lab.guest.port import ReportPort, open_port
from ioflusher.lab.messages import (
    STDERR_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    CommandEnded,
    CommandStarted,
    RunCommand,
)


def _pump(source: int, target: int) -> None:
    """Copy until the source ends or the target no longer takes anything."""
    try:
        while data := os.read(source, 65536):
            while data:
                data = data[os.write(target, data) :]
    except OSError:
        pass


def _feed(source: int, target: int) -> None:
    _pump(source, target)
    os.close(target)


def execute(order: RunCommand, port: ReportPort) -> None:
    """Run the command and say how it ended."""
    cwd = order.cwd if os.path.isdir(order.cwd) else "/"
    try:
        process = subprocess.Popen(
            order.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=order.environment,
            bufsize=0,
        )
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        port.say(CommandEnded(status=status, message=f"{order.argv[0]}: {error.strerror}"))
        return
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = [
        threading.Thread(target=_pump, args=(stream.fileno(), open_port(name, os.O_WRONLY)))
        for stream, name in ((process.stdout, STDOUT_PORT), (process.stderr, STDERR_PORT))
    ]
    # not waited for: the command may end without reading all that it could
    stdin = os.dup(process.stdin.fileno())
    process.stdin.close()
    threading.Thread(target=_feed, args=(open_port(STDIN_PORT, os.O_RDONLY), stdin), daemon=True).start()
    port.say(CommandStarted())
    for thread in outputs:
        thread.start()
    code = process.wait()
    for thread in outputs:
        # a background child may hold the pipe open for ever; the command itself is done
        thread.join(timeout=5)
    port.say(CommandEnded(status=code if code >= 0 else 128 - code))
