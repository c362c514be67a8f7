"""A tracefs instance of our own, that is gone when we are: after kill -9 too.

What holds an instance is not a file descriptor: it stays until somebody removes its directory, with every
trigger in it. So a small child (`sh`, in a session of its own, which no Ctrl-C reaches) reads a pipe that
only we hold open for writing, and removes the directory when the pipe ends, however we ended. Where the
child was killed with us, as by a control group's kill, the next start removes what it finds: the name has
our process number, when that process started and its PID namespace, so that no living one's is taken.

Removing the directory removes its triggers, where these keep no variables (event_trace_del_tracer() of
kernel/trace/trace_events.c); while a file in it is open, it is refused.
"""

import contextlib
import os
import re
import subprocess
from pathlib import Path

from ioflusher.kernel.task import parse_start_time

TRACEFS = Path("/sys/kernel/tracing")
_NAME = re.compile(r"ioflusher-watch-(?P<pid>\d+)-(?P<started>\d+)-(?P<namespace>\d+)")
# `read` ends with the pipe; the kernel may hold our files a moment longer
_KEEPER = (
    'trap "" HUP INT TERM; cd /; read -r _; n=0;'
    ' while [ -d "$1" ] && ! rmdir "$1" 2>/dev/null && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done'
)


def own_name() -> str:
    """What an instance of this process is called."""
    return f"ioflusher-watch-{os.getpid()}-{_started(os.getpid())}-{_namespace()}"


def sweep(tracefs: Path = TRACEFS) -> list[str]:
    """Remove the instances that processes of this PID namespace left behind; their names.

    Raises:
        OSError: where there is no tracefs, or it may not be looked at.
    """
    removed = []
    for name in sorted(os.listdir(tracefs / "instances")):
        found = _NAME.fullmatch(name)
        if found is None or int(found["namespace"]) != _namespace():
            continue
        if _started(int(found["pid"])) == int(found["started"]):
            continue  # it lives
        with contextlib.suppress(OSError):  # somebody else's keeper was faster
            os.rmdir(tracefs / "instances" / name)
            removed.append(name)
    return removed


def _started(pid: int) -> int | None:
    try:
        return parse_start_time(Path(f"/proc/{pid}/stat").read_bytes())
    except OSError:
        return None


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


class OwnInstance:
    """The instance of this process, with what removes it.

    Raises:
        OSError: without tracefs, or without the right to make an instance there.
    """

    def __init__(self, tracefs: Path = TRACEFS) -> None:
        self.directory = tracefs / "instances" / own_name()
        sweep(tracefs)
        # before there is anything to be removed
        self._keeper: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "sh", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.directory.mkdir()
            # nothing is recorded: the triggers count, and the buffer stays as small as it can be
            self.write("buffer_size_kb", "4")
        except OSError:
            self.close()
            raise

    def write(self, file: str, text: str, *, append: bool = False) -> None:
        """Write to a file of the instance.

        Raises:
            OSError: as the kernel says.
        """
        # Python's own "a" seeks, which these files refuse; without O_APPEND set_event_pid forgets what it has
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_APPEND if append else 0)
        descriptor = os.open(self.directory / file, flags)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def read(self, file: str) -> str:
        """A file of the instance."""
        return (self.directory / file).read_text()

    def has(self, file: str) -> bool:
        """Whether it has such a file."""
        return (self.directory / file).exists()

    def open(self, file: str) -> int:
        """A descriptor to read it over and over; whoever has it closes it before `close`."""
        return os.open(self.directory / file, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Remove it with everything in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()  # it ends, and tries once more
            self._keeper.wait()
            self._keeper = None
