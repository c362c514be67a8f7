"""A real guest, frozen: what its memory says, read from outside, is what the observer in it says."""

import pytest

from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.lab.experiment import run_half
from ioflusher.lab.memory.evidence import GuestMemory, MemoryQuestion
from ioflusher.lab.messages import DeviceFrozen, GuestReport, RunCommand, ThreadReport, WorkBegan
from ioflusher.lab.outcome import HalfOutcome
from ioflusher.lab.session import Guest, Lab
from ioflusher.lab.vm import Ended, VirtualMachine
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

pytestmark = [pytest.mark.vm]


def calls(thread: ThreadReport) -> list[tuple[str, int | None, str | None]]:
    """Functions, offsets and modules of a stack; a symbol's size has another end in a module's own table."""
    return [(frame.function, frame.offset, frame.module) for frame in parse_proc_stack(thread.stack)]


def test_memory_says_what_the_observer_says(lab: Lab) -> None:
    """Threads, flags, stacks, requests and memory are equal, read right after the observer's look."""
    text = builtin_scenarios()["ext4-on-nbd-throttled"]
    assert "stalled_s = 8\n" in text
    scenario = parse_scenario(text.replace("stalled_s = 8\n", "stalled_s = 2\n"))
    machines: list[VirtualMachine] = []
    seen: list[tuple[WorkBegan, DeviceFrozen, GuestMemory]] = []
    begun: list[WorkBegan] = []

    def on_machine(machine: object) -> None:
        assert isinstance(machine, VirtualMachine)
        machines.append(machine)

    def on_report(_: bool, report: GuestReport) -> None:
        if isinstance(report, WorkBegan):
            begun.append(report)
        elif isinstance(report, DeviceFrozen):
            daemons = tuple({thread.pid for thread in report.threads})
            memory = machines[0].read_memory(MemoryQuestion(daemons, begun[0].device))
            seen.append((begun[0], report, memory))

    half = run_half(lab, scenario, io_flusher=False, on_machine=on_machine, on_report=on_report)
    assert half.outcome is HalfOutcome.FROZEN
    ((began, told, memory),) = seen
    assert (memory.unreadable, memory.missing) == ("", ())
    assert began.device == "/dev/nbd0"
    assert began.completed_before is not None
    assert memory.in_flight == told.in_flight > 0
    assert memory.completed == began.completed_before + told.completed
    ours = {thread.tid: thread for thread in memory.daemon}
    assert set(ours) == {thread.tid for thread in told.threads}
    asleep = 0
    for theirs in told.threads:
        thread = ours[theirs.tid]
        assert (thread.pid, thread.comm, thread.flags) == (theirs.pid, theirs.comm, theirs.flags)
        assert thread.stack, thread
        # one that is throttled wakes now and then; what sleeps sleeps in the same place
        if theirs.state == thread.state:
            assert calls(thread) == calls(theirs)
            asleep += 1
    assert asleep
    assert {task.comm for task in memory.waiting} >= {
        task.comm for task in told.waiting if "jbd2" in task.comm
    }
    for name in ("MemTotal", "Writeback", "SwapTotal"):
        assert memory.memory_kib[name] == told.memory_kib[name], name
    assert memory.memory_kib["MemFree"] == pytest.approx(told.memory_kib["MemFree"], abs=4096)


def test_a_machine_that_ends_on_its_own_leaves_its_memory(lab: Lab) -> None:
    """Reset before its kernel ran: it is held until its memory is dumped, then it ends."""
    guest = Guest(memory_bytes=64 << 20, keep_memory=True)
    with lab.boot(guest, RunCommand(("true",), "/", {})) as machine:
        machine._monitor.ask("system_reset")
        assert machine.next_report(20) == Ended(0)
        assert machine.places.memory.stat().st_size > 64 << 20
        memory = machine.read_memory(MemoryQuestion())
        assert "no VMCOREINFO" in memory.unreadable, "the dump was read, and is of a machine without a kernel"
        assert not machine.places.memory.exists()
        assert "dump-guest-memory" in machine.read_memory(MemoryQuestion()).unreadable
