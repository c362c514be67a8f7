"""The kernel's own rules and the library on top of them, in a guest that permits the call."""

import errno
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm
SET, CLEAR = "0x180000", "0x0"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_flag.py found in the guest, by check."""
    script = str(Path(__file__).with_name("guest_flag.py"))
    done = ioflusher(
        "lab",
        "exec",
        "--load",
        "nbd nbds_max=1",
        "--timeout",
        "400",
        "--",
        sys.executable,
        script,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_errno_rules(found: dict[str, Any]) -> None:
    """Arguments that must be zero, values that exist, the capability: as kernel/sys.c has it."""
    assert found["at first"] == [0, CLEAR]
    assert found["set to 2 and -1"] == ["EINVAL"] * 2
    assert found["set, unused arguments"] == ["EINVAL"] * 3
    assert found["get, unused arguments"] == ["EINVAL"] * 4
    assert found["untouched by errors"] == CLEAR
    assert found["set"] == [1, SET, True]
    assert found["cleared"] == [0, CLEAR, False]
    refused = f"-1 {errno.EPERM}"
    assert found["without capability, set"] == found["without capability, get"] == refused
    assert found["without capability, wrong arguments"] == refused  # asked for before anything else
    assert found["without capability, the library reads"] == "False"
    assert found["root of a user namespace, set"] == refused
    assert found["root of a user namespace, the library"] == f"{errno.EPERM} [] True"


def test_inheritance(found: dict[str, Any]) -> None:
    """New threads, children and programs have it; those born before do not; it outlives privileges."""
    assert found["a thread born before"] == CLEAR
    for heir in ("a thread born after", "a forked child", "an executed program", "without privileges"):
        assert found[heir] == SET, heir
    assert found["cleared for a thread"] == CLEAR
    assert found["a child without it"] == CLEAR
    assert found["an async child without it"] == CLEAR


def test_scopes_and_pools(found: dict[str, Any]) -> None:
    """Each scope restores what it found; a pool's workers all carry the state."""
    assert found["scopes"] == [CLEAR, SET, CLEAR, CLEAR, SET, SET, CLEAR]
    assert found["a pool's workers"] == [SET]
    for method in ("fork", "forkserver", "spawn"):
        assert found[f"a process pool's worker, {method}"] == SET, method


def test_a_device_is_not_disconnected(found: dict[str, Any]) -> None:
    """NBD_DO_IT would return when interrupted: the thread is reported as unsafe, and the device goes on."""
    status, outcomes, other_complete = found["set on a device's client"]
    assert status == 1
    assert "unsafe" in outcomes
    assert set(outcomes) <= {"unsafe", "done"}
    assert other_complete
    assert found["the device reads"] == 4 << 20
    ((reason, hint),) = found["why not"]
    assert (reason, "ioflusher run" in hint) == ("nbd_do_it", True)


def test_the_device_of_qemu_nbd(found: dict[str, Any]) -> None:
    """`set` leaves out the thread that holds the device, and only that; under `run` it has the state too."""
    if "qemu-nbd, set" not in found:
        pytest.skip("needs qemu-nbd: tools/packages test")
    status, left, complete, threads = found["qemu-nbd, set"]
    assert (status, left, complete) == (1, [[True, "unsafe", "nbd_do_it"]], False)
    assert threads > 2
    complete, threads = found["qemu-nbd, run"]
    assert (complete, threads > 2) == (True, True)
    for how in ("set", "run"):
        assert found[f"qemu-nbd, {how}, the device reads"] == 4 << 20


def test_launcher(found: dict[str, Any]) -> None:
    """The command runs in the state as the user asked for, hardened, and its end is its own."""
    assert found["run as nobody"] == [SET, "65534 65534 [65534] 0000000000000000"]
    assert found["run hardened"] == "-900 2 7 -1"
    assert found["run, status"] == 7
    assert found["run, signal"] == -signal.SIGUSR1


@pytest.mark.needs("node")
def test_a_runtime_with_threads_of_its_own(found: dict[str, Any]) -> None:
    """Node: under `run` every thread has the state; `set` reaches all, and those that they start later."""
    ready, (threads, complete), more, (then, still_complete), *rest = found["node under run"]
    assert (ready, complete, more, still_complete) == ("ready", True, "more", True)
    assert threads > 4
    assert then > threads
    assert rest == ["0 failures", 0]
    ready, (_, complete), status, (threads, covered), more, (then, still), *rest = found["node under set"]
    assert (ready, complete, status, covered, more, still) == ("ready", False, 0, True, "more", True)
    assert then > threads > 4
    assert rest == ["0 failures", 0]
