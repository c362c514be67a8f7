"""Scopes: they nest, restore, belong to threads, and refuse what could leave the state on the wrong one."""

import errno
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flag.conftest import FakeKernel

from ioflusher.flag import scope as scope_room
from ioflusher.flag import state as room
from ioflusher.flag.errors import NotPermittedError, ScopeError
from ioflusher.flag.scope import (
    FlusherScope,
    io_flusher,
    noio_restore,
    noio_save,
    without_io_flusher,
)
from ioflusher.kernel.prctl import PR_SET_IO_FLUSHER


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread of its own and pass on what it raises."""
    failure: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if failure:
        raise failure[0]


def test_scope_sets_and_restores(kernel: FakeKernel) -> None:
    """Inside the block the thread carries the state, behind it not."""
    with io_flusher():
        assert kernel.mine
    assert not kernel.mine


def test_scope_restores_on_an_exception(kernel: FakeKernel) -> None:
    """An exception passes through unchanged and the state is restored."""

    @io_flusher()
    def fail() -> None:
        assert kernel.mine
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not kernel.mine


def test_scopes_nest(kernel: FakeKernel) -> None:
    """The inner scope's end does not take the outer scope's state; a clearing scope inside gives it back."""
    with io_flusher():
        with io_flusher():
            pass
        assert kernel.mine
        with without_io_flusher():
            assert not kernel.mine
            with io_flusher():
                assert kernel.mine
            assert not kernel.mine
        assert kernel.mine


def test_scope_undoes_what_the_block_did_by_hand(kernel: FakeKernel) -> None:
    """As memalloc_noio_restore: also a state changed inside, by whomever, goes back to what was before."""
    with io_flusher(), io_flusher():
        room.set_io_flusher(False)
    assert not kernel.mine
    with without_io_flusher():
        room.set_io_flusher(True)
    assert not kernel.mine


def test_nothing_is_asked_for_that_is_so_already(kernel: FakeKernel) -> None:
    """In the state already, or out of it already, no privilege is needed: nothing is set."""
    with io_flusher():
        kernel.calls.clear()
        kernel.refusal = errno.EPERM
        with io_flusher():
            assert kernel.mine
        assert not [call for call in kernel.calls if call[0] == PR_SET_IO_FLUSHER]
        kernel.refusal = 0
    kernel.calls.clear()
    kernel.refusal = errno.EPERM
    with without_io_flusher():
        pass
    assert not [call for call in kernel.calls if call[0] == PR_SET_IO_FLUSHER]


def test_scope_that_cannot_be_entered_runs_no_block(kernel: FakeKernel) -> None:
    """Without the capability the block is not run, and the next scope starts from a clean thread."""
    kernel.refusal = errno.EPERM
    with pytest.raises(NotPermittedError), io_flusher():
        pytest.fail("the block ran")
    kernel.refusal = 0
    with io_flusher():
        assert kernel.mine


def test_privilege_lost_inside_is_told_on_leaving(kernel: FakeKernel) -> None:
    """Where the state cannot be restored the caller is told, and the thread's chain stays sound."""
    with pytest.raises(NotPermittedError, match="clear"), io_flusher():
        kernel.refusal = errno.EPERM
    assert kernel.mine
    kernel.refusal = 0
    with without_io_flusher():
        assert not kernel.mine
    room.set_io_flusher(False)


def test_threads_do_not_see_each_other(kernel: FakeKernel) -> None:
    """A scope in one thread neither sets nor clears anything in another, however they overlap."""
    barrier = threading.Barrier(4, timeout=30)

    def work() -> None:
        for _ in range(20):
            barrier.wait()
            with io_flusher():
                barrier.wait()
                assert kernel.mine
            assert not kernel.mine

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytest.raises(AssertionError):
        assert kernel.mine
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_leaving_on_another_thread_is_refused(kernel: FakeKernel) -> None:
    """The other thread's state is not touched; the thread that entered can still leave."""
    scope = io_flusher()
    scope.__enter__()

    def leave() -> None:
        with pytest.raises(ScopeError, match="not entered on this thread"):
            scope.__exit__(None, None, None)
        assert not kernel.mine

    in_thread(leave)
    assert kernel.mine
    scope.__exit__(None, None, None)


