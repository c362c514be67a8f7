"""What the SCSI stacks ask of the kernel, and how their faults are brought about."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ioflusher.lab.guest.processes import Process, Processes, SetupFailed
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.scenario import Scenario
from ioflusher.lab.scenario_file import find_scenario
from ioflusher.lab.stacks import STACKS, multipath
from ioflusher.lab.stacks.multipath import MultipathStack

TGT = find_scenario("ext4-on-tgt-throttled")
COMMANDS = {"multipath": ("multipathd", "-d")}


def scenario(kind: str, store: Any) -> Scenario:
    """One of this kind, with the daemon that Debian has for it."""
    daemon = replace(TGT.daemon, store=store, command=COMMANDS[kind], setup=())
    return replace(TGT, device=replace(TGT.device, kind=kind), daemon=daemon)


class NoProcesses(Processes):
    """Starts nothing; remembers each command."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def start(self, argv: Any, **_: Any) -> Process:
        self.commands.append(" ".join(argv))
        return cast(Process, SimpleNamespace(pid=os.getpid(), poll=lambda: None))

    def step(self, *argv: str) -> str:
        self.commands.append(" ".join(argv))
        return ""

    def step_until(self, *argv: str, running: Any) -> str:
        return self.step(*argv)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of the machine, below a directory of the test."""
    monkeypatch.setattr(multipath, "CONFIGURATION", tmp_path / "multipath.conf")
    monkeypatch.setattr(multipath, "BLOCK", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("said", "hosts"), [(None, 2), (4, 4)])
def test_a_path_is_a_host_of_the_disk(said: int | None, hosts: int, places: Path) -> None:
    """As many as the scenario says, two where it says nothing."""
    played = scenario("multipath", "own")
    played = replace(played, device=replace(played.device, paths=said))
    for number in range(hosts):
        (places / f"dm-0/slaves/sd{number}").mkdir(parents=True)
    processes = NoProcesses()
    MultipathStack(PlayHalf(played, False, ""), processes).start()
    assert f"modprobe scsi_debug add_host={hosts} vpd_use_hostno=0 dev_size_mb=256" in processes.commands


def test_all_paths_go_offline_and_come_back(places: Path) -> None:
    """Each path's state is written, no other disk's."""
    for disk in ("sda", "sdb", "sdc"):
        (places / disk / "device").mkdir(parents=True)
        (places / disk / "device/state").write_text("running")
    for disk in ("sda", "sdb"):
        (places / "dm-0/slaves" / disk).mkdir(parents=True)
    fault = MultipathStack(PlayHalf(scenario("multipath", "own"), False, ""), NoProcesses()).faults()
    offline = fault["paths-offline"]

    def states() -> list[str]:
        return [(places / disk / "device/state").read_text() for disk in ("sda", "sdb", "sdc")]

    offline.inject()
    assert states() == ["offline\n", "offline\n", "running"]
    assert offline.relieve
    offline.relieve()
    assert states() == ["running\n", "running\n", "running"]


def test_a_multipath_device_that_has_one_path_only(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for until both are there."""
    (places / "dm-0/slaves/sda").mkdir(parents=True)

    def await_true(condition: Any, otherwise: str, *_: Any) -> None:
        if not condition():
            raise SetupFailed(otherwise)

    monkeypatch.setattr(multipath, "await_true", await_true)
    stack = MultipathStack(PlayHalf(scenario("multipath", "own"), False, ""), NoProcesses())
    with pytest.raises(SetupFailed, match="there was no /dev/dm-0 over 2 paths"):
        stack.start()
    (places / "dm-0/slaves/sdb").mkdir()
    stack.start()


def test_every_fault_of_a_row_is_one_of_its_stack(places: Path) -> None:
    """What a scenario may say is what the guest can do."""
    for kind, store in (("multipath", "own"),):
        stack = STACKS[kind].load()(PlayHalf(scenario(kind, store), False, ""), NoProcesses())
        assert set(STACKS[kind].faults) <= set(stack.faults())
        assert STACKS[kind].faults
