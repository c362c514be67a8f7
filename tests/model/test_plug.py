"""Plugging: what a task keeps back, when it hands it over, and why it does so when it goes to sleep."""

from dataclasses import replace

import pytest

from ioflusher.kernel.task_flags import PF_MEMALLOC
from ioflusher.model import block, memory
from ioflusher.model.block import BIO_POOL_SIZE, DiskDriver, bio_alloc_bioset, bio_put
from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.explore import Exploration, FreezeKind, Verdict, explore
from ioflusher.model.linux import Linux
from ioflusher.model.plug import BLK_MAX_REQUEST_COUNT, add_kblockd, blk_plug
from ioflusher.model.run import Happened, RunOutcome, run
from ioflusher.model.scale import small
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.file import find_scenario
from tests.model.one_rule import bio_pool, kernel


def submitter(
    count: int, *, depth: int, flushes: bool = True, plugs: bool = True, low: bool = False
) -> TransitionSystem:
    """A task that submits so many requests in a plug to a disk that takes so many at once.

    Args:
        low: whether memory is low, so that bios come from their pool.
    """
    linux = kernel(min_free=16, size=16 if low else 400, clean=0)
    linux.plugs, linux.flushes_at_sleep = plugs, flushes
    disk = DiskDriver(linux, "vda", request_ns=1000, queue_depth=depth)
    pool = bio_pool(linux)
    disk.completions["write"] = bio_put(pool)
    code = Code(flags=PF_MEMALLOC)
    with code.call("submitter"), blk_plug(code, linux, (disk, "write")):
        for _ in range(count):
            bio_alloc_bioset(code, linux, pool)
            disk.submit(code, "write")
    with code.call("submitter"):
        code.step("is done with all")
        code.wait(disk.in_flight.is_(0), "its requests")
    linux.add(code, "submitter", works=True)
    disk.add_server()
    add_kblockd(linux)
    return linux.system("submitter")


def steps_of(system: TransitionSystem) -> list[Happened]:
    """The steps of a run that is done, with a label."""
    steps: list[Happened] = []
    result = run(system, on_step=lambda step: steps.append(step) if step.step.label else None)
    assert result.outcome is RunOutcome.DONE
    return steps


def test_a_plug_keeps_back_what_it_is_given_until_it_is_finished() -> None:
    """Nothing reaches the disk before; then the task issues all of it itself."""
    steps = steps_of(submitter(3, depth=8))
    kinds = [step.step.label for step in steps if step.program == 0]
    assert kinds.index("to vda") > max(
        number for number, label in enumerate(kinds) if label == "into its plug, for vda"
    )
    issued = [step for step in steps if step.step.label == "to vda"]
    assert [step.program for step in issued] == [0] * 3
    assert issued[0].step.calls == ("blk_mq_flush_plug_list", "blk_finish_plug", "submitter")


def test_without_a_plug_each_goes_at_once() -> None:
    """The order of things as the model has it where plugs are left out."""
    labels = [step.step.label for step in steps_of(submitter(2, depth=8, plugs=False)) if step.program == 0]
    assert labels[:6] == ["a bio", "a tag of vda", "to vda"] * 2


def test_a_full_plug_is_handed_over_first() -> None:
    """BLK_MAX_REQUEST_COUNT requests, and the next one begins anew."""
    steps = steps_of(submitter(BLK_MAX_REQUEST_COUNT + 2, depth=64))
    labels = [step.step.label for step in steps if step.program == 0 and step.step.label != "a bio"]
    first = labels.index("to vda")
    assert labels[:first].count("into its plug, for vda") == BLK_MAX_REQUEST_COUNT
    assert labels[first:].count("to vda") == BLK_MAX_REQUEST_COUNT + 2


def test_who_goes_to_sleep_hands_over_what_it_has_plugged() -> None:
    """A task that finds no tag: its requests have them all. kblockd issues what it hands over."""
    steps = steps_of(submitter(5, depth=2))
    handed = [step for step in steps if step.step.label == "hands over what it has plugged"]
    assert handed
    assert handed[0].step.calls[:4] == (
        "blk_mq_flush_plug_list",
        "blk_flush_plug",
        "io_schedule",
        "blk_mq_get_tag",
    )
    issued = {step.program for step in steps if step.step.label == "to vda"}
    assert len(issued) == 2, "some by kblockd, the last by the task as it finishes its plug"


