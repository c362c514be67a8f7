"""Every stack: what came of the packaged scenarios on real kernels comes out in the model, for its reason."""

from dataclasses import dataclass

import pytest

from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE, PF_MEMALLOC_NOIO, Version
from ioflusher.model.build import TAKEN_5_8, build
from ioflusher.model.errors import NotModelledError
from ioflusher.model.linux import Linux
from ioflusher.model.run import Happened, RunOutcome, RunResult, Waiting, run
from ioflusher.model.scale import Scale
from ioflusher.model.transitions import Expression, maximum
from ioflusher.model.writeback import BackingDevice
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import Scenario, ThreadTable
from ioflusher.scenario.settings import with_settings

FROZEN, DONE = RunOutcome.FROZEN, RunOutcome.DONE
SEEDS = range(2)


@dataclass(frozen=True)
class Measured:
    """What became of the halves in the lab (docs/benchmarks.md), and the daemon's place in the frozen one.

    Attributes:
        scenario: its name. without, with_state: the outcomes. stuck: the thread that stands still, or the
        first of them. innermost: a function of its stack, which lies above all others that decide.
    """

    scenario: str
    without: RunOutcome
    with_state: RunOutcome
    stuck: str = ""
    innermost: str = ""
    version: Version = (6, 12)


THROTTLE = "balance_dirty_pages"
MEASURED = (
    Measured("ext4-on-nbd-throttled", FROZEN, DONE, "nbd-daemon", THROTTLE),
    Measured("ext4-on-nbd-throttled", FROZEN, DONE, "nbd-daemon", THROTTLE, (5, 8)),
    Measured("ext4-on-nbd-server-throttled", FROZEN, DONE, "pool", THROTTLE),
    Measured("ext4-on-nbdkit-throttled", FROZEN, DONE, "nbdkit", THROTTLE),
    Measured("ext4-on-qemu-nbd-throttled", FROZEN, DONE, "worker", THROTTLE),
    Measured("ext4-on-stacked-throttled", FROZEN, DONE, "nbd-daemon", THROTTLE),
    Measured("ext4-on-stacked-lower-only", FROZEN, FROZEN, "nbd-daemon", THROTTLE),
    Measured("ext4-on-stacked-upper-only", FROZEN, FROZEN, "fuse-daemon", THROTTLE),
    Measured("ext4-on-fuse-throttled", FROZEN, DONE, "fuse-daemon", THROTTLE),
    Measured("ext4-on-fuse-throttled", FROZEN, DONE, "fuse-daemon", THROTTLE, (5, 10)),
    Measured("ext4-on-bindfs-throttled", FROZEN, DONE, "bindfs", THROTTLE),
    Measured("ext4-on-sshfs-throttled", FROZEN, DONE, "sftp-server", THROTTLE),
    Measured("ext4-on-fuse-overlayfs-throttled", FROZEN, DONE, "fuse-overlayfs", THROTTLE),
    Measured("ext4-on-ublk-throttled", FROZEN, DONE, "ublk-daemon", THROTTLE),
    Measured("ext4-on-tcmu-throttled", FROZEN, DONE, "tcmu-runner", THROTTLE),
    Measured("ext4-on-tgt-throttled", FROZEN, DONE, "tgtd-worker", THROTTLE),
    Measured("ext4-on-lio-throttled", FROZEN, FROZEN, "iscsi_trx", THROTTLE),
    Measured("swap-on-nbd", FROZEN, DONE, "nbd-daemon", "try_to_free_pages"),
    Measured("swap-on-ublk", FROZEN, DONE, "ublk-daemon", "try_to_free_pages"),
    Measured("swap-on-fuse", FROZEN, DONE, "fuse-daemon", "try_to_free_pages"),
    Measured("swap-on-tcmu", FROZEN, DONE, "tcmu-runner", "try_to_free_pages"),
    Measured("swap-on-tgt", FROZEN, DONE, "tgtd-worker", "try_to_free_pages"),
    Measured("swap-on-nbd-6.1", FROZEN, DONE, "nbd-daemon", "try_to_free_pages", (6, 1)),
    Measured("swap-on-iscsid-cut", DONE, DONE),
    Measured("swap-on-multipath", DONE, DONE),
    Measured("nfs-on-ganesha-throttled", FROZEN, DONE, "ganesha.nfsd", THROTTLE),
    Measured("nfs-on-ganesha-throttled", FROZEN, DONE, "ganesha.nfsd", THROTTLE, (6, 1)),
    Measured("ext4-on-nbd-one-cgroup", FROZEN, FROZEN, "nbd-daemon", "try_charge_memcg", (6, 1)),
    Measured("ext4-on-nbd-one-cgroup", FROZEN, FROZEN, "nbd-daemon", "try_charge_memcg", (5, 10)),
    Measured("xfs-on-nbd", DONE, DONE),
    Measured("xfs-on-nbd-5.8", FROZEN, DONE, "nbd-daemon", "xfs_reclaim_inode", (5, 8)),
    Measured("xfs-on-nbd-5.8", DONE, DONE, version=(5, 6)),
    Measured("xfs-on-nbd-5.8", DONE, DONE, version=(5, 10)),
    Measured("xfs-on-nbd-5.8", DONE, DONE, version=(6, 1)),
    Measured("xfs-on-nbd-5.8", DONE, DONE),
)
BY_ID = [f"{row.scenario}-{'.'.join(map(str, row.version))}" for row in MEASURED]


