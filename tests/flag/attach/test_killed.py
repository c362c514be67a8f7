"""The tool dies half-way, at any moment: the target lives on unharmed, and the next tool can go on."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.flag.attach.conftest import (
    CALLED,
    DEADLY_STEP,
    FEED_MS,
    ROUNDS,
    WAIT_MS,
    Start,
    finish,
    outcomes,
    stopped,
)
from tests.needs import PERMITTED

from ioflusher.flag import thread_states
from ioflusher.flag.attach import ThreadResult, put_state, slots, tracee

pytestmark = [
    pytest.mark.live,
    pytest.mark.attach,
]


def dies_after(calls: int, pid: int) -> bool:
    """A tool that kills itself right after so many calls that change something; whether it came to that."""
    tool = os.fork()
    if tool:
        return os.waitpid(tool, 0)[1] == signal.SIGKILL
    left = calls

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal left
            result = call(*arguments)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    try:
        for room, name in ((tracee, "ptrace"), (tracee, "ptrace_set_registers"), (os, "pwrite")):
            setattr(room, name, deadly(getattr(room, name)))
        put_state(pid, True)
    finally:
        os._exit(0)


@pytest.mark.usefixtures("asked")
def test_whatever_call_the_tool_dies_after_the_target_lives_on(start: Start) -> None:
    """Each step of the work on each kind of wait is once the tool's last: no thread stays behind."""
    process = start("waits", "34", WAIT_MS, FEED_MS, "interruptible")
    calls = 1
    while dies_after(calls, process.pid) and calls < 400:
        assert process.poll() is None
        put_state(process.pid, False)  # so that the next has as much to do
        calls += DEADLY_STEP
    assert calls > 17 * 6  # seize, interrupt, write, go, call, let go: for every kind
    time.sleep(2 * int(WAIT_MS) / 1000)
    assert {state.state for state in thread_states(process.pid)} <= {"S", "R"}
    status, output = finish(process)
    assert (status, "FAIL" in output) == (0, False), output


@pytest.mark.usefixtures("asked")
def test_killed_at_any_moment_target_lives_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL leaves every thread running, none stopped, no call wrong, also if tool follows tool."""
    monkeypatch.setattr(slots, "_PER_MAPPING", 1)  # the places for code are used up soon, and used again
    process = start("waits", "68", WAIT_MS, FEED_MS, "interruptible")
    chance = random.Random(3)
    for _ in range(4 * ROUNDS):
        tool = os.fork()
        if tool == 0:
            try:
                for number in itertools.count():
                    put_state(process.pid, number % 2 == 0 or not PERMITTED)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.004 * int(FEED_MS) / 5))
        os.kill(tool, signal.SIGKILL)
        os.waitpid(tool, 0)
        assert process.poll() is None
    time.sleep(2 * int(WAIT_MS) / 1000)
    assert {state.state for state in thread_states(process.pid)} <= {"S", "R"}
    status, output = finish(process)
    assert (status, "FAIL" in output) == (0, False), output


@pytest.mark.usefixtures("asked")
def test_the_way_home_is_left_to_who_needs_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a stopped process a thread stays where a dead tool sent it; the next tool writes no code over that.

    There is one place for code here, so that the next tool can do nothing until the thread went home.
    """
    monkeypatch.setattr(slots, "_PER_MAPPING", 1)
    monkeypatch.setattr(slots, "_usable", lambda m: m.executable and m.path.endswith(b"/waits"))
    process = start("waits", "34", WAIT_MS, FEED_MS, "interruptible")
    refused = 0
    for calls in range(2, 12):
        with stopped(process):
            assert dies_after(calls, process.pid)
            found = outcomes(put_state(process.pid, True))
        assert found.keys() <= {CALLED, ThreadResult.ALREADY, ThreadResult.UNSUITABLE}
        refused += ThreadResult.UNSUITABLE in found
        time.sleep(2 * int(FEED_MS) / 1000)
        assert process.poll() is None
        again = outcomes(put_state(process.pid, True))
        assert again.keys() <= {CALLED, ThreadResult.ALREADY}
        put_state(process.pid, False)
    assert refused
    status, output = finish(process)
    assert (status, "FAIL" in output) == (0, False), output
