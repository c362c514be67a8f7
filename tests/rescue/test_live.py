"""Freezes of a machine, by its files: requests that stand still, and stacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_KTHREAD
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import FreezeWay
from ioflusher.rescue.live import (
    BETWEEN_LOOKS_S,
    MOST_LOOKS_AT_THREADS,
    DeviceRequests,
    find_freezes,
    judge,
)
from ioflusher.rescue.mapper import MultipathMap
from ioflusher.rescue.stacks import read_threads
from tests.rescue.freezes import NBD0

THROTTLED = (
    "[<0>] balance_dirty_pages+0x3c1/0xa50\n[<0>] balance_dirty_pages_ratelimited_flags+0x2a1/0x400\n"
    "[<0>] generic_perform_write+0x134/0x220\n[<0>] ext4_buffered_write_iter+0x6b/0x130\n"
    "[<0>] vfs_write+0x25a/0x450\n[<0>] __x64_sys_pwrite64+0x97/0xc0\n[<0>] do_syscall_64+0x82/0x190\n"
)
RECLAIM = (
    "[<0>] mempool_alloc_noprof+0x1a2/0x1c0\n[<0>] bio_alloc_bioset+0x1dd/0x430\n"
    "[<0>] __swap_writepage+0x11a/0x6b0\n[<0>] swap_writepage+0x3a/0x90\n[<0>] pageout+0xc6/0x270\n"
    "[<0>] shrink_folio_list+0x5ed/0xbd0\n[<0>] shrink_lruvec+0x5dd/0xc60\n[<0>] shrink_node+0x2e6/0x480\n"
    "[<0>] do_try_to_free_pages+0xd1/0x4c0\n[<0>] try_to_free_pages+0xdd/0x200\n"
    "[<0>] __alloc_pages_slowpath.constprop.0+0x34d/0xdc0\n[<0>] skb_page_frag_refill+0x81/0x120\n"
    "[<0>] tcp_sendmsg_locked+0x2a1/0xdd0\n[<0>] tcp_sendmsg+0x2c/0x50\n"
)
# of a guest with Linux 6.12.117 in which LIO serves a disk to the same machine
TARGET_THROTTLED = (
    "[<0>] balance_dirty_pages+0x3e7/0x9d0\n[<0>] balance_dirty_pages_ratelimited_flags+0x2a9/0x390\n"
    "[<0>] generic_perform_write+0x96/0x290\n[<0>] ext4_buffered_write_iter+0x6c/0x100\n"
    "[<0>] do_iter_readv_writev+0x122/0x220\n[<0>] vfs_iter_write+0x9d/0x210\n"
    "[<0>] fd_do_rw.isra.0+0x113/0x230 [target_core_file]\n"
    "[<0>] fd_execute_rw+0x101/0x490 [target_core_file]\n"
    "[<0>] __target_execute_cmd+0x26/0xb0 [target_core_mod]\n"
    "[<0>] iscsit_check_dataout_payload+0x82/0xb0 [iscsi_target_mod]\n"
    "[<0>] iscsit_get_rx_pdu+0x381/0x1170 [iscsi_target_mod]\n"
    "[<0>] iscsi_target_rx_thread+0x82/0x110 [iscsi_target_mod]\n[<0>] kthread+0xcf/0x100\n"
)
# of the kernel's own writer, which stands in the same place for anybody
FLUSHER = (
    "[<0>] wbt_wait+0x99/0x100\n[<0>] __rq_qos_throttle+0x27/0x40\n[<0>] blk_mq_submit_bio+0x14a/0x500\n"
    "[<0>] wb_workfn+0x309/0x480\n[<0>] process_one_work+0x172/0x390\n[<0>] kthread+0xcf/0x100\n"
)
WAITS_FOR_WORK = "[<0>] do_epoll_wait+0x64c/0x7e0\n[<0>] __x64_sys_epoll_wait+0x6c/0x110\n"


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """A root with nbd0 and process 7, whose threads have these stacks."""

    def make(*stacks: str, completed: int = 40, in_flight: int = 3) -> Path:
        device = tmp_path / "sys/class/block/nbd0"
        device.mkdir(parents=True, exist_ok=True)
        (device / "stat").write_text(f"{completed} 0 0 0 2 0 0 0 0 0 0 0 0 0 0 5 0\n")
        (device / "inflight").write_text(f"       1        {in_flight - 1}\n" if in_flight else "0 0\n")
        for number, stack in enumerate(stacks):
            task = tmp_path / f"proc/7/task/{7 + number}"
            task.mkdir(parents=True, exist_ok=True)
            (task / "stat").write_text(f"{7 + number} (server) D 1 7 7 0 -1 4194560 " + "0 " * 40)
            (task / "stack").write_text(stack)
        return tmp_path

    return make


def looked(root: Path, sleep: Callable[[float], None] = lambda _: None) -> list[tuple[FreezeWay, bool, str]]:
    """What is found on this machine."""
    return [(f.way, f.certain, f.reason) for f in find_freezes([NBD0], seconds=1.0, root=root, sleep=sleep)]


def test_a_throttled_daemon(machine: Callable[..., Path]) -> None:
    """The reason names the thread and where it stands."""
    ((way, certain, reason),) = looked(machine(WAITS_FOR_WORK, THROTTLED))
    assert (way, certain) == (FreezeWay.DIRTY_THROTTLING, True)
    assert "a request of /dev/nbd0 has waited for 1.0 s" in reason
    assert "thread 8 (server) of its daemon 7 waits in balance_dirty_pages()" in reason


def test_a_daemon_in_reclaim(machine: Callable[..., Path]) -> None:
    """Its allocation waits."""
    ((way, certain, reason),) = looked(machine(RECLAIM))
    assert (way, certain) == (FreezeWay.RECLAIM, True)
    assert "waits in mempool_alloc_noprof()" in reason


@pytest.mark.parametrize("children", ["90 91 92 93 ", None])
def test_a_thread_of_the_kernels_own_target(
    machine: Callable[..., Path], tmp_path: Path, children: str | None
) -> None:
    """It is no process's: its stack tells, also where the kernel does not tell its own threads."""
    root = machine(WAITS_FOR_WORK)
    threads = ((90, "kworker/u4:1", FLUSHER), (91, "iscsi_trx", TARGET_THROTTLED), (7, "server", None))
    for pid, comm, stack in threads:
        task = tmp_path / f"proc/{pid}"
        task.mkdir(parents=True, exist_ok=True)
        flags = PF_KTHREAD if stack else 4194560
        (task / "stat").write_text(f"{pid} ({comm}) D 2 0 0 0 -1 {flags} " + "0 " * 40)
        (task / "stack").write_text(stack or TARGET_THROTTLED)  # of a process nobody looks there
    if children is not None:
        kthreadd = tmp_path / "proc/2/task/2"
        kthreadd.mkdir(parents=True)
        (kthreadd / "children").write_text(children)
    assert [way for way, _, _ in looked(root)] == [FreezeWay.UNKNOWN]  # of a disk that a daemon serves
    disk = replace(NBD0, kernel_targets=("iSCSI target",))
    (found,) = find_freezes([disk], seconds=1.0, root=root, sleep=lambda _: None)
    assert (found.way, found.certain, found.kernel_waits) == (FreezeWay.DIRTY_THROTTLING, True, True)
    assert "thread 91 (iscsi_trx) of the kernel's own iSCSI target waits in balance_dirty" in found.reason
    assert [thread.tid for thread in found.threads] == [91]
    other = replace(NBD0, kernel_targets=("NVMe target",))
    (found,) = find_freezes([other], seconds=1.0, root=root, sleep=lambda _: None)
    assert (found.way, found.certain, found.kernel_waits) == (FreezeWay.UNKNOWN, False, False)


