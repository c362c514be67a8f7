"""The kernel's own NBD client judges our servers, in a guest: one boot, many checks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 600.0  # seconds: about 60 under emulation on an idle machine

Found = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def found() -> Found:
    """What guest_kernel_client.py found in the guest, by check; file systems by back end."""
    command = [
        sys.executable,
        "-m",
        "ioflusher",
        "lab",
        "exec",
        "--load",
        "nbd nbds_max=2",
        "--load",
        "xfs",
        "--load",
        "btrfs",
        "--timeout",
        "500",
        "--",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.nbd.guest_kernel_client"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=ROOT,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert lines[-1] == {"check": "end"}
    return {line.pop("kind", line["check"]): line for line in lines}


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("memory", ["by_ioctl", "by_netlink"]),
        ("file", ["by_netlink", "by_ioctl"]),
        ("remote", ["by_ioctl", "by_netlink"]),
    ],
)
def test_a_file_system_survives(found: Found, kind: str, ways: list[str]) -> None:
    """ext4 is made and filled through one way of attaching, and read back the same through the other."""
    assert found[kind] == {"check": "file system", "ways": ways, "same": True, "left_running": False}


def test_the_daemon_is_hardened(found: Found) -> None:
    """With a client served, every thread of it has the state and priority; its memory is locked."""
    daemon = found["daemon"]
    assert daemon["states"] == [True] * 3, "the main thread, the log's and the connection's"
    assert (daemon["locked"], daemon["fifo"], daemon["score"]) == (True, True, "-1000")


def test_without_the_state_no_thread_has_it(found: Found) -> None:
    """--no-io-flusher sets it on none."""
    assert found["without"]["states"] == [False] * 3


@pytest.mark.parametrize(("choice", "state"), [("--no-io-flusher", False), ("--io-flusher", True)])
def test_an_inherited_state_is_cleared_or_kept(found: Found, choice: str, state: bool) -> None:
    """Started below `ioflusher run`, which sets it, the daemon has what was asked for."""
    assert found[choice] == {"check": "inherited", "line": "listening", "states": [state] * 2}


def test_the_kernel_keeps_to_the_servers_limit(found: Found) -> None:
    """The kernel's requests are no longer than what the server takes (1 MiB here, 1280 KiB by default)."""
    assert found["requests are held to the server's limit"]["limit"] == 1024


def test_the_commands(found: Found) -> None:
    """`nbd attach` holds the device until SIGTERM; `nbd serve` ends cleanly and removes its socket."""
    assert found["attached by command"]["line"] == "attached /dev/nbd0"
    assert found["attached by command"]["size"] == 64 << 20
    assert found["detached by signal"] == {"check": "detached by signal", "status": 0, "running": False}
    assert found["daemon ended"] == {"check": "daemon ended", "status": 0, "socket_left": False}


@pytest.mark.parametrize(
    ("check", "number"),
    [
        ("detach what is not attached", "ENOTCONN"),
        ("attach twice by ioctl", "EBUSY"),
        ("attach twice by netlink", "EBUSY"),
    ],
)
def test_what_cannot_be_is_refused(found: Found, check: str, number: str) -> None:
    """Errors carry their errno, and the device in use is left alone."""
    assert found[check]["errno"] == number


def test_a_server_that_dies_leaves_no_hanging_device(found: Found) -> None:
    """Requests fail with EIO soon, and the device can be detached."""
    gone = found["server gone"]
    assert (gone["outcome"], gone["prompt"], gone["running"]) == ("EIO", True, False)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_each_file_system(found: Found, kind: str) -> None:
    """A tree is copied, its file system's own check finds nothing, and every checksum is right."""
    assert found[kind] == {"check": "kind of file system", "checked": 0, "same": True}
    assert found["detached by command"]["said"] == ""


def test_reconnect_loses_nothing(found: Found) -> None:
    """A server killed while four threads write past the cache, another in its place: no block is wrong."""
    done = found["reconnected"]
    assert (done["status"], done["errors"], done["wrong"], done["went_on"]) == (0, [], 0, True), done
    assert "connections taken: 1 of 1 offered" in str(done["said"])


def test_reconnect_says_what_it_cannot(found: Found) -> None:
    """Where no connection is dead none is taken, status 1; another back-end identifier is refused."""
    alive, wrong = found["none is dead"], found["another name"]
    assert (alive["status"], "no connection is dead" in str(alive["said"])) == (1, True), alive
    assert (wrong["errno"], "back-end identifier 'disk'" in str(wrong["hint"])) == (22, True), wrong


def test_the_kernels_worker_ends_before_its_connection_is_replaced(found: Found) -> None:
    """If not, it shuts down the one that it was not started for: a write fails, or comes just before."""
    waited, not_waited = (found[f"replaced at once, waited {wait}"] for wait in (True, False))
    assert (waited["running"], waited["taken"], not_waited["taken"]) == (0, 1, 1)
    assert (waited["shut_down"], waited["failed"]) == (False, []), waited
    assert not_waited["shut_down"], not_waited


@pytest.mark.parametrize("kind", ["killed", "hanging"])
def test_a_standby_takes_over(found: Found, kind: str) -> None:
    """The first server is killed, or hangs, while four threads write: no error, no block wrong, it is dead.

    One that hangs is found by the device's time-out of 2 s.
    """
    done = found[f"taken over, {kind}"]
    assert (done["errors"], done["wrong"], done["went_on"]) == ([], 0, True), done
    assert (done["status"], done["first_alive"]) == (1, False), done
    assert "taken over server=" in str(done["said"])
    assert (done["carries"], done["locked"]) == ([True, True], True), "its own thread and the log's"


@pytest.mark.parametrize("kind", ["ioctl", "netlink"])
def test_a_detach_is_no_death(found: Found, kind: str) -> None:
    """The standby ends with the device, kills nobody and brings nothing back."""
    done = found[f"detached by {kind} with a standby"]
    assert (done["status"], done["said"]) == (0, ""), done
    assert (done["first_alive"], done["running"]) == (True, False)


def test_the_status(found: Found) -> None:
    """What the kernel tells of a device that was attached over netlink by a command that has ended."""
    assert found["attached with options"]["status"] == 0, found["attached with options"]
    told = found["status of the device"]["told"]
    assert isinstance(told, dict)
    assert told | {"attached_by": 0} == {
        "device": "/dev/nbd0",
        "attached": True,
        "configured": True,
        "attached_by": 0,
        "alive": False,
        "backend": "disk",
        "size": 320 << 20,
        "read_only": False,
        "block_size": 4096,
        "queues": 1,
        "reads": 0,
        "writes": 0,
        "timeout_ms": 2000,
    }
    assert "/dev/nbd0  320 MiB" in str(found["list"]["said"])
    assert found["status afterwards"]["code"] == 1


def test_detach_when_the_attacher_has_died(found: Found) -> None:
    """By ioctl the device ends with it and is free again; over netlink it lives on and is detached."""
    died = found["attacher died"]
    assert (died["ended"], died["alive"], died["running"]) == (True, False, False)


def test_flags(found: Found) -> None:
    """Read-only, detached by the last close; and a device made for this and removed again."""
    closed, vanished = found["closed"], found["vanished"]
    assert (closed["refused"], closed["ended"]) == ("Operation not permitted", True)
    assert (vanished["there"], vanished["gone"]) == (True, True)
