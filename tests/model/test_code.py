"""Programs are written as they read: calls nest, choices come together, loops go round."""

from ioflusher.kernel.task_flags import PF_MEMALLOC
from ioflusher.model.code import Code
from ioflusher.model.transitions import Variable


def test_a_step_has_the_stack_of_its_callers() -> None:
    """The innermost function comes first, as in a kernel's stack."""
    written = Variable("written", 0, 1)
    code = Code()
    with code.call("ksys_write", "vfs_write"), code.call("generic_perform_write"):
        code.step("writes", {written: 1})
    code.step("returns")
    first, second = code.program("writer", 1).steps
    assert first.calls == ("generic_perform_write", "vfs_write", "ksys_write")
    assert second.calls == ()


def test_flags_nest() -> None:
    """What a scope sets is there inside it alone."""
    code = Code()
    with code.with_flags(PF_MEMALLOC):
        assert code.flags == PF_MEMALLOC
    assert code.flags == 0


def test_ways_come_together() -> None:
    """A choice leads to one point behind it, whichever way was gone; otherwise is what no other way asked."""
    free = Variable("free", 1, 2)
    code = Code()
    with code.choice() as ways:
        with ways.way("takes", {free: free - 1}, when=free > 0):
            pass
        with ways.otherwise("waits", takes_ns=5):
            pass
    code.step("goes on")
    takes, waits, on = code.program("task", 1).steps
    assert takes.to == waits.to == on.at
    assert repr(waits.when) == "((free > 0) == 0)"


def test_a_loop_begins_again_and_is_left() -> None:
    """Its last point is its first; what leaves it goes on behind it; nothing comes behind an endless one."""
    free = Variable("free", 0, 2)
    code = Code()
    with code.loop(), code.choice() as ways:
        with ways.way("leaves", when=free > 1):
            code.leave()
        with ways.otherwise("one more", {free: free + 1}):
            pass
    code.step("done")
    leaves, more = code.program("task", 1).steps
    assert (more.at, more.to) == (0, 0)
    assert leaves.label == "leaves, done", "a decision and the unconditional step behind it are one"

    endless = Code()
    with endless.loop():
        endless.step("again")
    endless.step("never")
    assert [step.label for step in endless.program("task", 1).steps] == ["again"]


def test_a_wait_keeps_its_stack() -> None:
    """It is not made one with what comes behind it: a task that waits shows where."""
    free = Variable("free", 0, 2)
    code = Code()
    with code.call("mempool_alloc"):
        code.wait(free > 0, "an element")
    code.step("goes on")
    wait, on = code.program("task", 1).steps
    assert (wait.calls, wait.waits_for, wait.to) == (("mempool_alloc",), "an element", on.at)


def test_several_loops_are_left_at_once() -> None:
    """A task that ends goes on behind the loop around its loop."""
    code = Code()
    left = Variable("left", 1, 1)
    with code.loop():
        with code.loop(), code.choice() as ways:
            with ways.way("ends", when=left > 0):
                code.leave(2)
            with ways.otherwise("goes round"):
                pass
        code.step("never")
    code.step("is behind both")
    program = code.program("one", 1)
    assert {step.label for step in program.steps} == {"ends, is behind both", "goes round"}


def test_a_task_that_is_over_rests() -> None:
    """It counts as done, and nothing comes behind."""
    code = Code()
    code.step("works")
    code.end()
    code.step("never")
    program = code.program("one", 1, works=True)
    assert [step.label for step in program.steps] == ["works"]
    assert program.rests == {program.steps[0].to}