def test_a_daemon_that_waits_for_work_may_only_be_slow(machine: Callable[..., Path]) -> None:
    """Not certain, and nothing may be done about it by itself."""
    ((way, certain, reason),) = looked(machine(WAITS_FOR_WORK))
    assert (way, certain) == (FreezeWay.UNKNOWN, False)
    assert reason.endswith("it may only be slow")


def test_requests_that_complete_or_are_none(machine: Callable[..., Path]) -> None:
    """No freeze, whatever the daemon does: all that were in flight at first completed."""
    assert looked(machine(THROTTLED, in_flight=0)) == []
    root = machine(THROTTLED)
    assert looked(root, lambda _: (machine(completed=43), None)[1]) == []
    assert looked(machine(THROTTLED), lambda _: (machine(in_flight=0), None)[1]) == []


def test_it_is_looked_at_for_as_long_as_was_asked(machine: Callable[..., Path]) -> None:
    """A request that completes in the last moment was no freeze."""
    root = machine(THROTTLED)
    slept: list[float] = []
    assert looked(root, slept.append)
    assert sum(slept) == pytest.approx(1.0)

    def complete_at_last(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) > 0.95:
            machine(completed=43)

    slept.clear()
    assert looked(root, complete_at_last) == []


def test_one_request_that_waits_while_another_completes(machine: Callable[..., Path]) -> None:
    """A request is old and its daemon waits for itself: that is a stall, as `watch` has it."""
    ((way, certain, _),) = looked(machine(THROTTLED), lambda _: (machine(completed=41), None)[1])
    assert (way, certain) == (FreezeWay.DIRTY_THROTTLING, True)