def played(
    scenario: str | Scenario, *, io_flusher: bool, version: Version = (6, 12), seed: int = 0
) -> RunResult:
    """A half of a scenario."""
    found = find_scenario(scenario) if isinstance(scenario, str) else scenario
    system = build(found, io_flusher=io_flusher, version=version)
    return run(system, seed=seed, stalled_s=found.frozen.stalled_s)


def stuck(result: RunResult, row: Measured) -> bool:
    """Whether one of the threads stands where the row says."""
    return any(row.innermost in task.calls for task in result.waiting if task.program.startswith(row.stuck))


def waiting(result: RunResult, program: str) -> Waiting:
    """A task that waits in the kernel for something else than a request."""
    return next(task for task in result.waiting if task.program.startswith(program) and task.calls)


@pytest.mark.parametrize("row", MEASURED, ids=BY_ID)
def test_without_the_state(row: Measured) -> None:
    """The half without comes out as measured, and where it froze the daemon stands where it stood."""
    for seed in SEEDS:
        result = played(row.scenario, io_flusher=False, version=row.version, seed=seed)
        assert result.outcome is row.without, seed
        if row.without is FROZEN:
            assert stuck(result, row)


@pytest.mark.parametrize("row", MEASURED, ids=BY_ID)
def test_with_the_state(row: Measured) -> None:
    """The half with comes out as measured."""
    result = played(row.scenario, io_flusher=True, version=row.version)
    assert result.outcome is row.with_state
    if row.with_state is FROZEN:
        assert stuck(result, row)


def ends(scenario: Scenario, *, io_flusher: bool) -> tuple[set[RunOutcome], set[str]]:
    """How ten courses of chance end, and the function in which threads of the daemon stand in frozen ones."""
    where = ("ext4_da_get_block_prep", THROTTLE, "try_to_free_pages")
    results = [played(scenario, io_flusher=io_flusher, seed=seed) for seed in range(10)]
    frozen = [task for each in results if each.outcome is FROZEN for task in each.waiting if not task.rests]
    stacks = [task.calls for task in frozen if task.program.startswith(("tgtd-worker", "fuse-daemon"))]
    return {each.outcome for each in results}, {
        next((name for name in where if name in calls), calls[0]) for calls in stacks
    }


def test_swap_on_tgtd_is_chance() -> None:
    """16 workers and a file: 3 of 8 real runs froze without the state; here some do, in reclaim."""
    command = ["tgtd", "--foreground", "--iscsi", "portal={portal}"]
    with_all = with_settings(
        find_scenario("swap-on-tgt"), {"daemon.store": "file", "daemon.command": command}
    )
    outcomes, where = ends(with_all, io_flusher=False)
    assert outcomes == {FROZEN, DONE}
    assert "try_to_free_pages" in where


