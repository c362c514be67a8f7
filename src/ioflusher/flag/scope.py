"""Sections of code that run in the IO_FLUSHER state or out of it: memalloc_noio_save and _restore for users.

The state belongs to a thread. So do scopes: every thread keeps the chain of the scopes it is in, the
innermost on top, and the state is what the innermost asks for. A scope that is left before the inner ones
hands its own "before" to the one above it, so that nothing is lost and nothing stays behind; blocks report
that as an error, tokens are meant for it. A scope left on another thread is refused.
"""

import sys
from _thread import _local

from ioflusher.flag.errors import ScopeError
from ioflusher.flag.state import get_io_flusher, set_io_flusher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NoReturn, TypeVar

    F = TypeVar("F", bound="Callable[..., Any]")

# Code flags of `async def` functions, with and without `yield` (inspect.CO_COROUTINE, CO_ASYNC_GENERATOR).
_ASYNC_CODE = 0x80 | 0x200
_USE_THE_DECORATOR = (
    "decorate the async function instead: @io_flusher() sets the state for each of its steps, "
    "on whichever thread the step runs, and clears it while the function waits"
)


class _Thread(_local):
    """What a thread knows of its own scopes."""

    innermost: "NoioToken | None" = None


_thread = _Thread()


class NoioToken:
    """One section of one thread's time: the state it asks for and the state to go back to."""

    __slots__ = ("_before", "_changed", "_outer", "_state", "_used")

    def __init__(self, state: bool) -> None:
        self._state = state
        self._used = False

    def _begin(self) -> None:
        if self._used:
            raise ScopeError("this scope was entered before", "make a new one for every use: io_flusher()")
        self._before = get_io_flusher()
        # Nothing is asked of the kernel that is so already: that needs no privilege.
        self._changed = self._before is not self._state
        self._used = True
        self._outer = _thread.innermost
        if self._changed:
            set_io_flusher(self._state)
        _thread.innermost = self

    def _end(self) -> bool:
        """Go back to the state before; False where inner scopes of this thread are still open.

        Raises:
            ScopeError: on another thread than `_begin`, which then is still in the scope's state.
        """
        inner = _thread.innermost
        if inner is self:
            _thread.innermost = self._outer
            if self._changed or get_io_flusher() is not self._before:
                set_io_flusher(self._before)
            return True
        while inner is not None and inner._outer is not self:
            inner = inner._outer
        if inner is None:
            raise ScopeError(
                "this scope was not entered on this thread, or was left before; "
                "the thread that entered it keeps its state",
                "enter and leave a scope on one thread; the state cannot be changed from another",
            )
        inner._outer, inner._before, inner._changed = self._outer, self._before, True
        return False


class FlusherScope(NoioToken):
    """What `io_flusher()` and `without_io_flusher()` return: a context manager and a decorator."""

    __slots__ = ()

    def __enter__(self) -> None:
        if sys._getframe(1).f_code.co_flags & _ASYNC_CODE:
            # Other tasks of the thread would run with the state during an await, and the function could go
            # on elsewhere after it.
            raise ScopeError("a scope cannot be entered inside an async function", _USE_THE_DECORATOR)
        try:
            self._begin()
        except BaseException:
            # Also a Ctrl-C between setting the state and the block: __exit__ is not called then.
            if _thread.innermost is self:
                self._end()
            raise

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        if not self._end():
            raise ScopeError(
                "a scope was left before the scopes inside it; the innermost decides on the state",
                "leave scopes in the reverse order, or use noio_save() and noio_restore()",
            )

    async def __aenter__(self) -> "NoReturn":
        raise ScopeError("`async with` cannot hold the state of a thread", _USE_THE_DECORATOR)

    async def __aexit__(self, *_: object) -> None:
        """Never reached; Python wants it to exist."""

    def __call__(self, function: "F") -> "F":
        """Decorate a plain or async function: every call, or every step of it, runs in its own scope.

        Raises:
            ScopeError: for a generator function, whose caller decides on which thread it goes on.
        """
        from ioflusher.flag.decorate import decorated

        return decorated(function, self._state)


def io_flusher() -> FlusherScope:
    """A scope in the IO_FLUSHER state: `with io_flusher():` or `@io_flusher()`.

    On leaving, also by an exception, the thread goes back to the state it had. Scopes nest, and threads do
    not see each other's. Enter and leave on one thread; in async functions use the decorator, which sets
    the state for each step on the thread that runs it.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`; never where the state is set already.
        ScopeError: inside an async function, on leaving on another thread or before an inner scope.
    """
    return FlusherScope(True)


def without_io_flusher() -> FlusherScope:
    """A scope out of the IO_FLUSHER state, for set-up work and for starting children that must not have it.

    A program that scans for devices, for one, fails with ENOMEM where it should wait for I/O. Else as
    `io_flusher`; without the state there is nothing to do, and no privilege is needed.
    """
    return FlusherScope(False)


def noio_save() -> NoioToken:
    """Enter the IO_FLUSHER state and return a token for `noio_restore`, where a block does not fit.

    Tokens of one thread may be given back in any order; the state stays as long as one is out.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`; never where the state is set already.
    """
    token = NoioToken(True)
    token._begin()
    return token


def noio_restore(token: NoioToken) -> None:
    """Give back what `noio_save` returned, on the thread that called it.

    Raises:
        ScopeError: on another thread, or for a token that was given back before.
    """
    token._end()
