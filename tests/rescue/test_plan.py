"""Which actions are planned for which freeze, with which commands."""

import errno
import socket
from dataclasses import replace

import pytest

from ioflusher.kernel.stall import SelfWait
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.action import Loss, Prepared, RescueStep
from ioflusher.rescue.actions.daemon_state import DaemonState
from ioflusher.rescue.actions.dirty_limits import dirty_limit
from ioflusher.rescue.actions.nbd_send_buffer import NbdSendBuffer
from ioflusher.rescue.actions.reserve import Reserve
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import FreezeWay, WaitingThread
from ioflusher.rescue.other_server import OtherServer
from ioflusher.rescue.plan import ACTIONS, plan
from ioflusher.rescue.served import FuseMount
from tests.rescue.freezes import THROTTLED, freeze


def steps(way: FreezeWay, memory: Memory = THROTTLED, **changes: object) -> dict[str, RescueStep]:
    """What is planned, by the action's name, in its order."""
    return {step.action: step for step in plan(freeze(way, **changes), memory).steps}


def why_not(way: FreezeWay, action: str, memory: Memory = THROTTLED, **changes: object) -> str:
    """Why an action does not apply."""
    return next(o.why for o in plan(freeze(way, **changes), memory).others if o.action == action)


def test_a_throttled_daemon_gets_room_for_dirty_pages_and_the_limits_come_back() -> None:
    """Enough that what is dirty lies below three quarters of it; undone to the bytes that held."""
    step = steps(FreezeWay.DIRTY_THROTTLING)["dirty-limits"]
    assert step.loss is Loss.NOTHING
    raised = 2 * (7680 << 10) + (64 << 20)
    assert step.commands == (
        f"echo {raised} > /proc/sys/vm/dirty_bytes",
        f"echo {raised // 2} > /proc/sys/vm/dirty_background_bytes",
    )
    assert step.undo == (
        f"echo {4 << 20} > /proc/sys/vm/dirty_background_bytes",
        f"echo {8 << 20} > /proc/sys/vm/dirty_bytes",
    )
    assert [write.command for write in (*step.writes, *step.restores)] == [*step.commands, *step.undo]
    assert step.reason == (
        f"7 MiB are dirty or under writeback; nobody is paused below {raised * 3 // 4 >> 20} MiB then, "
        "so the daemon goes on storing"
    )
    assert f"up to {raised >> 20} MiB may be dirty" in step.loses


def test_the_limit_that_holds_is_the_bytes_or_the_ratio_of_what_is_available() -> None:
    """What is not known makes it unknown."""
    assert dirty_limit(THROTTLED) == 8 << 20
    assert dirty_limit(Memory(dirty_bytes=0, dirty_ratio=20, available_kib=1000)) == 200 << 10
    assert dirty_limit(Memory(dirty_bytes=0, dirty_ratio=20)) is None
    assert dirty_limit(Memory(available_kib=1000)) is None
    assert dirty_limit(Memory(available_kib=1000, dirty_bytes=0, dirty_ratio=0)) is None


def test_ratios_come_back_as_ratios() -> None:
    """Writing the bytes clears the ratio: it is the ratio that has to be written again."""
    memory = replace(
        THROTTLED, dirty_bytes=0, dirty_background_bytes=0, dirty_ratio=20, dirty_background_ratio=10
    )
    assert steps(FreezeWay.DIRTY_THROTTLING, memory)["dirty-limits"].undo == (
        "echo 10 > /proc/sys/vm/dirty_background_ratio",
        "echo 20 > /proc/sys/vm/dirty_ratio",
    )


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (replace(THROTTLED, available_kib=14 << 10), "is the most that this machine's memory bears"),
        (replace(THROTTLED, writeback_kib=None), "are not known"),
        (replace(THROTTLED, dirty_bytes=None, dirty_ratio=None), "are not known"),
    ],
)
def test_limits_that_cannot_be_raised(memory: Memory, why: str) -> None:
    """Too little memory, or figures that are missing: said."""
    assert why in why_not(FreezeWay.DIRTY_THROTTLING, "dirty-limits", memory)