def test_the_flusher_of_the_store_does_not_carry_the_state() -> None:
    """A store in a file: some freeze with the state, as 1 of 5 real runs did; on a disk none.

    The daemon waits for the file's lock, whose holder, the flusher, allocates and waits for swap.
    """
    in_file = with_settings(find_scenario("swap-on-fuse"), {"daemon.store": "file"})
    assert ends(in_file, io_flusher=True) == ({FROZEN, DONE}, {"ext4_da_get_block_prep"})
    assert ends(find_scenario("swap-on-fuse"), io_flusher=True) == ({DONE}, set())
    results = (played(in_file, io_flusher=True, seed=seed) for seed in range(10))
    frozen = next(result for result in results if result.outcome is FROZEN)
    flusher = waiting(frozen, "kworker/u:flush-vda")
    assert flusher.pid == frozen.values["vda_i_data_sem"]
    assert flusher.calls[-1] == "wb_workfn"
    calls = ("pageout", "try_to_free_pages", "allocate_slab", "ext4_mb_new_blocks", "ext4_map_blocks")
    assert [call for call in flusher.calls if call in calls] == list(calls)


def test_the_trace_that_brought_the_state() -> None:
    """On 5.8 the daemon's send reclaims an inode, and waits for the log or a buffer on its own device."""
    result = played("xfs-on-nbd-5.8", io_flusher=False, version=(5, 8))
    calls = waiting(result, "nbd-daemon").calls
    order = ("xfs_reclaim_inode", "super_cache_scan", "do_shrink_slab", "try_to_free_pages", "tcp_sendmsg")
    assert [call for call in calls if call in order] == list(order)
    assert calls[0] in ("__flush_work", "wait_for_completion")
    assert waiting(result, "nbd-daemon").waits_for in ("the log of XFS on nbd0", "a buffer of XFS on nbd0")
    assert result.values["clean"] > 0, "there was memory to be had without XFS"


