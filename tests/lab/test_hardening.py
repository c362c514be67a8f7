"""What a daemon has besides the state: which threads carry it, and what is done from outside."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ioflusher.flag.errors import FlagError
from ioflusher.flag.threads import thread_states
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE, PF_MEMALLOC_NOIO
from ioflusher.lab.experiment import run_half
from ioflusher.lab.follower import Follower
from ioflusher.lab.guest import hardening, stage
from ioflusher.lab.guest.cgroups import Groups
from ioflusher.lab.guest.hardening import bearers, harden, in_child
from ioflusher.lab.guest.processes import Processes, SetupFailed
from ioflusher.lab.messages import Hardened, PlayHalf
from ioflusher.lab.outcome import HalfOutcome
from ioflusher.lab.recording import RecordedMachine, Said
from ioflusher.lab.session import Lab
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import HardeningTable, KernelTable
from tests.lab.test_recordings import recording

BOTH = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE


def thread(tid: int, flags: int = 0) -> Thread:
    """A thread with these flags."""
    (ours,) = thread_states(os.getpid())[:1]
    return replace(ours, tid=tid, flags=flags, state="S")


def test_who_carries_the_state() -> None:
    """All, the first alone, or all but the one that was started last."""
    threads = [thread(12), thread(10), thread(11)]
    assert bearers("all", threads) == {10, 11, 12}
    assert bearers("first-thread", threads) == {10}
    assert bearers("all-but-last", threads) == {10, 11}
    assert bearers("all", threads[:1]) == {12}
    for which in ("first-thread", "all-but-last"):
        with pytest.raises(SetupFailed, match="needs a daemon of several threads, it has one"):
            bearers(which, threads[:1])


@pytest.mark.parametrize(
    ("which", "io_flusher", "has", "put"),
    [
        ("all", True, [BOTH, BOTH, BOTH], []),
        ("all", True, [0, BOTH, PF_LOCAL_THROTTLE], [(True, {1, 3})]),
        ("all", False, [0, 0, 0], []),
        ("all", False, [0, BOTH, PF_LOCAL_THROTTLE], [(False, {2, 3})]),
        ("first-thread", True, [0, 0, 0], [(True, {1})]),
        ("first-thread", False, [0, 0, 0], []),
        ("all-but-last", True, [0, BOTH, BOTH], [(False, {3}), (True, {1})]),
    ],
)
def test_the_state_is_what_the_half_says(
    which: Any, io_flusher: bool, has: list[int], put: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the daemon did itself, in the half without the state, too; who is right is let alone."""
    done: list[tuple[bool, frozenset[int]]] = []
    threads = tuple(thread(tid, flags) for tid, flags in enumerate(has, 1))
    monkeypatch.setattr(hardening, "thread_states", lambda pid: threads)
    monkeypatch.setattr(hardening, "_named", str)
    monkeypatch.setattr(hardening, "_put_state", lambda pid, state, tids: done.append((state, tids)))
    said = harden(HardeningTable(state=which), [7], [7] if io_flusher else [])
    assert done == put
    bear = len(bearers(which, threads)) if io_flusher else 0
    assert said == ((f"the state put on {bear} of 3 threads of 7",) if put else ())


def test_memory_is_locked_by_threads_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking changes no thread's state; a daemon that has locked its memory is let alone."""
    asked: list[Any] = []
    threads = (thread(1, BOTH), thread(2), thread(3, BOTH))
    monkeypatch.setattr(hardening, "thread_states", lambda pid: threads)
    monkeypatch.setattr(hardening, "in_child", lambda work: work())

    def put_state(pid: int, state: bool, **options: Any) -> Any:
        asked.append((pid, state, set(options["threads"]), options["lock_memory"]))
        raise FlagError("not here")

    monkeypatch.setattr("ioflusher.flag.attach.put_state", put_state)
    with subprocess.Popen(["sleep", "60"]) as daemon:
        table = HardeningTable(state="all", lock_memory=True)
        for io_flusher in (True, False):
            monkeypatch.setattr(hardening, "_state", lambda *_: [])
            with pytest.raises(SetupFailed, match=f"hardening of the daemon {daemon.pid}: not here"):
                harden(table, [daemon.pid], [daemon.pid] if io_flusher else [])
        daemon.kill()
    assert asked == [(daemon.pid, True, {1, 3}, True), (daemon.pid, False, {2}, True)]