def test_the_kernels_own_target_gets_room_and_no_state() -> None:
    """Its threads take none; said, with what keeps the next freeze away. A daemon beside gets it."""
    trx = WaitingThread(197, 197, "iscsi_trx", "D", SelfWait.DIRTY_THROTTLING, target="iSCSI target")
    frozen = replace(freeze(kernel_targets=("iSCSI target",)), threads=(trx,))
    planned = plan(frozen, THROTTLED)
    assert planned.steps[0].reason.endswith("so the kernel's own iSCSI target goes on storing")
    (why,) = (other.why for other in planned.others if other.action == "daemon-state")
    assert why.startswith(
        "the kernel's own iSCSI target waits, and nothing puts the state on a thread of the kernel"
    )
    assert "backstore block instead of fileio" in why
    own = WaitingThread(7, 7, "server", "D", SelfWait.DIRTY_THROTTLING)
    both = plan(replace(frozen, threads=(trx, own)), THROTTLED)
    assert both.steps[0].reason.endswith("so the daemon goes on storing")
    assert [step.action for step in both.steps][1] == "daemon-state"


def test_what_loses_least_comes_first() -> None:
    """And every action has its say, one way or the other."""
    planned = plan(freeze(), THROTTLED)
    losses = [step.loss for step in planned.steps]
    assert losses == sorted(losses)
    assert [step.action for step in planned.steps] == ["dirty-limits", "daemon-state", "nbd-disconnect"]
    assert [step.action for step in planned.steps if step.background] == ["daemon-state"]
    assert len(planned.steps) + len(planned.others) == len(ACTIONS)


def test_a_daemon_in_reclaim_gets_memory_and_the_driver_room_to_send() -> None:
    """A quarter of the reserve stays."""
    planned = steps(FreezeWay.RECLAIM, swaps=("/dev/nbd0",))
    assert list(planned) == ["daemon-state", "nbd-send-buffer", "min-free", "nbd-disconnect"]
    assert planned["min-free"].commands == ("echo 2048 > /proc/sys/vm/min_free_kbytes",)
    assert planned["min-free"].undo == ("echo 8192 > /proc/sys/vm/min_free_kbytes",)
    assert planned["nbd-send-buffer"].commands == ("ioflusher rescue --now --only nbd-send-buffer /dev/nbd0",)
    assert "processes whose pages lie in its swap are killed (/dev/nbd0)" in planned["nbd-disconnect"].loses


def test_memory_that_is_held_is_given_back_before_the_kernels_reserve() -> None:
    """Who holds none says who could."""
    held = Reserve(1 << 20)
    actions = tuple(held if action.name == "reserve" else action for action in ACTIONS)
    planned = plan(freeze(FreezeWay.RECLAIM), THROTTLED, actions=actions)
    names = [step.action for step in planned.steps]
    assert names.index("reserve") == names.index("min-free") - 1
    step = planned.steps[names.index("reserve")]
    assert held.prepare(planned.freeze, step).do() == "1 MiB are given back"
    assert not held.held
    assert "ioflusher guard --reserve SIZE" in why_not(FreezeWay.RECLAIM, "reserve")


class Socket:
    """What is set of a socket; without room beyond `most`."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.room = 212_992
        self._most = most

    def getsockopt(self, level: int, option: int) -> int:
        return 2 * self.room  # as the kernel tells it, net/core/sock.c

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.SOL_SOCKET, 32)  # SO_SNDBUFFORCE
        if value > self._most:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        self.room = value

    def close(self) -> None:
        self.room = 0


def send_buffers(monkeypatch: pytest.MonkeyPatch, *sockets: Socket) -> Prepared:
    """The action with these sockets."""
    monkeypatch.setattr("ioflusher.rescue.actions.nbd_send_buffer.borrow_sockets", lambda pids: sockets)
    frozen = freeze(FreezeWay.RECLAIM)
    return NbdSendBuffer().prepare(frozen, steps(FreezeWay.RECLAIM)["nbd-send-buffer"])


def test_sockets_get_room_and_have_what_they_had_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB; undone once."""
    sock = Socket()
    prepared = send_buffers(monkeypatch, sock)
    assert prepared.do() == "1 sockets have room for 16 MiB"
    assert sock.room == 16 << 20
    assert prepared.undo() == "1 sockets have the room that they had"
    assert sock.room == 212_992
    assert prepared.undo() == ""
    prepared.close()
    assert sock.room == 0


