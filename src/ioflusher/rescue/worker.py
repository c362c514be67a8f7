"""A thread that is there before it is needed: an action that hangs must not hang who watches for it."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

Result = TypeVar("Result")

STACK = 1 << 18  # bytes; in locked memory a thread has all of its stack


class Worker:
    """Runs what it is given, one thing after another."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], object], Future[object]] | None] = (
            queue.SimpleQueue()
        )
        before = threading.stack_size(STACK)
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        finally:
            threading.stack_size(before)

    def begin(self, action: Callable[[], Result]) -> "Future[Result]":
        """Have it done; the future has what it returns or raises."""
        future: Future[Result] = Future()
        self._work.put((action, cast("Future[object]", future)))
        return future

    def end(self) -> None:
        """Have the thread end, once what it does is done."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            action, future = work
            try:
                future.set_result(action())
            except Exception as error:  # handed on by the future
                future.set_exception(error)
