"""The ends of reclaim: the OOM killer, when it may act and whom it takes; who waits for kswapd."""

import pytest

from ioflusher.comparison.predicted import predicted_halves
from ioflusher.kernel.task_flags import PF_KTHREAD, PF_MEMALLOC_NOIO
from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_KERNEL
from ioflusher.model.halves import play_half
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages, make_zone
from ioflusher.model.oom import retries_ns
from ioflusher.model.reclaim import add_kswapd, can_be_throttled
from ioflusher.model.run import Happened, RunOutcome, RunResult, run
from ioflusher.model.scale import small
from ioflusher.model.transitions import Program, TransitionSystem
from ioflusher.model.writeback import DirtyDomain, DirtyLimit
from ioflusher.report.model_words import half_outcome
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import with_settings

UNIT = 128 << 10


def too_much(**hardening: object) -> Scenario:
    """More anonymous memory than memory and swap hold; a daemon that needs none, not even for a reply."""
    settings = {
        "device.size": 64 << 20,
        "pressure.kind": "none",
        "pressure.size": 0,
        "workload.size": 600 << 20,
        "daemon.thread": [{"name": "ublk-daemon", "does": ["allocate"]}],
        **{f"hardening.{name}": value for name, value in hardening.items()},
    }
    return with_settings(find_scenario("swap-on-ublk"), settings)


@pytest.mark.parametrize(
    ("adjusted", "killed"), [(None, "the workload"), (-1000, "the workload"), (1000, "the daemon")]
)
def test_the_killer_takes_who_has_most(adjusted: int | None, killed: str) -> None:
    """The workload has all memory; a thousandth of it for each point of oom_score_adj counts with it."""
    scenario = too_much() if adjusted is None else too_much(oom_score_adj=adjusted)
    half = play_half(scenario, io_flusher=True, version=(6, 12))
    result = half.result
    assert (result.outcome, result.killed) == (RunOutcome.OUT_OF_MEMORY, killed)
    assert half.steps[-1].step.calls[0] == "oom_kill_process"
    assert half.steps[-1].step.calls.index("out_of_memory") == 1
    assert (result.values["clean"], result.values["swap_slots"]) == (0, 0), "nothing was left to reclaim"
    assert half.came_out_as("out of memory")
    assert half_outcome(half).startswith("OUT OF MEMORY after ")
    assert half_outcome(half).endswith(f": the OOM killer takes {killed}")
    (predicted,) = predicted_halves(scenario, (6, 12), (0,), io_flusher=True)
    assert predicted.outcome == "out of memory"


def test_a_task_without_fs_never_brings_it() -> None:
    """out_of_memory() returns at once: the daemon with the state goes round for ever, and all is frozen."""
    result = play_half(too_much(lock_memory=False), io_flusher=True, version=(6, 12)).result
    assert result.outcome is RunOutcome.FROZEN
    daemon = next(task for task in result.waiting if task.program == "ublk-daemon")
    assert (daemon.calls[0], daemon.flags) == ("__alloc_pages_slowpath", daemon.flags | PF_MEMALLOC_NOIO)
    assert daemon.waits_for == "memory that can be reclaimed without I/O"


def killing(system: TransitionSystem) -> set[str]:
    """The programs that can bring the killer."""
    return {each.name for each in system.programs for step in each.steps if step.kills}


def test_who_may_bring_it() -> None:
    """Whoever allocates with __GFP_FS; nobody where every order of steps is followed."""
    scenario = too_much(lock_memory=False)
    without, with_ = (build(scenario, io_flusher=state, version=(6, 12)) for state in (False, True))
    assert killing(without) == {"toucher", "ublk-daemon"}
    assert killing(with_) == {"toucher"}
    assert killing(build(scenario, io_flusher=False, version=(6, 12), scale=small(scenario))) == set()