@pytest.mark.parametrize(
    ("version", "outcome"),
    [((5, 6), FROZEN), ((5, 7), FROZEN), ((5, 8), FROZEN), ((5, 9), DONE), ((5, 10), DONE)],
)
def test_up_to_which_kernel_inode_reclaim_waits(
    version: Version, outcome: RunOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 5.8 the daemon waits in xfs_reclaim_inode(), and the state helps; since 5.9 nobody does."""
    monkeypatch.setattr("ioflusher.model.build.TAKEN", TAKEN_5_8)
    scenario = find_scenario("xfs-on-nbd-5.8")
    without = played(scenario, io_flusher=False, version=version)
    assert without.outcome is outcome
    if outcome is FROZEN:
        calls = waiting(without, "nbd-daemon").calls
        assert "xfs_reclaim_inode" in calls
        assert calls.index("xfs_reclaim_inode") < calls.index("tcp_sendmsg")
    assert played(scenario, io_flusher=True, version=version).outcome is DONE


@pytest.mark.parametrize("seed", SEEDS)
def test_inode_reclaim_no_longer_waits(seed: int) -> None:
    """With as little memory as 5.8 has, 5.9 lives without the state, although the daemon reclaims."""
    little = with_settings(find_scenario("xfs-on-nbd-5.8"), {"machine.memory": 275 << 20})
    system = build(little, io_flusher=False, version=(5, 9))
    done: set[str] = set()
    result = run(system, seed=seed, on_step=lambda one: done.add(one.step.label))
    assert result.outcome is DONE
    assert "inodes are to be written" in done
    assert not any("xfs_iunpin_wait" in step.calls for each in system.programs for step in each.steps)


def test_a_transaction_and_the_state_do_not_enter_the_file_system() -> None:
    """No step of an inode's creation is in super_cache_scan(), nor any of the daemon's with the state."""
    for io_flusher in (False, True):
        system = build(find_scenario("xfs-on-nbd-5.8"), io_flusher=io_flusher, version=(5, 8))
        into = {
            each.name: {
                call for step in each.steps if "super_cache_scan" in step.calls for call in step.calls
            }
            for each in system.programs
        }
        assert "xfs_create" not in into["writer"]
        assert "xfs_lookup" in into["writer"]
        assert bool(into["nbd-daemon"]) != io_flusher


def test_a_loop_device_waits_for_the_daemon_below_its_file() -> None:
    """Its worker has both bits itself, and waits for an answer; the daemon has none, and is throttled."""
    result = played("ext4-on-fuse-throttled", io_flusher=False)
    worker = next(task for task in result.waiting if task.program == "kworker/u:loop0")
    assert worker.flags & (PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE) == PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE
    assert worker.calls[0] == "request_wait_answer"
    assert "fuse_perform_write" in worker.calls
    assert worker.calls[-1] == "loop_workfn"
    assert not waiting(result, "fuse-daemon").flags & PF_LOCAL_THROTTLE


def test_the_write_back_cache_of_fuse_before_and_after_temporary_pages() -> None:
    """Before 6.16 what is being written to the daemon is no NR_WRITEBACK; since then it is."""
    for version, temporary in (((6, 12), True), ((6, 16), False)):
        system = build(find_scenario("ext4-on-fuse-overlayfs-throttled"), io_flusher=True, version=version)
        flusher = next(each for each in system.programs if each.name == "kworker/u:flush-fuse")
        assert any(step.label == "a temporary page" for step in flusher.steps) == temporary
        writer = next(each for each in system.programs if each.name == "writer")
        looked_at = {name for step in writer.steps if step.when for name in step.when.reads}
        assert ("fuse_writeback" in looked_at) != temporary


def test_one_control_group_for_both() -> None:
    """Without the state the daemon waits for a page that is being written, with it it looks for others."""
    without = waiting(played("ext4-on-nbd-one-cgroup", io_flusher=False, version=(6, 1)), "nbd-daemon")
    assert without.calls[0] == "folio_wait_writeback"
    result = played("ext4-on-nbd-one-cgroup", io_flusher=True, version=(6, 1))
    assert waiting(result, "nbd-daemon").calls[0] == "reclaim_throttle"
    assert waiting(result, "writer").calls[0] == "folio_wait_writeback"
    assert result.values["clean"] == result.values["vda_dirty"] == 0
    charged = result.values["nbd0_dirty"] + result.values["nbd0_writeback"]
    assert charged == (48 << 20) // (128 << 10)


def test_a_group_of_version_2_waits_for_no_page() -> None:
    """Waiting for pages that are being written is for limits of version 1."""
    scenario = with_settings(find_scenario("ext4-on-nbd-one-cgroup"), {"cgroup.version": 2})
    system = build(scenario, io_flusher=False, version=(6, 1))
    assert not any("folio_wait_writeback" in step.calls for each in system.programs for step in each.steps)


def test_fuse_gives_a_daemon_so_many_requests_of_the_background() -> None:
    """Twelve, of more threads than that."""
    threads = [{"name": "mine", "does": ["store"], "count": 16}]
    scenario = with_settings(find_scenario("ext4-on-fuse-overlayfs-throttled"), {"daemon.thread": threads})
    system = build(scenario, io_flusher=True, version=(6, 12))
    place = [variable.name for variable in system.variables].index("fuse_active")
    result = run(system, sample_ns=1_000_000)
    assert result.outcome is DONE
    assert max(values[place] for _, values in result.samples) == 12


@pytest.mark.parametrize("name", ["ext4-on-nbdkit-throttled", "ext4-on-sshfs-throttled"])
def test_what_a_request_took_is_given_back(name: str) -> None:
    """By the last thread of the line, of the threads before it as well."""
    result = played(name, io_flusher=True)
    assert result.outcome is DONE
    assert result.values["daemon_memory"] == 0


CUT = [{"kind": "paths-offline", "at_s": 0.5, "for_s": 20}]


@pytest.mark.parametrize(("io_flusher", "outcome"), [(False, FROZEN), (True, DONE)])
def test_multipathd_that_allocates_when_it_takes_a_path_back(io_flusher: bool, outcome: RunOutcome) -> None:
    """Not the one of today, which has all it needs: one as the state was made for."""
    checker = {"name": "checkerloop", "takes": "events", "does": ["send"] * 8, "locked": True}
    scenario = with_settings(find_scenario("swap-on-multipath"), {"fault": CUT, "daemon.thread": [checker]})
    result = played(scenario, io_flusher=io_flusher)
    assert result.outcome is outcome
    if outcome is FROZEN:
        assert "pageout" in waiting(result, "checkerloop").calls
        assert result.values["dm_0_online"] == 1, "the disk was back"
        assert result.values["dm_0_active"] == 0, "nobody told the map"


@pytest.mark.parametrize("io_flusher", [False, True])
def test_paths_that_come_back(io_flusher: bool) -> None:
    """Requests are kept while no path works; multipathd, whose memory is there, takes them back."""
    scenario = with_settings(find_scenario("swap-on-multipath"), {"fault": CUT})
    done: list[str] = []
    system = build(scenario, io_flusher=io_flusher, version=(6, 12))
    result = run(system, stalled_s=35, on_step=lambda one: done.append(one.step.label))
    assert result.outcome is DONE
    assert result.longest_ns["dm_0"] > 10_000_000_000
    assert done.count("reinstates the paths") == 1, "not before the disk was back"
    assert done.count("a path fails") == 2


def test_iscsid_that_allocates_for_another_connection() -> None:
    """With memory of its own to be found it freezes without the state, and goes on with it."""
    cut = [{"kind": "connection-cut", "at_s": 1.5, "for_s": 10}]
    threads = [
        {"name": "iscsid", "takes": "events", "does": ["send"] * 8, "locked": True},
        {"name": "outside", "state": "never"},
    ]
    scenario = with_settings(find_scenario("swap-on-iscsid-cut"), {"fault": cut, "daemon.thread": threads})
    outcomes = [played(scenario, io_flusher=io_flusher).outcome for io_flusher in (False, True)]
    assert outcomes == [FROZEN, DONE]


@pytest.mark.parametrize("io_flusher", [False, True])
@pytest.mark.parametrize(("locked", "outcome"), [(False, FROZEN), (True, DONE)])
def test_iscsid_whose_own_memory_is_in_swap(io_flusher: bool, locked: bool, outcome: RunOutcome) -> None:
    """It is read back over the connection that it has to make: the state is no help, locked memory is."""
    cut = [{"kind": "connection-cut", "at_s": 1.5, "for_s": 10}]
    threads = [
        {"name": "iscsid", "takes": "events", "locked": locked},
        {"name": "outside", "state": "never"},
    ]
    scenario = with_settings(find_scenario("swap-on-iscsid-cut"), {"fault": cut, "daemon.thread": threads})
    result = played(scenario, io_flusher=io_flusher)
    assert result.outcome is outcome
    if outcome is FROZEN:
        iscsid = waiting(result, "iscsid")
        assert iscsid.waits_for == "a tag of sda", "those that there are belong to what is swapped out"
        assert {"swap_read_folio", "do_swap_page"} <= set(iscsid.calls)
        assert (result.values["sda_reachable"], result.values["sda_connected"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "percent", "outcomes"),
    [
        ("ext4-on-tgt-throttled", 50, {FROZEN}),
        ("ext4-on-tgt-throttled", 5, {FROZEN, DONE}),
        ("ext4-on-nbd-throttled", 5, {FROZEN}),
    ],
)
def test_a_store_that_has_written_little(
    name: str, percent: int, outcomes: set[RunOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its share of the limits is small then, and what it holds above that is written at once.

    So sixteen threads, which dirty more than that, may get through where a single one never does, as tgtd
    does on some real kernels.
    """

    def share(_linux: Linux, backing: BackingDevice, limit: Expression, *, left: Expression) -> Expression:
        return maximum(1, limit * (percent if backing.device.name == "vda" else 100 - percent) // 100)

    monkeypatch.setattr("ioflusher.model.writeback._share", share)
    system = build(find_scenario(name), io_flusher=False, version=(6, 1))
    assert {run(system, seed=seed).outcome for seed in range(8)} == outcomes


@pytest.mark.parametrize("name", ["ext4-on-nbd-throttled", "ext4-on-nbdkit-throttled"])
def test_what_keeps_a_store_from_being_written(name: str) -> None:
    """What the daemon has dirtied is no more than its store's share of the background limit, 32 units.

    So no flusher writes it, although the machine is at its limit, and nothing brings it below: the daemon is
    held by the limit of all, its store by a share that it does not exceed.
    """
    result = played(find_scenario(name), io_flusher=False, version=(6, 1))
    end = result.values
    assert end["vda_dirty"] + end["nbd0_dirty"] + end["nbd0_writeback"] >= 64
    share = 32 * end["vda_written"] // (end["vda_written"] + end["nbd0_written"])
    assert 0 < end["vda_dirty"] <= share
    assert end["vda_writeback"] == 0
    flusher = waiting(result, "kworker/u:flush-vda")
    assert (flusher.rests, flusher.waits_for) == (True, "something to write")
    held = [task for task in result.waiting if task.waits_for.startswith("less dirty memory")]
    assert {task.program.split("-")[0] for task in held} >= {"writer", name.split("-")[2]}


def test_the_kernels_own_target_never_carries_the_state() -> None:
    """Its thread is the kernel's: no PF_MEMALLOC_NOIO in the half with the state either."""
    thread = waiting(played("ext4-on-lio-throttled", io_flusher=True), "iscsi_trx")
    assert not thread.flags & PF_LOCAL_THROTTLE
    assert thread.calls.index("balance_dirty_pages") < thread.calls.index("fd_do_rw")


def test_a_worker_of_the_target_needs_pages_of_the_data_area() -> None:
    """It allocates them, under cmdr_lock, with GFP_NOIO, so it enters no file system; who submits goes on."""
    scenario = with_settings(find_scenario("ext4-on-tcmu-throttled"), {"device.use": "xfs"})
    system = build(scenario, io_flusher=False, version=(5, 8))
    takers = {each.name for each in system.programs for step in each.steps if "cmdr_lock" in step.waits_for}
    assert takers == {"kworker/0:target_submission", "tcmu-runner"}
    worker = next(each for each in system.programs if each.name == "kworker/0:target_submission")
    allocating = [step for step in worker.steps if "tcmu_get_empty_block" in step.calls]
    assert any(step.label == "a page of the data area of sda" for step in allocating)
    assert any("try_to_free_pages" in step.calls for step in allocating)
    assert not any("super_cache_scan" in step.calls for step in allocating)


def test_the_state_on_some_threads_alone() -> None:
    """On the first thread, which serves nothing, it is as without; measured with nbdkit."""
    scenario = with_settings(find_scenario("ext4-on-nbdkit-throttled"), {"hardening.state": "first-thread"})
    result = played(scenario, io_flusher=True)
    assert result.outcome is FROZEN
    assert not any(task.flags & PF_LOCAL_THROTTLE for task in result.waiting if task.program == "nbdkit")
    system = build(
        with_settings(scenario, {"hardening.state": "all-but-last"}), io_flusher=True, version=(6, 12)
    )
    carry = [each.flags for each in system.programs if each.name.startswith("nbdkit")]
    assert len(carry) == 16
    assert [bool(flags & PF_LOCAL_THROTTLE) for flags in carry] == [True] * 15 + [False]


DIRECT = [{"name": "my-server", "does": ["lock", "store-direct", "unlock"], "count": 3}]


def test_a_daemon_that_a_scenario_describes() -> None:
    """Stores with O_DIRECT make no dirty pages: nothing to be throttled for, in either half."""
    described = with_settings(find_scenario("ext4-on-nbd-throttled"), {"daemon.thread": DIRECT})
    assert described.daemon.thread == (ThreadTable("my-server", ("lock", "store-direct", "unlock"), count=3),)
    result = played(described, io_flusher=False)
    assert result.outcome is DONE
    assert result.completed == {"nbd0": 768}
    assert result.values["vda_dirty"] == result.values["vda_direct_done"] == 0


def test_direct_writes_through_a_queue_of_one() -> None:
    """More may be done and not seen by their writers than the disk takes at once."""
    described = with_settings(
        find_scenario("ext4-on-nbd-throttled"),
        {"daemon.thread": [{"name": "mine", "does": ["store-direct"], "count": 5}]},
    )
    system = build(described, io_flusher=False, version=(6, 12), scale=Scale(queue_depth=1))
    done = next(each for each in system.variables if each.name == "vda_direct_done")
    assert done.high >= 5
    assert run(system).outcome is DONE


def test_a_daemon_that_nobody_described() -> None:
    """A program that is in no row is an error that says how to go on."""
    unknown = with_settings(
        find_scenario("ext4-on-nbd-throttled"), {"daemon.command": ["my-server", "{socket}", "{file}"]}
    )
    with pytest.raises(
        Exception, match=r"daemon.command: expected a daemon that is described .*'my-server'"
    ) as raised:
        build(unknown, io_flusher=True, version=(6, 12))
    assert "[[daemon.thread]]" in str(getattr(raised.value, "hint", ""))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"device.use": "btrfs"},
            "device.use: the model expects 'swap', 'ext4', 'xfs' or 'nfs', found 'btrfs'",
        ),
        ({"cgroup.who": "daemon", "cgroup.memory_max": 1 << 20}, "cgroup.who: the model expects 'both' with"),
        (
            {"cgroup.who": "both", "cgroup.memory_high": 1 << 20},
            "cgroup.memory_high: the model expects cgroup.m",
        ),
        (
            {"kernel.sysctl.vm.overcommit_memory": 2},
            "kernel.sysctl.vm.overcommit_memory: the model expects one",
        ),
        ({"kernel.sysctl.vm.dirty_bytes": "much"}, "kernel.sysctl.vm.dirty_bytes: the model expects a whole"),
        (
            {"kernel.sysctl.vm.dirty_bytes": 8191},
            "kernel.sysctl.vm.dirty_bytes: the model expects at least 8192",
        ),
        ({"kernel.sysctl.vm.dirty_ratio": 101}, "kernel.sysctl.vm.dirty_ratio: the model expects 0 to 100"),
        ({"kernel.write./sys/power/state": "mem"}, "kernel.write./sys/power/state: the model expects"),
        (
            {"pressure.kind": "anonymous", "pressure.size": 1 << 20},
            "pressure.kind: the model expects 'none' or",
        ),
        ({"machine.memory": 64 << 20}, "machine.memory: expected more than 135 MiB"),
        ({"machine.memory": 1 << 60}, "machine.memory: expected at most 4096 TiB, which x86-64 can have"),
    ],
)
def test_what_the_model_has_not(settings: dict[str, object], said: str) -> None:
    """It is an error that names the key, never passed over."""
    scenario = with_settings(find_scenario("ext4-on-nbd-throttled"), settings)
    with pytest.raises(NotModelledError) as raised:
        build(scenario, io_flusher=True, version=(6, 12))
    assert said in str(raised.value)
    if settings == {"device.use": "btrfs"}:
        assert "what its transactions allocate and lock" in (raised.value.hint or "")