LOCKS = "import sys; from ioflusher.kernel.syscalls import mlockall; mlockall(1); print(flush=True); input()"


def test_what_a_daemon_does_itself_is_told() -> None:
    """VmLck says that it has locked its memory; oom_score_adj is written for its process."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout is not None
        if not daemon.stdout.readline():
            pytest.skip("memory may not be locked here")
        said = harden(HardeningTable(lock_memory=True, oom_score_adj=500), [daemon.pid], ())
        assert said[0].startswith(f"memory of {daemon.pid} (python")
        assert "locked by itself: " in said[0]
        assert said[1].startswith(f"oom_score_adj 500 for {daemon.pid} (python")
        assert Path(f"/proc/{daemon.pid}/oom_score_adj").read_text().strip() == "500"
        daemon.kill()
    with pytest.raises(SetupFailed, match=f"hardening of the daemon {daemon.pid}: "):
        harden(HardeningTable(), [daemon.pid], ())


def test_a_child_may_end_meanwhile() -> None:
    """One that the daemon had started is let alone; the daemon itself must be there."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert harden(HardeningTable(state="own"), [os.getpid(), gone.pid], ()) == ()
    with pytest.raises(SetupFailed, match=f"hardening of the daemon {gone.pid}: no process"):
        harden(HardeningTable(state="own"), [gone.pid, os.getpid()], ())


def test_every_thread_is_scheduled_in_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """SCHED_FIFO with the scenario's priority, each thread by its number, whatever its state."""
    asked: list[Any] = []
    monkeypatch.setattr(hardening, "thread_states", lambda pid: (thread(7), thread(9)))
    monkeypatch.setattr(hardening, "_named", str)
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda tid, policy, param: asked.append((tid, policy, param.sched_priority))
    )
    said = harden(HardeningTable(realtime=5), [7], ())
    assert asked == [(7, os.SCHED_FIFO, 5), (9, os.SCHED_FIFO, 5)]
    assert said == ("SCHED_FIFO 5 for 2 threads of 7",)


