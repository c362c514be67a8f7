"""Functions that run in or out of the IO_FLUSHER state: what `@io_flusher()` makes of a function."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

from ioflusher.flag.errors import FlagError, ScopeError

Scope = Callable[[], AbstractContextManager[object]]  # makes a new scope for every use
F = TypeVar("F", bound=Callable[..., Any])


def decorated(function: F, scope: Scope) -> F:
    """`function`, with every call of a plain one and every step of an async one in a scope of its own.

    Raises:
        ScopeError: for generator functions.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ScopeError(
            "a generator cannot be decorated: its caller decides where and when it goes on",
            "put the work between two yields into a function and decorate that",
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def by_steps(*args: Any, **kwargs: Any) -> Any:
            return await _Steps(function(*args, **kwargs), scope)

        return cast(F, by_steps)

    @functools.wraps(function)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        with scope():
            result = function(*args, **kwargs)
        if isinstance(result, Awaitable | Generator):
            # Its work would run after the scope: a callable object that hides an async function, say.
            if isinstance(result, Coroutine | Generator):
                result.close()
            raise ScopeError(
                f"the decorated {type(function).__name__} returned a {type(result).__name__}, "
                "whose work would run outside of the scope",
                "decorate the async function itself, or a plain function that does the work",
            )
        return result

    return cast(F, at_once)


class _Steps:
    """Awaits a coroutine with the state set during its steps and restored while it waits.

    An event loop runs other tasks of the same thread while one waits, and some loops resume a task on
    another thread: only the steps belong to the function.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], scope: Scope) -> None:
        self._coroutine = coroutine
        self._scope = scope

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        try:
            while True:
                try:
                    with self._scope():
                        waits_for = step()
                except StopIteration as stop:
                    return stop.value
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = functools.partial(self._coroutine.throw, error)
                else:
                    step = functools.partial(self._coroutine.send, answer)
        finally:
            self._close()

    def _close(self) -> None:
        """Let an unfinished coroutine clean up; without the state where that is what failed."""
        try:
            with self._scope():
                self._coroutine.close()
        except FlagError:
            self._coroutine.close()