@pytest.mark.parametrize(("version", "most"), [((5, 7), 100), ((5, 8), 200)])
def test_swappiness_goes_as_far_as_the_kernel_lets_it(version: Version, most: int) -> None:
    """What it takes is taken to the last number, what is above is refused."""
    key = "kernel.sysctl.vm.swappiness"
    build(with_settings(find_scenario("swap-on-nbd"), {key: most}), io_flusher=True, version=version)
    above = with_settings(find_scenario("swap-on-nbd"), {key: most + 1})
    with pytest.raises(
        NotModelledError, match=f"vm.swappiness: the model expects 0 to {most}, as the kernel"
    ):
        build(above, io_flusher=True, version=version)


@pytest.mark.parametrize(("name", "send"), [("swap-on-nbd", True), ("swap-on-ublk", False)])
def test_what_was_swapped_out_is_read_back(name: str, send: bool) -> None:
    """A second pass faults on what is in swap, and a reply over a socket has as much data as was written."""
    twice = with_settings(find_scenario(name), {"workload.passes": 2})
    assert played(twice, io_flusher=False).outcome is FROZEN
    done: dict[tuple[str, str], int] = {}

    def count(one: Happened) -> None:
        key = (system.programs[one.program].name, one.step.label)
        done[key] = done.get(key, 0) + 1

    system = build(twice, io_flusher=True, version=(6, 12))
    result = run(system, stalled_s=8, on_step=count)
    assert result.outcome is DONE
    faults = done["toucher", "a page for what is in swap"]
    assert faults > 100
    assert result.values["swap_reading"] == result.values["swap_read"] == result.values["daemon_memory"] == 0
    daemon = next(each.name for each in system.programs if each.daemon)
    assert done.get((daemon, "sends what was read"), 0) == (faults if send else 0)
    assert done.get((daemon, "a page for what is read of vda"), 0) == (0 if send else faults)


