"""Threads, pools and children that run in the IO_FLUSHER state, or surely out of it.

A thread inherits the state of the thread that starts it, a child that of the thread that forks it. Pools
start their workers when work arrives, from whichever thread hands it in: so the workers set the state
themselves. Where one cannot, the caller gets an error.
"""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ioflusher.flag.scope import io_flusher, without_io_flusher
from ioflusher.flag.state import get_io_flusher, set_io_flusher

if TYPE_CHECKING:
    import asyncio
    import subprocess

P = ParamSpec("P")
T = TypeVar("T")


def _take_state() -> None:
    """Set the state, unless the thread inherited it: then a daemon may have given up the privilege."""
    if not get_io_flusher():
        set_io_flusher(True)


def flush_worker(initializer: Callable[..., object] | None = None, *initargs: Any) -> None:
    """Set the state on a pool's worker, then call `initializer(*initargs)`.

    An `initializer=` for ThreadPoolExecutor, ProcessPoolExecutor and multiprocessing.Pool; one of your own
    goes into `initargs=`. Where the state cannot be set a pool of concurrent.futures breaks, and says so.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`.
    """
    _take_state()
    if initializer is not None:
        initializer(*initargs)


def flusher_executor(
    max_workers: int | None = None, thread_name_prefix: str = "flusher"
) -> ThreadPoolExecutor:
    """A thread pool all of whose workers carry the state."""
    return ThreadPoolExecutor(max_workers, thread_name_prefix, initializer=flush_worker)


def set_flusher_executor(
    loop: "asyncio.AbstractEventLoop | None" = None, max_workers: int | None = None
) -> ThreadPoolExecutor:
    """Make a pool of covered threads the event loop's default executor, and return it.

    `loop` None is the running one. What `asyncio.to_thread` and `loop.run_in_executor(None, ...)` run, and
    the loop's look-ups of host names, then carry the state. The loop's own thread is not touched.

    Raises:
        RuntimeError: where no loop was given and none runs.
    """
    import asyncio

    executor = flusher_executor(max_workers, "asyncio-flusher")
    (loop or asyncio.get_running_loop()).set_default_executor(executor)
    return executor


class FlusherThread(threading.Thread):
    """A thread that carries the state from its first line on; also where a subclass overrides `run`.

    `start` returns when the state is set.

    Raises (from `start`, in the thread that calls it; `run` then is not run):
        NotPermittedError, NotSupportedError: see `set_io_flusher`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "run" in cls.__dict__:
            cls.run = _covered(cls.__dict__["run"])  # type: ignore[assignment]

    def start(self) -> None:
        """Start the thread and wait until it carries the state."""
        self._decided = threading.Event()
        self._failure: Exception | None = None
        super().start()
        self._decided.wait()
        if self._failure is not None:
            self.join()
            raise self._failure

    def run(self) -> None:
        """Set the state, then do what `threading.Thread` does."""
        if self._covers_itself():
            super().run()

    def _covers_itself(self) -> bool:
        """Set the state once and wake up `start`; False where it could not be set."""
        if not self._decided.is_set():
            try:
                _take_state()
            except Exception as error:
                self._failure = error
            self._decided.set()
        return self._failure is None


def _covered(run: Callable[[FlusherThread], None]) -> Callable[[FlusherThread], None]:
    """A subclass's `run`, which is reached only with the state set."""

    @functools.wraps(run)
    def covered(self: FlusherThread) -> None:
        if self._covers_itself():
            run(self)

    return covered


def call_flushed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in the state: a target for multiprocessing.Process, whatever its start method.

    A fork server's children, for one, inherit nothing from the thread that asks for them.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`.
    """
    with io_flusher():
        return function(*args, **kwargs)


def call_cleared(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` out of the state, as `call_flushed` calls it in the state."""
    with without_io_flusher():
        return function(*args, **kwargs)


def popen(args: Any, *, state: bool, **kwargs: Any) -> "subprocess.Popen[Any]":
    """`subprocess.Popen(args, **kwargs)`, the child in the state or surely out of it.

    The calling thread takes the wanted state while it forks, since the child inherits that, and goes back. No
    code of ours runs between fork and exec.

    Raises:
        NotPermittedError, NotSupportedError: where the calling thread cannot take the wanted state.
        OSError: see `subprocess.Popen`.
    """
    import subprocess

    with io_flusher() if state else without_io_flusher():
        return subprocess.Popen(args, **kwargs)
