"""Sections of code that run in the IO_FLUSHER state or out of it: memalloc_noio_save and _restore for users.

The state belongs to a thread. So do scopes: every thread keeps the chain of the scopes it is in, the
innermost on top, and the state is what the innermost asks for. A scope that is left before the inner ones
hands its own "before" to the one above it, so that nothing is lost and nothing stays behind; blocks report
that as an error, tokens are meant for it. A scope left on another thread is refused.
"""

from _thread import _local
from sys import _getframe

from ioflusher.flag.errors import ScopeError
from ioflusher.flag.state import get_io_flusher, set_io_flusher
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.syscalls import ONE, ZERO, prctl_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Self, TypeVar

    F = TypeVar("F", bound="Callable[..., Any]")

# The system calls that a scope makes, their arguments whole so that none is put together while it counts.
_GET = (PR_GET_IO_FLUSHER, ZERO, ZERO, ZERO, ZERO)
_SET = (PR_SET_IO_FLUSHER, ONE, ZERO, ZERO, ZERO)
_CLEAR = (PR_SET_IO_FLUSHER, ZERO, ZERO, ZERO, ZERO)

# Code flags of `async def` functions, with and without `yield` (inspect.CO_COROUTINE, CO_ASYNC_GENERATOR).
_ASYNC_CODE = 0x80 | 0x200
_USE_THE_DECORATOR = (
    "decorate the async function instead: @io_flusher() sets the state for each of its steps, "
    "on whichever thread the step runs, and clears it while the function waits"
)


class _Thread(_local):
    """What a thread knows of its own scopes: those it is in, the innermost last."""

    def __init__(self) -> None:
        self.scopes: list[FlusherScope] = []


_thread = _Thread()


class FlusherScope:
    """A section of one thread's time in the state (`io_flusher`) or out of it (`without_io_flusher`).

    A context manager and a decorator; an object is good for one section. Entering and leaving are written
    out for speed: two or three system calls, and little else.
    """

    _state = True
    _before: "bool | None" = None  # None: not entered yet

    def __enter__(self) -> "Self":
        if _getframe(1).f_code.co_flags & _ASYNC_CODE:
            # Other tasks of the thread would run with the state during an await, and the function could go
            # on elsewhere after it.
            raise ScopeError("a scope cannot be entered inside an async function", _USE_THE_DECORATOR)
        if self._before is not None:
            raise ScopeError("this scope was entered before", "make a new one for every use: io_flusher()")
        answer = prctl_raw(*_GET)
        before = answer == 1 if answer != -1 else get_io_flusher()
        # Nothing is asked of the kernel that is so already: that needs no privilege.
        if before is not self._state:
            try:
                if prctl_raw(*(_CLEAR if before else _SET)) == -1:
                    set_io_flusher(not before)  # fails again, and says why
            except BaseException:
                # Also a Ctrl-C just after the state was set: __exit__ is not called then.
                if get_io_flusher() is not before:
                    set_io_flusher(before)
                raise
        self._before = before
        _thread.scopes.append(self)
        return self

    def __exit__(self, _type: object = None, _error: object = None, _traceback: object = None) -> None:
        scopes = _thread.scopes
        if not scopes or scopes[-1] is not self:
            self._leave_late()
            raise ScopeError(
                "a scope was left before the scopes inside it; the innermost decides on the state",
                "leave scopes in the reverse order, or use noio_save() and noio_restore()",
            )
        scopes.pop()
        before = self._before
        if before is self._state and get_io_flusher() is before:
            return
        if prctl_raw(*(_SET if before else _CLEAR)) == -1:
            set_io_flusher(before is True)  # fails again, and says why

    def _leave_late(self) -> None:
        """Leave while inner scopes of this thread are open: the next one takes over what to go back to.

        Raises:
            ScopeError: on another thread than `__enter__`, which then is still in the scope's state.
        """
        scopes = _thread.scopes
        if self not in scopes:
            raise ScopeError(
                "this scope was not entered on this thread, or was left before; "
                "the thread that entered it keeps its state",
                "enter and leave a scope on one thread; the state cannot be changed from another",
            )
        place = scopes.index(self)
        scopes[place + 1]._before = self._before
        del scopes[place]

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

        return decorated(function, type(self))


class io_flusher(FlusherScope):
    """A scope in the IO_FLUSHER state: `with io_flusher():` or `@io_flusher()`.

    On leaving, also by an exception, the thread goes back to the state it had. Scopes nest, and threads do
    not see each other's. Enter and leave on one thread; in async functions use the decorator, which sets
    the state for each step on the thread that runs it.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`; never where the state is set already.
        ScopeError: inside an async function, on leaving on another thread or before an inner scope.
    """


class without_io_flusher(FlusherScope):
    """A scope out of the IO_FLUSHER state, for set-up work and for starting children that must not have it.

    A program that scans for devices, for one, fails with ENOMEM where it should wait for I/O. Else as
    `io_flusher`; without the state there is nothing to do, and no privilege is needed.
    """

    _state = False


def noio_save() -> FlusherScope:
    """Enter the IO_FLUSHER state and return a token for `noio_restore`, where a block does not fit.

    Tokens of one thread may be given back in any order; the state stays as long as one is out.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`; never where the state is set already.
    """
    return io_flusher().__enter__()


def noio_restore(token: FlusherScope) -> None:
    """Give back what `noio_save` returned, on the thread that called it.

    Raises:
        ScopeError: on another thread, or for a token that was given back before.
    """
    if _thread.scopes[-1:] == [token]:
        token.__exit__()
    else:
        token._leave_late()