def test_a_device_that_vanishes(machine: Callable[..., Path], tmp_path: Path) -> None:
    """Before the look and meanwhile."""
    assert looked(tmp_path) == []
    root = machine(THROTTLED)
    requests = DeviceRequests("nbd0", root)
    assert requests.read() == (47, 3)
    (root / "sys/class/block/nbd0/stat").write_text("")
    with pytest.raises(RescueError, match="/dev/nbd0 vanished"):
        requests.read()
    assert looked(root) == []


def test_the_state_is_looked_at_again(machine: Callable[..., Path]) -> None:
    """What was put on the daemon since the machine was looked at, and on all of its threads, counts."""
    root = machine(THROTTLED, WAITS_FOR_WORK)

    def covered() -> bool:
        (found,) = find_freezes([NBD0], seconds=0.1, root=root, sleep=lambda _: None)
        return found.device.daemons[0].covered

    assert not covered()
    for tid, already in ((7, False), (8, True)):
        stat = root / f"proc/7/task/{tid}/stat"
        stat.write_text(stat.read_text().replace("4194560", str(4194560 | PF_IO_FLUSHER)))
        assert covered() is already


def test_a_daemon_that_is_gone() -> None:
    """Its part is missing, and no thread is there to look at."""
    found = judge(NBD0.__class__("nbd0", NBD0.kind, missing=("NBD server",)), 3.0, read_threads([4194305]))
    assert found.way is FreezeWay.DAEMON_GONE
    assert "missing: NBD server" in found.reason


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (MultipathMap((False, False), queues=True), 1),
        (MultipathMap((), queues=True), 1),
        (MultipathMap((False, True), queues=True), 0),
        (MultipathMap((False, False), queues=False), 0),
        (None, 0),
    ],
)
def test_a_map_without_a_path(machine: Callable[..., Path], state: MultipathMap | None, found: int) -> None:
    """Nothing is in flight, and whether somebody waits nobody can tell; one that fails requests is none."""
    device = replace(NBD0, multipath="mpatha")
    asked: list[str] = []

    def tell(name: str) -> MultipathMap | None:
        asked.append(name)
        return state

    freezes = find_freezes([device, NBD0], seconds=1.0, root=machine(in_flight=0), ask_map=tell)
    assert asked == ["mpatha"]
    assert [(f.way, f.certain) for f in freezes] == [(FreezeWay.PATHS_LOST, False)] * found
    for freeze in freezes:
        assert state is not None
        assert f"none of the {len(state.paths)} paths of mpatha is in use" in freeze.reason


def test_a_thread_that_just_looks_whether_it_may_go_on(machine: Callable[..., Path]) -> None:
    """Paused again a moment later: it is looked at more than once."""
    root = machine(WAITS_FOR_WORK)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if slept.count(BETWEEN_LOOKS_S) == 2:
            (root / "proc/7/task/7/stack").write_text(THROTTLED)

    ((way, certain, _),) = looked(root, sleep)
    assert (way, certain) == (FreezeWay.DIRTY_THROTTLING, True)
    assert slept.count(BETWEEN_LOOKS_S) == 2
    (root / "proc/7/task/7/stack").write_text(WAITS_FOR_WORK)
    slept.clear()
    ((way, certain, _),) = looked(root, slept.append)
    assert (way, certain) == (FreezeWay.UNKNOWN, False)
    assert slept.count(BETWEEN_LOOKS_S) == MOST_LOOKS_AT_THREADS - 1