def test_anonymous_pressure_takes_what_the_state_helps_with() -> None:
    """Memory that is touched all the time, in place of a reader: nothing is clean, and both halves freeze."""
    settings = {"pressure.kind": "anonymous", "pressure.size": 150 << 20}
    pressed = with_settings(find_scenario("swap-on-nbd"), settings)
    for io_flusher in (False, True):
        result = played(pressed, io_flusher=io_flusher)
        assert (result.outcome, result.values["clean"]) == (FROZEN, 0)
    assert waiting(result, "nbd-daemon").waits_for == "memory that can be reclaimed without I/O"
    little = with_settings(pressed, {"pressure.size": 60 << 20})
    assert played(little, io_flusher=False).outcome is DONE, "all has room"


def test_a_bio_for_the_daemons_own_store() -> None:
    """Who is not in reclaim reclaims for one, without I/O: the swap's requests may hold the whole pool.

    That is whoever writes the store or reads it, and the workload, which reads what was swapped out.
    """
    system = build(find_scenario("swap-on-ublk"), io_flusher=True, version=(6, 12))
    for each in system.programs:
        steps = [step for step in each.steps if "mempool_alloc" in step.calls[1:]]
        assert bool(steps) == (each.name in ("kworker/u:flush-vda", "ublk-daemon", "toucher"))
        assert all("pageout" not in step.calls for step in steps)


