"""What the daemons here have in common: the state and other hardening as options, how they start and end."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ioflusher.errors import IoflusherError
from ioflusher.flag import set_io_flusher
from ioflusher.harden import RealtimePolicy, lock_memory, set_realtime

THREAD_STACK = 1 << 19  # bytes; locked memory has all of it
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def option_parser(name: str, description: str, *, store_required: bool = True) -> argparse.ArgumentParser:
    """The parser of a daemon's command line with the options of hardening."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument(
        "--store", metavar="FILE", required=store_required, help="the file or block device behind it"
    )
    parser.add_argument("--direct", action="store_true", help="bypass the page cache (O_DIRECT)")
    parser.add_argument(
        "--io-flusher",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="set the IO_FLUSHER state (default), or clear an inherited one; do not start where that fails",
    )
    parser.add_argument("--lock-memory", action="store_true", help="lock all memory (mlockall)")
    parser.add_argument("--realtime", type=int, metavar="N", default=0, help="SCHED_FIFO priority, 1 to 99")
    return parser


def take_state(options: argparse.Namespace) -> None:
    """Set the state, or clear it: first of all, for threads and the kernel's io_uring workers inherit it."""
    set_io_flusher(options.io_flusher)


def take_rest(options: argparse.Namespace) -> None:
    """What else was asked for, once all memory is there that will be needed."""
    if options.realtime:
        set_realtime(RealtimePolicy.FIFO, options.realtime)
    if options.lock_memory:
        lock_memory()


class Workers:
    """The threads that serve; the main thread waits for a signal, or for the first of them to fail."""

    def __init__(self) -> None:
        threading.stack_size(THREAD_STACK)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._threads: list[threading.Thread] = []
        self._failed = False

    def start(self, target: Callable[..., None], *arguments: Any) -> None:
        """Start a thread that serves until it returns."""

        def serve() -> None:
            try:
                target(*arguments)
            except BaseException as error:
                self._failed = True
                print(f"a thread that serves failed: {error!r}", file=sys.stderr, flush=True)
                signal.raise_signal(signal.SIGTERM)

        thread = threading.Thread(target=serve, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        """Return once SIGTERM or SIGINT came, or a thread failed."""
        signal.sigwait(SIGNALS)

    def join(self) -> int:
        """Wait for the threads; the exit status of the program."""
        for thread in self._threads:
            thread.join(timeout=5)
        return 1 if self._failed else 0


def run(main: Callable[[], int]) -> None:
    """Run the daemon's main function; an error is one line on standard error and exit status 2."""
    try:
        sys.exit(main())
    except (OSError, IoflusherError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