def test_room_that_one_socket_does_not_get_is_taken_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails half-way is put back."""
    first = Socket()
    prepared = send_buffers(monkeypatch, first, Socket(most=1 << 20))
    with pytest.raises(RescueError, match="gives a socket no more room: Operation not permitted"):
        prepared.do()
    assert first.room == 212_992


def test_the_send_buffer_needs_who_holds_the_socket() -> None:
    """A device that was set up over netlink has nobody."""
    assert "no process is known" in why_not(FreezeWay.RECLAIM, "nbd-send-buffer", clients=())


def test_the_state_is_for_daemons_that_lack_it() -> None:
    """One that has it is left alone."""
    planned = steps(FreezeWay.RECLAIM)["daemon-state"]
    assert planned.commands == ("ioflusher set --timeout 60 7",)
    assert planned.background
    gone = replace(freeze().device.daemons[0], pid=4194305)
    frozen = freeze(FreezeWay.RECLAIM, daemons=(gone,))
    with pytest.raises(RescueError, match="the state was put on no thread: 4194305: "):
        DaemonState().prepare(frozen, planned).do()
    covered = replace(freeze().device.daemons[0], covered=True)
    assert "carries the state" in why_not(FreezeWay.RECLAIM, "daemon-state", daemons=(covered,))


def test_another_server_of_the_same_store_may_take_over() -> None:
    """Its server is killed in between; what that may lose is said, and needs leave."""
    other = OtherServer(12, "nbdkit", "nbd+unix:///?socket=/run/b.sock", 7, "/disk.img")
    step = steps(FreezeWay.DIRTY_THROTTLING, other_server=other)["nbd-take-over"]
    reconnect, uri = "ioflusher nbd reconnect", "/dev/nbd0 'nbd+unix:///?socket=/run/b.sock'"
    assert step.commands == (
        f"{reconnect} --timeout 30 --dead-connection-timeout 120 {uri}",
        "kill -9 7",
        f"{reconnect} {uri}",
    )
    assert step.loss is Loss.DEVICE
    assert step.loses.startswith("what process 7 acknowledged and holds in its own memory alone")
    assert step.wait_s > 30
    assert "no other server" in why_not(FreezeWay.DIRTY_THROTTLING, "nbd-take-over")
    assert "would not end before" in why_not(FreezeWay.RECLAIM, "nbd-take-over", other_server=other)
    assert "no nbd device" in why_not(
        FreezeWay.DIRTY_THROTTLING, "nbd-take-over", kind=DeviceKind.UBLK, other_server=other
    )


def test_the_connection_of_the_mount_in_the_path_is_aborted() -> None:
    """That one and no other, and what is lost with it is said."""
    step = steps(
        FreezeWay.DIRTY_THROTTLING, kind=DeviceKind.LOOP, name="loop0", fuse=(FuseMount(38, "/photos"),)
    )["fuse-abort"]
    assert step.commands == ("echo 1 > /sys/fs/fuse/connections/38/abort",)
    assert step.loss is Loss.DEVICE
    assert "/photos (connection 38)" in step.loses
    assert "(/data)" in step.loses


def test_multipath_is_told_to_fail_and_to_queue_again() -> None:
    """The map of that name."""
    step = steps(FreezeWay.PATHS_LOST, kind=DeviceKind.DM, name="dm-3", multipath="mpatha")[
        "multipath-queueing"
    ]
    assert step.commands == ("dmsetup message mpatha 0 fail_if_no_path",)
    assert step.undo == ("dmsetup message mpatha 0 queue_if_no_path",)


def test_only_those_that_are_named() -> None:
    """Nothing else is looked at."""
    planned = plan(freeze(), THROTTLED, only=("daemon-state",))
    assert [step.action for step in planned.steps] == ["daemon-state"]
    assert planned.others == ()