def frozen_in(found: Exploration) -> str:
    """The function in which the submitter waits for ever."""
    assert found.verdict is Verdict.FREEZE
    assert found.freeze is not None
    assert found.freeze.kind is FreezeKind.DEADLOCK
    return found.freeze.standing[0].calls[0]


@pytest.mark.parametrize(
    ("low", "depth", "function"), [(False, 2, "blk_mq_get_tag"), (True, 8, "mempool_alloc")]
)
def test_why_it_does(low: bool, depth: int, function: str) -> None:
    """Without, it waits for a tag, or a bio, that its own requests have: nobody can give it one."""
    count = BIO_POOL_SIZE + 1
    assert explore(submitter(count, depth=depth, low=low)).verdict is Verdict.NO_FREEZE
    assert frozen_in(explore(submitter(count, depth=depth, low=low, flushes=False))) == function


@pytest.mark.parametrize("io_flusher", [False, True])
def test_a_small_machine_with_plugs_freezes_where_it_does_without(io_flusher: bool) -> None:
    """Every order of steps, with reclaim and the flusher plugging what they submit."""
    scenario = find_scenario("swap-on-nbd")
    scale = replace(small(scenario), queue_depth=1)
    with_plugs, without = (
        explore(build(scenario, io_flusher=io_flusher, version=(6, 12), scale=scale, plugs=plugs))
        for plugs in (True, False)
    )
    assert with_plugs.verdict is without.verdict
    assert with_plugs.verdict is (Verdict.NO_FREEZE if io_flusher else Verdict.FREEZE)
    assert with_plugs.states > without.states, "which is why explorations have none"


@pytest.mark.parametrize(
    "name", ["ext4-on-nbd-throttled", "swap-on-nbd", "ext4-on-stacked-throttled", "xfs-on-nbd"]
)
@pytest.mark.parametrize("io_flusher", [False, True])
def test_runs_with_plugs_come_out_alike(name: str, io_flusher: bool) -> None:
    """The flusher keeps back a chunk of 4 MiB at most, kswapd some units; what comes of it is the same."""
    scenario = find_scenario(name)
    for seed in range(3):
        ends = {
            run(
                build(scenario, io_flusher=io_flusher, version=(6, 12), plugs=plugs),
                seed=seed,
                stalled_s=scenario.frozen.stalled_s,
            ).outcome
            for plugs in (False, True)
        }
        assert len(ends) == 1


def test_a_flusher_that_kept_its_requests_in_its_sleep_would_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the state, too: all tags of nbd0 are in its plug, and it waits for another."""
    for module in (block, memory):
        monkeypatch.setattr(module, "sched_submit_work", lambda *_: None)
    scenario = find_scenario("ext4-on-nbd-throttled")
    found = explore(build(scenario, io_flusher=True, version=(6, 12), scale=small(scenario), plugs=True))
    assert found.freeze is not None
    flusher = next(
        standing
        for program, standing in found.freeze.named(found.system)
        if program.name == "kworker/u:flush-nbd0"
    )
    assert flusher.calls[0] == "blk_mq_get_tag"
    plugged = {
        variable.name: value
        for variable, value in zip(found.system.variables, found.freeze.way[-1].values, strict=True)
    }
    assert plugged["nbd0_tags"] == 0
    assert sum(value for name, value in plugged.items() if name.startswith("plug_")) == 3


def test_a_system_without_plugs_has_nothing_of_them() -> None:
    """Neither a variable nor a worker: runs and explorations are what they were."""
    scenario = find_scenario("swap-on-nbd")
    plain, plugged = (
        build(scenario, io_flusher=True, version=(6, 12), plugs=plugs) for plugs in (False, True)
    )
    assert not [variable.name for variable in plain.variables if "plug" in variable.name]
    assert len(plugged.programs) == len(plain.programs) + 1
    assert "kworker/0:1H-nbd0" in [program.name for program in plugged.programs]


def test_a_kernel_plugs_nothing_unless_it_is_asked_to() -> None:
    """And it flushes at sleep."""
    linux = Linux((6, 12), 1)
    assert (linux.plugs, linux.flushes_at_sleep) == (False, True)
