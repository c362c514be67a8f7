"""When a standby takes over and when not; the kernel is played here, the real one is in test_guest.py."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.cli.program import call

from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernel_client import device as devices
from ioflusher.nbd.kernel_client import receive_workers
from ioflusher.nbd.kernel_client import standby as module
from ioflusher.nbd.kernel_client.device import AttachError
from ioflusher.nbd.kernel_client.fence import Fence
from ioflusher.nbd.kernel_client.reconnect import SpareConnections
from ioflusher.nbd.kernel_client.standby import Standby, StandbyEnd

SECOND = Address(path="/run/second")


class Notices:
    """What the driver tells: `die` has it tell of a connection of nbd0."""

    def __init__(self) -> None:
        self.ours, self.kernels = socket.socketpair()
        self.index = 0

    def hear(self) -> None:
        """Nothing to do: the test has `die`."""

    def fileno(self) -> int:
        return self.ours.fileno()

    def deaths(self) -> tuple[int, ...]:
        return (self.index,) * len(self.ours.recv(64))

    def die(self, connections: int = 1) -> None:
        self.kernels.send(bytes(connections))

    def close(self) -> None:
        self.ours.close()
        self.kernels.close()


class Spare:
    """Connections to the second server, of which the kernel takes one at each offer from the second on."""

    def __init__(self, count: int) -> None:
        self.address = SECOND
        pairs = [socket.socketpair() for _ in range(count)]
        self.sockets = [ours for ours, _ in pairs]
        self.servers = [server for _, server in pairs]
        self.offers = 0

    def offer(self) -> int:
        self.offers += 1
        return self.offers - 1

    def close(self) -> None:
        for sock in (*self.sockets, *self.servers):
            sock.close()


class Stage:
    """A device with two connections, both ends of each; its standby, which watches in a thread."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (place / "nbd0").mkdir()
        self.pid, self.inflight = place / "nbd0/pid", place / "nbd0/inflight"
        self.pid.write_text("77\n")
        self.in_flight(0)
        monkeypatch.setattr(devices, "SYS_BLOCK", place)
        self.worker = place / "66/comm"
        self.worker.parent.mkdir()
        self.worker.write_text("kworker/u5:0-nbd0-recv\n")
        monkeypatch.setattr(receive_workers, "PROC", place)
        monkeypatch.setattr(receive_workers, "UNSEEN", receive_workers.UNSEEN / 20)
        for name in ("LEFT_IN_FLIGHT", "NEAR", "RECONNECT", "HURRY", "OFFER", "FENCING"):
            monkeypatch.setattr(module, name, getattr(module, name) / 20)
        self.notices = Notices()
        monkeypatch.setattr(module, "NbdNetlink", lambda: self.notices)
        self.said: list[str] = []
        self.spares: list[Spare] = []
        self.reachable = True
        pairs = [socket.socketpair() for _ in range(2)]
        self.kernels = [kernels for kernels, _ in pairs]
        self.servers = [server for _, server in pairs]

    def in_flight(self, reads: int) -> None:
        self.inflight.write_text(f"{reads:8} {0:8}\n")

    def connect(self, address: Address) -> SpareConnections:
        assert address is SECOND
        if not self.reachable:
            raise NbdError("nobody is there")
        self.spares.append(Spare(2))
        return cast(SpareConnections, self.spares[-1])

    @contextlib.contextmanager
    def standing_by(self, *fenced: int) -> Iterator[Standby]:
        """The standby at work; what it came to is `end`."""
        self.end: StandbyEnd | None = None
        fence = Fence(fenced)
        sockets = [socket.socket(fileno=os.dup(sock.fileno())) for sock in self.kernels]
        with Standby("/dev/nbd0", sockets, SECOND, self.connect, fence, self._say) as standby:

            def watch() -> None:
                self.end = standby.watch()

            self.thread = threading.Thread(target=watch)
            self.thread.start()
            try:
                yield standby
            finally:
                standby.stop()
                self.thread.join(10)
                fence.close()

    def _say(self, what: str, **facts: object) -> None:
        self.said.append(what)

    def ended(self, seconds: float = 10.0) -> StandbyEnd | None:
        """What it came to, if it did so in time."""
        self.thread.join(seconds)
        return self.end

    def await_saying(self, what: str) -> bool:
        deadline = time.monotonic() + 10
        while what not in self.said and time.monotonic() < deadline:
            time.sleep(0.005)
        return what in self.said

    def close(self) -> None:
        for sock in (*self.kernels, *self.servers):
            sock.close()
        for spare in self.spares:
            spare.close()
        self.notices.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with contextlib.closing(Stage(tmp_path, monkeypatch)) as stage:
        yield stage


def test_the_kernel_says_that_both_connections_died(stage: Stage) -> None:
    """All are gone, and not by a detach: the spare ones are offered until the kernel has them all."""
    with stage.standing_by():
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended() is StandbyEnd.TAKEN_OVER
    assert stage.spares[0].offers == 3
    assert stage.said == ["taken over"]


def test_one_of_two_connections_is_no_reason(stage: Stage) -> None:
    """The kernel goes on with the other one; and the later end of that by a detach does not add up to two."""
    with stage.standing_by():
        stage.servers[0].close()
        stage.notices.die(1)
        assert stage.ended(0.2) is None
        stage.servers[1].close()
        assert stage.ended(0.2) is None, "it is not known yet"
        stage.pid.write_text("")
        assert stage.ended() is StandbyEnd.DETACHED
    assert stage.spares[0].offers == 0