@pytest.mark.parametrize(("which", "at_start"), [("all", True), ("first-thread", False)])
def test_a_stage_is_hardened_once_the_daemon_serves(
    which: str, at_start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's settings before, the daemon's after its start and before the device is used; a state for
    some threads is not there from the start."""
    text = builtin_scenarios()["ext4-on-nbdkit-throttled"] + (
        f'\n[hardening]\nstate = "{which}"\nreserve = "4K"\nmin_free_kbytes = 4711\n'
        '[kernel.write]\n"/nowhere" = "1"\n'
    )
    scenario = parse_scenario(text.replace('use = "ext4"', 'use = "ext4"\nqueue_depth = 7'))
    steps: list[Any] = []

    class FakeStack:
        """Notes what it is asked for."""

        device = "/dev/nbd0"

        def __init__(self, order: PlayHalf, processes: Processes) -> None:
            self.processes = processes
            self.io_flusher = order.io_flusher

        def start(self) -> None:
            steps.append(("start", self.io_flusher, self.processes.group))

        def daemons(self) -> tuple[int, ...]:
            return (7,)

        def carriers(self) -> tuple[int, ...]:
            return self.daemons()

        def limit_queue(self, depth: int) -> None:
            steps.append(("queue", depth))

        def use(self, use: str) -> None:
            steps.append(("use", use, self.processes.group))

    groups = Groups(daemon=Path("/group"))
    monkeypatch.setattr(stage, "load_stack", lambda kind: FakeStack)
    monkeypatch.setattr(stage, "become_observer", lambda: steps.append("real time"))
    monkeypatch.setattr(stage, "apply_settings", lambda kernel: steps.append(kernel))

    def make_groups(_: object, reserve: int, __: object) -> Groups:
        steps.append(("groups", reserve))
        return groups

    def note_hardening(*given: Any) -> tuple[str, ...]:
        steps.append(given)
        return ("done",)

    monkeypatch.setattr(stage, "make_groups", make_groups)
    monkeypatch.setattr(stage, "harden", note_hardening)
    said: list[Any] = []
    port = SimpleNamespace(say=said.append)
    stage.build_stage(PlayHalf(scenario, True, ""), port)  # type: ignore[arg-type]
    assert steps == [
        scenario.kernel,
        KernelTable(sysctl={"vm.min_free_kbytes": "4711"}),
        "real time",
        ("groups", 4096),
        ("start", at_start, Path("/group")),
        (scenario.hardening, (7,), (7,)),
        ("queue", 7),
        ("use", "ext4", None),
    ]
    assert Hardened(done=("done",)) in said


def test_a_child_answers_or_says_why_not() -> None:
    """What it returns comes back; its error is ours; what it does to itself stays there."""
    assert in_child(lambda: f"{os.getpid() != os.getppid()}") == "True"

    def fail() -> str:
        raise FlagError("no such thread")

    with pytest.raises(SetupFailed, match="no such thread"):
        in_child(fail)

    def die() -> str:
        os._exit(9)

    with pytest.raises(SetupFailed, match="the program that should do it ended"):
        in_child(die)


def test_a_half_tells_of_its_hardening() -> None:
    """What was done is in the half as the guest said it."""
    import msgspec

    recorded = recording("finished")
    said = (Said(recorded.said[0].elapsed_s, Hardened(done=("SCHED_FIFO 5",))), *recorded.said)
    machine = RecordedMachine(msgspec.structs.replace(recorded, said=said))
    half = Follower(machine, recorded.scenario, io_flusher=True, boot_s=recorded.boot_s).follow()
    assert half.hardening == ("SCHED_FIFO 5",)


@pytest.mark.vm
@pytest.mark.needs("nbdkit")
def test_the_state_on_one_thread_of_many_does_not_help(lab: Lab) -> None:
    """nbdkit with the state on its first thread alone, and hardened from outside in other ways, freezes.

    Not with real-time priority: real-time tasks may dirty a quarter more (mm/page-writeback.c,
    domain_dirty_limits), which is enough here.
    """
    text = builtin_scenarios()["ext4-on-nbdkit-throttled"] + (
        '\n[hardening]\nstate = "first-thread"\nlock_memory = true\nreserve = "16M"\n'
        "oom_score_adj = -1000\nmin_free_kbytes = 16384\n"
    )
    half = run_half(lab, parse_scenario(text), io_flusher=True)
    assert half.outcome is HalfOutcome.FROZEN, half.detail
    assert half.witness is not None
    assert not half.witness.io_flusher
    assert [one.io_flusher for one in half.threads] == [True] + [False] * (len(half.threads) - 1)
    assert len(half.threads) > 2
    words = "; ".join(half.hardening)
    for part in ("the state put on 1 of", "locked, ", "oom_score_adj -1000 for"):
        assert part in words


@pytest.mark.vm
def test_the_dirty_limit_in_force_is_the_one_that_the_scenario_has() -> None:
    """vm.dirty_bytes in pages, and not the more that a real-time task puts in force (hard_dirty_limit())."""
    script = """
        mkdir /sys/kernel/tracing/instances/limits && cd /sys/kernel/tracing/instances/limits || exit
        echo 1 > events/writeback/global_dirty_state/enable
        dd if=/dev/zero of=/mnt/file bs=64k count=32
        grep -o ' limit=[0-9]*' trace | sort -u
    """
    argv = [sys.executable, "-m", "ioflusher", "lab", "shell", "ext4-on-nbd-throttled", "--with"]
    shell = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=300, check=True)
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    pages = int(scenario.kernel.sysctl["vm.dirty_bytes"]) // 4096
    assert shell.stdout.split() == [f"limit={pages}"]
