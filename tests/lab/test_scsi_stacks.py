"""What the SCSI stacks ask of the kernel, and how their faults are brought about."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ioflusher.lab.guest.processes import Process, Processes, SetupFailed
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.stacks import iscsi, iscsid, load_stack, multipath, scsi
from ioflusher.lab.stacks.iscsid import IscsidStack
from ioflusher.lab.stacks.multipath import MultipathStack
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.stacks import STACKS

TGT = find_scenario("ext4-on-tgt-throttled")
COMMANDS = {"iscsid": iscsi.ISCSID, "multipath": ("multipathd", "-d")}


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
    monkeypatch.setattr(scsi, "CONFIGFS", tmp_path / "configfs")
    monkeypatch.setattr(scsi, "await_true", lambda *_: None)
    monkeypatch.setattr(iscsi, "RUN", tmp_path)
    monkeypatch.setattr(multipath, "CONFIGURATION", tmp_path / "multipath.conf")
    monkeypatch.setattr(multipath, "BLOCK", tmp_path)
    return tmp_path


def test_the_kernels_own_target(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One unit over a buffered file, for whoever comes, enabled last; then iscsid logs in to it."""
    processes = NoProcesses()
    stack = IscsidStack(PlayHalf(scenario("iscsid", "file"), False, ""), processes)
    monkeypatch.setattr(stack, "make_store", lambda: Path("/store/image"))
    stack.start()
    target = places / "configfs" / "target"
    store = target / "core/fileio_0/lab"
    size = TGT.device.size
    assert (store / "control").read_text() == f"fd_dev_name=/store/image,fd_dev_size={size},fd_buffered_io=1"
    assert (store / "enable").read_text() == "1"
    group = target / "iscsi" / iscsid.TARGET / "tpgt_1"
    assert (group / "np" / "127.0.0.1:3260").is_dir()
    assert (group / "attrib/authentication").read_text() == "0"
    assert (group / "attrib/demo_mode_write_protect").read_text() == "0"
    assert (group / "lun/lun_0/store").readlink() == store
    newest = max(group.rglob("*"), key=lambda path: path.lstat().st_ctime_ns)
    assert newest == group / "enable"
    assert processes.commands[0] == f"mount -t configfs configfs {places / 'configfs'}"
    assert processes.commands[1].startswith("iscsid --foreground --initiatorname=")
    node = f"iscsiadm --mode=node --targetname={iscsid.TARGET} --portal=127.0.0.1:3260"
    assert processes.commands[2] == f"{node} --op=new"
    assert processes.commands[-1] == f"{node} --login"
    waits = f"{node} --op=update --name=node.session.timeo.replacement_timeout --value=-1"
    assert waits in processes.commands, "it waits as long as it takes"


def test_a_target_outside(places: Path) -> None:
    """Its address and name come with the order; nothing of the kernel's target is made here."""
    processes = NoProcesses()
    order = PlayHalf(scenario("iscsid", "remote"), False, "iscsi://10.0.2.2:4711/iqn.2026-01.a:b")
    IscsidStack(order, processes).start()
    assert (
        processes.commands[-1]
        == "iscsiadm --mode=node --targetname=iqn.2026-01.a:b --portal=10.0.2.2:4711 --login"
    )
    assert not (places / "configfs").exists()


@pytest.mark.parametrize(("store", "link"), [("file", "lo"), ("remote", "eth0")])
def test_the_connection_is_cut(store: str, link: str, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was ends, and the interface is down until the end of the fault."""
    stack = IscsidStack(PlayHalf(scenario("iscsid", store), False, "iscsi://h:1/t"), NoProcesses())
    monkeypatch.setattr(stack, "make_store", lambda: Path("/store/image"))
    stack.start()
    did: list[Any] = []
    monkeypatch.setattr(iscsid, "shut_connections", did.append)
    monkeypatch.setattr(iscsid, "put_link", lambda name, *, up: did.append((name, up)))
    monkeypatch.setattr(iscsid, "family", lambda _: (17,))
    fault = stack.faults()["connection-cut"]
    fault.inject()
    assert did == [17, (link, False)]
    assert fault.relieve
    fault.relieve()
    assert did[2:] == [(link, True)]


def test_the_threads_of_the_kernels_target(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are watched where they serve; a process that only has the name of one is none of them."""
    for pid, comm, flags in ((3, "iscsi_trx", 0x208040), (2, "iscsi_ttx", 0x208040), (4, "iscsi_trx", 0x40)):
        (places / str(pid)).mkdir()
        numbers = "0 0 0 0 -1"
        (places / str(pid) / "stat").write_text(f"{pid} ({comm}) S {numbers} {flags} 0 0 0 0 0 0 0\n")
    (places / "self").mkdir()
    (places / "5").mkdir()  # it has ended
    assert iscsid.target_threads(places) == (2, 3)
    monkeypatch.setattr(iscsid, "family", lambda _: (17,))
    monkeypatch.setattr(iscsid, "target_threads", lambda: (2, 3))
    for store, watched in (("file", (17, 2, 3)), ("remote", (17,))):
        stack = IscsidStack(PlayHalf(scenario("iscsid", store), False, "iscsi://h:1/t"), NoProcesses())
        monkeypatch.setattr(stack, "make_store", lambda: Path("/store/image"))
        stack.start()
        assert stack.daemons() == watched


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
    for kind, store in (("iscsid", "file"), ("multipath", "own")):
        stack = load_stack(kind)(PlayHalf(scenario(kind, store), False, ""), NoProcesses())
        assert set(STACKS[kind].faults) <= set(stack.faults())
        assert STACKS[kind].faults