def test_requests_left_in_flight_say_it_too(stage: Stage) -> None:
    """The kernel had no memory for its notice; a detach would have left none in flight."""
    with stage.standing_by():
        for server in stage.servers:
            server.close()
        assert stage.ended(0.2) is None
        stage.in_flight(3)
        assert stage.ended() is StandbyEnd.TAKEN_OVER


def test_another_devices_death_does_not_count(stage: Stage) -> None:
    """The driver tells of all devices."""
    stage.notices.index = 4
    with stage.standing_by():
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended(0.2) is None


def test_a_device_that_somebody_else_attached_since(stage: Stage) -> None:
    """It is left alone, and so is the process that was to be killed."""
    with subprocess.Popen(["sleep", "60"]) as sleeper, stage.standing_by(sleeper.pid):
        stage.pid.write_text("78\n")
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended() is StandbyEnd.DETACHED
        assert sleeper.poll() is None
        sleeper.kill()


def test_the_first_server_has_ended_before_the_second_is_offered(stage: Stage) -> None:
    """A server that hangs, stopped, is killed; and its sockets are shut down, whoever else holds them."""
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.send_signal(signal.SIGSTOP)
        with stage.standing_by(first.pid):
            for sock in stage.kernels:
                sock.shutdown(socket.SHUT_RDWR)  # the kernel's time-out
            stage.notices.die(2)
            assert stage.ended() is StandbyEnd.TAKEN_OVER
        assert first.wait(0) == -signal.SIGKILL
    assert stage.servers[0].recv(1) == b""


def test_the_kernels_worker_has_ended_before_the_second_is_offered(stage: Stage) -> None:
    """It would shut down whatever has come into its connection's place."""
    stage.worker.write_text("kworker/u5:0+nbd0-recv\n")
    with stage.standing_by():
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended(0.3) is None
        assert stage.spares[0].offers == 0
        stage.worker.write_text("kworker/u5:0-nbd0-recv\n")
        assert stage.ended() is StandbyEnd.TAKEN_OVER
    assert stage.said == ["taken over"]


def test_a_worker_that_does_not_end_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has no server: it gets the second one all the same."""
    monkeypatch.setattr(module, "RECEIVING", 0.1)
    stage.worker.write_text("kworker/u5:0+nbd0-recv\n")
    with stage.standing_by():
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended() is StandbyEnd.TAKEN_OVER
    assert stage.said == ["the kernel's workers do not end", "taken over"]


def test_a_standby_that_went_away_is_reached_again(stage: Stage) -> None:
    """Its new connections are what the kernel gets."""
    with stage.standing_by():
        stage.reachable = False
        stage.spares[0].servers[0].close()
        assert stage.await_saying("the standby cannot be reached")
        stage.reachable = True
        assert stage.await_saying("the standby is there again")
        for server in stage.servers:
            server.close()
        stage.notices.die(2)
        assert stage.ended() is StandbyEnd.TAKEN_OVER
    assert [spare.offers for spare in stage.spares] == [0, 3]


def test_both_servers_gone(stage: Stage) -> None:
    """The standby is tried for as long as the device is there."""
    with stage.standing_by():
        stage.reachable = False
        for server in (*stage.servers, *stage.spares[0].servers):
            server.close()
        stage.notices.die(2)
        assert stage.ended(0.3) is None
        stage.reachable = True
        assert stage.ended() is StandbyEnd.TAKEN_OVER
    assert [spare.offers for spare in stage.spares] == [0, 3]


def test_it_sleeps(stage: Stage) -> None:
    """While all is well nothing wakes it up; asked to, it ends, and the device has its server still."""
    with stage.standing_by() as standby:
        time.sleep(0.1)
        switches = _switches(stage.thread)
        time.sleep(0.3)
        assert _switches(stage.thread) == switches
        standby.stop()
        assert stage.ended() is StandbyEnd.STOPPED
    poll = select.poll()
    poll.register(stage.servers[0], select.POLLRDHUP)
    assert poll.poll(0) == []


def _switches(thread: threading.Thread) -> int:
    text = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(text.split("voluntary_ctxt_switches:")[1].split()[0])


def test_who_must_not_be_fenced() -> None:
    """Process 1, which a socket of systemd's seems to belong to, and this one."""
    for pid in (1, os.getpid()):
        with pytest.raises(AttachError, match="not to be killed"):
            Fence([pid])


def test_a_fence_needs_a_process() -> None:
    """One that is gone is an error now, and none when it goes later."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(AttachError, match="cannot hold process"):
        Fence([gone.pid])
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        fence = Fence([sleeper.pid])
        sleeper.kill()
        sleeper.wait()
        assert fence.kill(0.0) == ()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--standby", "nbd://b"], "one of --fence PID and --no-fence"),
        (["--standby", "nbd://b", "--fence", "7", "--no-fence"], "one of --fence PID and --no-fence"),
        (["--fence", "7"], "go with --standby"),
        (["--no-fence"], "go with --standby"),
        (["--standby", "nbd://b", "--no-fence", "--timeout", "0"], "time-outs above 0"),
        (["--standby", "nbd://b", "--no-fence", "--ioctl"], "need --netlink"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], complaint: str) -> None:
    """Whether two servers may write is for the caller to say."""
    done = call("nbd", "attach", *options, "/dev/nbd0", "nbd://a")
    assert done.status == 2
    assert complaint in " ".join(done.stderr.split())
