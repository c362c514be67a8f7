"""Decorated functions: plain calls and async steps run in the state, waiting does not."""

import asyncio
import contextlib
import errno
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.flag.conftest import FakeKernel

from ioflusher.flag import io_flusher, without_io_flusher
from ioflusher.flag.errors import NotPermittedError, ScopeError


def test_plain_function(kernel: FakeKernel) -> None:
    """Every call runs in the state; name, arguments and result are the function's own."""

    @io_flusher()
    def add(a: int, *, b: int) -> tuple[int, bool]:
        """Adds."""
        return a + b, kernel.mine

    assert add(1, b=2) == (3, True)
    assert add(3, b=4) == (7, True)
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert not kernel.mine


def test_recursion(kernel: FakeKernel) -> None:
    """A decorated function may call itself: scopes nest."""

    @io_flusher()
    def down(n: int) -> bool:
        return (n == 0 or down(n - 1)) and kernel.mine

    assert down(5)


def test_clearing_decorator(kernel: FakeKernel) -> None:
    """The opposite decorator runs a function out of the state of its caller."""

    @without_io_flusher()
    def scan() -> bool:
        return kernel.mine

    with io_flusher():
        assert scan() is False
        assert kernel.mine


def test_async_steps_run_in_the_state_and_waits_do_not(kernel: FakeKernel) -> None:
    """While the function waits, other tasks of the same thread run without its state."""
    seen: list[tuple[str, bool]] = []

    @io_flusher()
    async def flush() -> str:
        for _ in range(3):
            seen.append(("flush", kernel.mine))
            await asyncio.sleep(0)
        return "done"

    async def other() -> None:
        for _ in range(3):
            seen.append(("other", kernel.mine))
            await asyncio.sleep(0)

    async def main() -> tuple[Any, ...]:
        return tuple(await asyncio.gather(flush(), other(), flush()))

    assert asyncio.run(main()) == ("done", None, "done")
    assert {state for name, state in seen if name == "flush"} == {True}
    assert {state for name, state in seen if name == "other"} == {False}
    assert not kernel.mine


def test_a_task_that_goes_on_on_another_thread(kernel: FakeKernel) -> None:
    """The state follows the steps: on each thread it is set for the step and gone after it."""
    states: list[tuple[int, bool]] = []

    class Hop:
        def __await__(self) -> Generator[None, None, None]:
            yield

    @io_flusher()
    async def wandering() -> None:
        for _ in range(2):
            states.append((threading.get_ident(), kernel.mine))
            await Hop()

    coroutine: Any = wandering()

    def step() -> bool:
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
        return kernel.mine

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        after = [pool.submit(step).result(30) for pool in (first, second, first)]
    assert after == [False] * 3
    assert [state for _, state in states] == [True, True]
    assert len({thread for thread, _ in states}) == 2


def test_async_exceptions_and_cancellation(kernel: FakeKernel) -> None:
    """Errors thrown into the function arrive in the state; its own pass out; cancelling cleans up."""
    seen: list[tuple[str, bool]] = []

    @io_flusher()
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    @io_flusher()
    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(("cancelled", kernel.mine))
            raise
        finally:
            seen.append(("finally", kernel.mine))

    async def main() -> None:
        with pytest.raises(KeyError):
            await fail()
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait_for_ever(), 0.01)

    asyncio.run(main())
    assert seen == [("cancelled", True), ("finally", True)] * 2
    assert not kernel.mine


def test_closing_a_half_run_coroutine_runs_its_clean_up_in_the_state(kernel: FakeKernel) -> None:
    """close() reaches the function's finally, in the state, and leaves the thread as it was."""
    seen: list[bool] = []

    @io_flusher()
    async def flush() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append(kernel.mine)

    async def main() -> None:
        coroutine: Any = flush()
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert seen == [True]
    assert not kernel.mine


def test_async_without_the_capability(kernel: FakeKernel) -> None:
    """The function is not run, the error arrives where it is awaited, and nothing is left unawaited."""

    @io_flusher()
    async def flush() -> None:
        pytest.fail("the function ran")

    kernel.refusal = errno.EPERM
    with pytest.raises(NotPermittedError):
        asyncio.run(flush())


def test_coroutine_functions_stay_such(kernel: FakeKernel) -> None:
    """Frameworks that ask inspect still see an async function; a partial of one is one too."""

    async def flush(x: int) -> tuple[int, bool]:
        return x, kernel.mine

    decorated = io_flusher()(flush)
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(decorated(1)) == (1, True)
    assert asyncio.run(io_flusher()(functools.partial(flush, 2))()) == (2, True)


def test_generators_are_refused() -> None:
    """Their caller decides on which thread they go on, so decorating one is an error at once."""

    def plain() -> Generator[int, None, None]:
        yield 1

    async def asynchronous() -> AsyncGenerator[int, None]:
        yield 1

    for function in (plain, asynchronous):
        with pytest.raises(ScopeError, match="generator"):
            io_flusher()(function)


def test_work_that_would_escape_is_refused(kernel: FakeKernel) -> None:
    """A plain callable that returns a coroutine would do its work outside of the scope: told, not ignored."""

    class Hidden:
        async def __call__(self) -> None:
            pytest.fail("the work ran")

    with pytest.raises(ScopeError, match="outside of the scope"):
        io_flusher()(Hidden())()  # type: ignore[unused-coroutine]
    assert not kernel.mine