@pytest.mark.parametrize("name", ["ext4-on-fuse-overlayfs-throttled", "ext4-on-stacked-throttled"])
def test_stacks_from_which_no_swap_is_read(name: str) -> None:
    """They are refused."""
    swap = {"device.use": "swap", "workload.kind": "anonymous", "workload.passes": 2}
    with pytest.raises(NotModelledError, match=r"workload.passes: the model expects 1 with this stack"):
        build(with_settings(find_scenario(name), swap), io_flusher=True, version=(6, 12))


def test_what_makes_no_difference_is_noted() -> None:
    """A setting that has no effect in the model is said with the system."""
    system = build(find_scenario("xfs-on-nbd-5.8"), io_flusher=True, version=(5, 8))
    assert system.notes[0] == "device.mkfs has no effect: a file system has one allocation group"
    reserve = with_settings(find_scenario("swap-on-nbd"), {"hardening.reserve": 1 << 20})
    system = build(reserve, io_flusher=True, version=(6, 12))
    assert system.notes == (
        "hardening.reserve has no effect: reclaim leaves a daemon's own memory alone anyway",
        "kernel.sysctl.vm.watermark_boost_factor has no effect: the watermarks are not boosted",
        "kernel.sysctl.vm.page-cluster has no effect: a unit is read from swap at a time",
    )
