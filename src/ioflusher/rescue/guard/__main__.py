"""The process that a guard is: python -m ioflusher.rescue.guard SETTINGS.

It starts itself anew with an allocator that gets all of its memory at the beginning and gives none back
(mallopt(3)): every later allocation is from memory that is there and locked.
"""

import contextlib
import os
import signal
import sys

from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.guard.service import Guard, warm_up
from ioflusher.rescue.guard.settings import load_settings
from ioflusher.rescue.protection import protect

HEAP = 16 << 20  # bytes, beyond what loading takes
ALLOCATOR = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(HEAP),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}


def say(text: str) -> None:
    """One line, for the journal."""
    with contextlib.suppress(OSError):  # who reads it is gone; acting goes on
        os.write(2, f"ioflusher guard: {text}\n".encode(errors="backslashreplace"))


def end(number: int, _: object) -> None:
    """A signal that ends it."""
    raise SystemExit(128 + number if number != signal.SIGTERM else 0)


def main() -> None:
    """Become the guard."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        argv = [sys.executable, "-m", "ioflusher.rescue.guard", *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **ALLOCATOR})
    settings = load_settings(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # whoever started it may have blocked them, and a blocked signal stays blocked across exec
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    warm_up()
    for trouble in protect(settings.priority):
        say(f"goes on without it: {trouble}")
    try:
        Guard(settings, say).run()
    except RescueError as error:
        say(f"{error}" + (f"; {error.hint}" if error.hint else ""))
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