def test_leaving_twice_and_entering_twice_are_refused(kernel: FakeKernel) -> None:
    """A scope is good for one section of time."""
    scope = io_flusher()
    with scope:
        pass
    with pytest.raises(ScopeError, match="entered before"), scope:
        pass
    with pytest.raises(ScopeError, match="left before"):
        scope.__exit__(None, None, None)
    assert not kernel.mine


def test_blocks_left_out_of_order_are_told_and_lose_nothing(kernel: FakeKernel) -> None:
    """The inner scope keeps its state until it ends, then the thread is where the outer began."""
    outer, inner = io_flusher(), io_flusher()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(ScopeError, match="before the scopes inside"):
        outer.__exit__(None, None, None)
    assert kernel.mine
    inner.__exit__(None, None, None)
    assert not kernel.mine


def test_tokens_may_come_back_in_any_order(kernel: FakeKernel) -> None:
    """The state stays as long as one token is out."""
    first, second = noio_save(), noio_save()
    noio_restore(first)
    assert kernel.mine
    noio_restore(second)
    assert not kernel.mine
    with pytest.raises(ScopeError):
        noio_restore(second)


def test_a_block_inside_an_async_function_is_refused(kernel: FakeKernel) -> None:
    """Python cannot tell whether an await follows, so the block is refused and the decorator named."""

    async def task() -> None:
        with io_flusher():
            pytest.fail("the block ran")

    with pytest.raises(ScopeError) as caught:
        task().send(None)
    assert "decorate" in (caught.value.hint or "")
    assert not kernel.calls


def test_async_with_is_refused(kernel: FakeKernel) -> None:
    """A thread's state cannot be held across waits, so `async with` says what to do instead."""

    async def task() -> None:
        async with io_flusher():
            pytest.fail("the block ran")

    with pytest.raises(ScopeError, match="async with"):
        task().send(None)
    assert not kernel.calls


def test_exit_stack_works(kernel: FakeKernel) -> None:
    """Scopes go with contextlib."""
    with ExitStack() as stack:
        stack.enter_context(io_flusher())
        stack.enter_context(without_io_flusher())
        assert not kernel.mine
    assert not kernel.mine


def test_an_interrupt_while_entering_leaves_nothing(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C after the state was set, before the block, is undone."""

    def interrupted(option: int, *words: object) -> int:
        result = kernel.prctl_raw(option, *words)
        if option == PR_SET_IO_FLUSHER:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(scope_room, "prctl_raw", interrupted)
    with pytest.raises(KeyboardInterrupt), io_flusher():
        pytest.fail("the block ran")
    assert not kernel.mine
    monkeypatch.setattr(scope_room, "prctl_raw", kernel.prctl_raw)
    with io_flusher():
        assert kernel.mine


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("by hand"), st.booleans()),
    ),
    max_size=40,
)


@given(steps=STEPS, start=st.booleans())
def test_any_order_of_entering_and_leaving(steps: list[tuple[str, int]], start: bool) -> None:
    """The innermost open section decides; when all are closed, in any order, the first state is back.

    Between, a hand may set the state: then it lasts until the innermost section ends.
    """
    with pytest.MonkeyPatch.context() as patch:
        fake = FakeKernel()
        patch.setattr(room, "prctl", fake.prctl)
        patch.setattr(room, "prctl_raw", fake.prctl_raw)
        patch.setattr(scope_room, "prctl_raw", fake.prctl_raw)
        room.set_io_flusher(start)
        open_sections: list[tuple[FlusherScope, bool]] = []
        expected = start
        for step, value in steps:
            if step == "enter":
                section: FlusherScope = io_flusher() if value else without_io_flusher()
                section.__enter__()
                # the model: a section remembers what it found
                open_sections.append((section, expected))
                expected = bool(value)
            elif step == "leave" and open_sections:
                position = value % len(open_sections)
                section, before = open_sections.pop(position)
                noio_restore(section)
                if position == len(open_sections):
                    expected = before
                else:
                    above, _ = open_sections[position]
                    open_sections[position] = (above, before)
            elif step == "by hand":
                room.set_io_flusher(bool(value))
                expected = bool(value)
            assert fake.mine is expected
        while open_sections:
            section, expected = open_sections.pop()
            noio_restore(section)
            assert fake.mine is expected
        if not any(step == "by hand" for step, _ in steps):
            assert fake.mine is start