def test_a_control_group_has_a_killer_of_its_own() -> None:
    """At its limit with swap full: memory is left, and the workload, alone in the group, is taken."""
    scenario = with_settings(find_scenario("swap-on-tcmu"), {"device.size": 8 << 20})
    steps: list[Happened] = []
    result = run(build(scenario, io_flusher=True, version=(6, 12)), on_step=steps.append)
    assert (result.outcome, result.killed) == (RunOutcome.OUT_OF_MEMORY, "the workload")
    assert steps[-1].step.calls[:3] == ("oom_kill_process", "out_of_memory", "mem_cgroup_out_of_memory")
    assert "try_charge_memcg" in steps[-1].step.calls
    assert (result.values["anonymous"], result.values["swap_slots"]) == ((80 << 20) // UNIT, 0)
    assert result.values["clean"] > 0
    small_one = build(scenario, io_flusher=True, version=(6, 12), scale=small(scenario))
    assert killing(small_one) == set()


@pytest.mark.parametrize(("version", "milliseconds"), [((6, 12), 68), ((5, 15), 1700)])
def test_how_long_it_looks_in_vain(version: tuple[int, int], milliseconds: int) -> None:
    """17 rounds, each with a pause: a jiffy since reclaim_throttle() of 5.16, a tenth of a second before."""
    linux = Linux(version, UNIT)
    linux.kills = True
    linux.domain = DirtyDomain(DirtyLimit(8, 0), DirtyLimit(4, 0))
    make_zone(linux, size=20 * UNIT, clean=2 * UNIT, min_free=4 * UNIT)
    code = Code()
    with code.loop():
        alloc_pages(code, linux, GFP_KERNEL, {linux.zone.anonymous: linux.zone.anonymous + 1})
    linux.add(code, "eater", works=True)
    result = run(linux.system("eater"), jitter=0)
    assert (retries_ns(linux), result.outcome) == (milliseconds * 1_000_000, RunOutcome.OUT_OF_MEMORY)
    assert 0 < result.at_ns - retries_ns(linux) < 2_000_000
    assert result.values["free"] == 4, "the min watermark"


def throttled(*, realtime: bool, flags: int = 0) -> tuple[list[Happened], RunResult, Program]:
    """One task allocates fast, as a real-time task or not; another one comes when half of min is left."""
    linux = Linux((6, 12), UNIT)
    linux.realtime = realtime
    linux.domain = DirtyDomain(DirtyLimit(8, 0), DirtyLimit(4, 0))
    zone = make_zone(linux, size=64 * UNIT, clean=40 * UNIT, min_free=8 * UNIT)
    eater = Code()
    for _ in range(30):
        gives = {zone.anonymous: zone.anonymous + 1}
        alloc_pages(eater, linux, GFP_KERNEL, gives, realtime=realtime)
    linux.add(eater, "eater", works=True)
    other = Code(flags)
    other.step("is late", takes_ns=565_000)
    alloc_pages(other, linux, GFP_KERNEL, {zone.anonymous: zone.anonymous + 1})
    linux.add(other, "other", works=True)
    add_kswapd(linux)
    system, seen = linux.system("throttled"), list[Happened]()
    result = run(system, jitter=0, on_step=seen.append)
    return seen, result, system.programs[1]


def test_a_real_time_task_leaves_others_to_kswapd() -> None:
    """Half of the min watermark is gone: who would reclaim, itself as well, waits for kswapd to free some."""
    seen, result, program = throttled(realtime=True)
    waited = [one for one in seen if "throttle_direct_reclaim" in one.step.calls]
    assert result.outcome is RunOutcome.DONE
    assert {one.program for one in waited} == {0, 1}
    free = [values.values[0] for values in waited]
    assert min(free) > 8 // 2
    assert not any(step.after_ns for step in program.steps), "with __GFP_FS as long as it takes"


def test_without_the_io_bits_it_waits_a_second_at_most() -> None:
    """In state S, and then it reclaims whatever is left."""
    _, _, program = throttled(realtime=True, flags=PF_MEMALLOC_NOIO)
    (wait,) = (step for step in program.steps if step.calls[:1] == ("throttle_direct_reclaim",))
    assert wait.interruptible
    (late,) = (step for step in program.steps if step.after_ns is not None)
    assert (str(late.after_ns), late.at) == ("1000000000", wait.at)


def test_who_is_never_throttled() -> None:
    """Threads of the kernel; anybody, where nobody goes below the min watermark."""
    _, _, program = throttled(realtime=False)
    assert not any("throttle_direct_reclaim" in step.calls for step in program.steps)
    _, _, program = throttled(realtime=True, flags=PF_KTHREAD)
    assert not any("throttle_direct_reclaim" in step.calls for step in program.steps)
    linux = Linux((6, 12), UNIT)
    linux.realtime = True
    make_zone(linux, size=64 * UNIT, clean=0, min_free=UNIT)
    assert not can_be_throttled(linux, 0), "half of a unit is none"
