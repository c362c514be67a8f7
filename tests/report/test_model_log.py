"""The log of a half that froze in the model: `ioflusher diagnose` comes to the model's own answer."""

import re

import pytest

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.model.halves import ModelHalf, daemons_of, play_half
from ioflusher.report.model_log import hung_task_log
from ioflusher.report.model_words import hardware_pids
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

SCENARIOS = builtin_scenarios()


def log_of(half: ModelHalf) -> bytes:
    return hung_task_log(half.result, half.system.version, hardware=hardware_pids(half)).encode()


def reaches(half: ModelHalf, start: int, end: int) -> bool:
    """Whether a task waits for another, by way of others or directly."""
    behind = {task.pid: task.behind for task in half.result.waiting}
    seen, queue = set(behind[start]), list(behind[start])
    while queue:
        for other in behind.get(queue.pop(), ()):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return end in seen


def number(name: str) -> int:
    """The number in "nbd-daemon (6)"."""
    return int(name.rpartition("(")[2].rstrip(")"))


@pytest.mark.parametrize("io_flusher", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_loop_is_closed(name: str, io_flusher: bool) -> None:
    """A recursion of the daemon that the model has frozen; who waits for whom there does so in the model."""
    scenario = parse_scenario(SCENARIOS[name])
    kernel = scenario.machine.kernel.split(".") if scenario.machine.kernel[:1].isdigit() else ["6", "12"]
    version = int(kernel[0]), int(kernel[1])
    half = play_half(scenario, io_flusher=io_flusher, version=version)
    if not half.frozen:
        return
    assert half.cycle, "a freeze without a circle"
    diagnosis = diagnose_log(log_of(half), daemons_of(half))
    assert not any(event.kind.value == "unread-stack" for event in diagnosis.events)
    found = [episode for episode in diagnosis.episodes if episode.recursion]
    assert found, "no recursion"
    circle = {task.pid for task in half.cycle}
    assert circle & {number(member) for episode in found for member in episode.cycle}
    for episode in found:
        for edge in episode.edges:
            assert reaches(half, number(edge.waiter), number(edge.giver)), f"{edge.waiter} -> {edge.giver}"


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ((5, 8), r"nbd-daemon      D    0     6      2 0x00000000"),
        ((5, 10), r"task:nbd-daemon      state:D stack:0     pid:6     ppid:2      flags:0x0{8}"),
        ((6, 14), r"task:nbd-daemon      state:D .* tgid:6     ppid:2      task_flags:0x0000 flags:0x0{8}"),
    ],
)
def test_every_task_that_waits_is_in_it(version: tuple[int, int], head: str) -> None:
    """As that version of the kernel writes it: stacks whole, hung ones with the time, nothing but tasks."""
    scenario = parse_scenario(SCENARIOS["ext4-on-nbd-throttled"])
    half = play_half(scenario, io_flusher=False, version=version)
    data = log_of(half)
    assert re.search(head, data.decode())
    release = ".".join(map(str, version))
    reports = task_reports(data)
    expected = {
        (task.pid, task.calls)
        for task in half.result.waiting
        if task.calls and task.pid not in hardware_pids(half)
    }
    assert {(one.tid, tuple(frame.function for frame in one.frames)) for one in reports} == expected
    for one in reports:
        assert one.kernel == f"{release}.0-model"
        assert all(frame.reliable and frame.offset is None for frame in one.frames)
    hung = {one.tid for one in reports if one.blocked_seconds == 120}
    assert hung == {task.pid for task in half.result.waiting if task.state == "D"}
