"""Put the state on every thread of a process that runs, or take it from them."""

import os
import signal
import threading
from collections.abc import Collection
from pathlib import Path

from ioflusher.flag.attach.arch import architecture
from ioflusher.flag.attach.outcome import ProcessOutcome
from ioflusher.flag.attach.tracer import Tracer
from ioflusher.flag.errors import FlagError


def put_state(
    pid: int,
    state: bool,
    *,
    threads: Collection[int] | None = None,
    lock_memory: bool = False,
    timeout: float = 5.0,
    dry_run: bool = False,
    proc: Path = Path("/proc"),
) -> ProcessOutcome:
    """Set (True) or clear (False) the IO_FLUSHER state on every thread of process `pid` while it runs.

    Each thread in turn is stopped by ptrace(2) for a fraction of a millisecond, makes the prctl call itself,
    and goes on; a system call in which it waited is resumed. This is repeated until a look at all threads
    finds none that could still be changed, so that threads that start meanwhile are covered. Threads that do
    not stop, in uninterruptible sleep, are waited for `timeout` seconds after the last one that did.
    With `threads` only those of these numbers are changed and told of.
    `lock_memory` has the process call mlockall too, in the way that `kernel.lock_plan.plan_lock` finds
    safe, or not at all. `dry_run` changes nothing.

    Meant for a process of its own, such as `ioflusher set`: it waits for traced threads, and other code that
    waits for any child could take their reports away. Where the caller dies, the target goes on unharmed.

    Raises:
        NoSuchProcessError: where there is no such process.
        NotSupportedError: on a processor that `kernel.processors` has no row for.
        FlagError: for the calling process itself and for kernel threads.
    """
    here = architecture()
    if pid == os.getpid():
        raise FlagError("a process cannot trace itself", hint="use set_io_flusher() in each thread")
    tracer = Tracer(pid, state, here, threads, lock_memory, timeout, dry_run, proc)
    # SIGCHLD wakes up who waits for a tracee; a thread inherits the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    # The tracer is a thread, not a process: when it ends the kernel lets go whatever is still traced.
    thread = threading.Thread(target=tracer.run, name="tracer")
    try:
        thread.start()
        thread.join()
    finally:
        tracer.cancelled = True
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return tracer.outcome()
