"""What the lab looks at before it boots anything."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, cast

import pytest

from ioflusher.lab import qemu, session
from ioflusher.lab.errors import LabError, MachineLost
from ioflusher.lab.session import SUN_PATH_BYTES, await_agent, check_socket_paths
from ioflusher.lab.vm import CONTROL_SOCKET, DIRECTORY_PREFIX, Ended, VirtualMachine
from ioflusher.scenario.file import find_scenario


def test_a_directory_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest name that fits is taken, one byte more is refused with the directory and what to do."""
    behind = len(f"/{DIRECTORY_PREFIX}12345678/{CONTROL_SOCKET}")
    fits = "/" + "d" * (SUN_PATH_BYTES - 1 - behind - 1)
    monkeypatch.setattr(tempfile, "tempdir", fits)
    check_socket_paths()
    monkeypatch.setattr(tempfile, "tempdir", fits + "d")
    with pytest.raises(LabError, match=f"too long a name for sockets: {fits}d") as caught:
        check_socket_paths()
    assert caught.value.hint == "set TMPDIR to a shorter one"


def test_the_limit_is_the_systems(tmp_path: Path) -> None:
    """A socket with a name of 107 bytes can be bound, one of 108 cannot."""
    import socket

    for length, fits in ((SUN_PATH_BYTES - 1, True), (SUN_PATH_BYTES, False)):
        with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as sock:
            name = f"{directory}/".ljust(length, "s")
            if fits:
                sock.bind(name)
            else:
                with pytest.raises(OSError, match="too long"):
                    sock.bind(name)


@pytest.mark.parametrize(
    ("asked", "needed", "wanted", "says"),
    [
        (None, "", None, "it is nowhere"),
        (None, "5.8", "5.8", "the scenario swap-on-nbd needs a kernel 5.8: it is nowhere"),
        ("6.1", "5.8", "6.1", "it is nowhere"),
    ],
)
def test_the_kernel_of_a_scenario(
    asked: str | None, needed: str, wanted: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for comes first, then what the scenario needs, which is said where it cannot be had."""
    scenario = find_scenario("swap-on-nbd")
    scenario = replace(scenario, machine=replace(scenario.machine, kernel=needed))
    looked_for = []

    def nowhere(series: str | None, **_: object) -> NoReturn:
        looked_for.append(series)
        raise LabError("it is nowhere", hint="give a bzImage with --kernel FILE")

    monkeypatch.setattr(session, "find_kernel", nowhere)
    monkeypatch.setattr(qemu, "find_qemu", lambda: "qemu")
    with pytest.raises(LabError) as caught, session.Lab(asked, scenario=scenario):
        pass
    assert looked_for == [wanted]
    assert str(caught.value) == says
    assert caught.value.hint == "give a bzImage with --kernel FILE"


@dataclass
class LostMachine:
    """A machine that has ended before its agent spoke, and why its root could not be read."""

    failure: BaseException | None
    elapsed_s: float = 3.0

    def next_report(self, timeout_s: float) -> Ended:
        return Ended(0)

    def console_tail(self) -> str:
        return "the last line"

    def last_words(self, before: str) -> str:
        return f"it panicked before {before}"

    def root_failure(self) -> BaseException | None:
        return self.failure


def test_a_guest_whose_root_could_not_be_made() -> None:
    """The reason is what this machine met on its walk, not the panic that came of it."""
    with pytest.raises(LabError, match="what guests see could not be gathered: too many links"):
        await_agent(cast("VirtualMachine", LostMachine(OSError("too many links"))))
    with pytest.raises(MachineLost, match="it panicked before its agent ran"):
        await_agent(cast("VirtualMachine", LostMachine(None)))
