"""How a stage is built: the two halves differ in the state alone, and disks are found by their names."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from ioflusher.kernel.task import RunTime, parse_schedstat
from ioflusher.lab.disks import EmptyDisk
from ioflusher.lab.experiment import STORE_MARGIN_BYTES, disks_for, guest_for
from ioflusher.lab.guest import processes, settings, stage
from ioflusher.lab.guest.counters import Requests
from ioflusher.lab.guest.disks import find_disk
from ioflusher.lab.guest.network import listens
from ioflusher.lab.guest.observer import Observer
from ioflusher.lab.guest.processes import (
    LAST_LINES,
    Process,
    Processes,
    SetupFailed,
    await_ready_line,
    await_true,
    ended_processes,
    family,
    holds,
    with_log,
)
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.qemu import Disk
from ioflusher.lab.stacks import base, fuse, iscsi, load_stack, multipath, nbd, scsi, ublk
from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import NbdError
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import KernelTable
from ioflusher.scenario.stacks import BLOCK_USES, STACKS

SCENARIOS = {name: parse_scenario(text) for name, text in builtin_scenarios().items()}
REMOTE = "nbd://10.0.2.2:10809"
NO_PROCESS = 1 << 23  # above what a kernel numbers (PID_MAX_LIMIT, 4 Mi)


class NotedProcesses(Processes):
    """Starts nothing and remembers what was asked for."""

    def __init__(self) -> None:
        self.started: list[tuple[list[str], bool]] = []
        self.steps: list[tuple[str, ...]] = []

    def start(
        self, argv: Any, *, stdin: bool = False, stdout: bool = False, io_flusher: bool = False
    ) -> Process:
        self.started.append((list(argv), io_flusher))
        return cast(Process, SimpleNamespace(pid=NO_PROCESS + len(self.started), args=list(argv)))

    def step(self, *argv: str) -> str:
        self.steps.append(argv)
        return ""

    def step_until(self, *argv: str, running: Any) -> str:
        assert running, "what it waits for may end"
        return self.step(*argv)


def test_an_nbd_device_that_cannot_be_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and the server's own last words are in the message."""
    processes = NotedProcesses()
    stack = nbd.NbdStack(PlayHalf(SCENARIOS["swap-on-nbd"], False, REMOTE), processes)

    def refuse(device: str, address: Address) -> None:
        raise NbdError(f"{address.path} says nothing of {device}")

    server = SimpleNamespace(told=lambda: "`server` ended with status 1; it printed:\nTraceback")
    monkeypatch.setattr(processes, "start", lambda *_, **__: server)
    monkeypatch.setattr(nbd, "await_ready_line", lambda *_: "nbd+unix:///?socket=/run/socket")
    monkeypatch.setattr(nbd, "attach", refuse)
    with pytest.raises(SetupFailed) as caught:
        stack.start()
    assert str(caught.value) == (
        "/dev/nbd0 was not attached: /run/socket says nothing of /dev/nbd0; "
        "`server` ended with status 1; it printed:\nTraceback"
    )


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_halves_differ_in_the_state_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that makes a half, the order differs in `io_flusher`, and the daemon's start in one word or not
    even in that: another's daemon runs by the same words, with the state set just before, or not. What is
    written for the kernel is the same."""
    scenario = SCENARIOS[name]
    orders = [PlayHalf(scenario, io_flusher, REMOTE) for io_flusher in (False, True)]
    first, second = (msgspec.to_builtins(order) for order in orders)
    assert {key for key in first if first[key] != second[key]} == {"io_flusher"}
    monkeypatch.setattr(base, "find_disk", lambda disk_name: f"/dev/{disk_name}")
    monkeypatch.setattr(base, "STORE", Path("/nowhere"))
    asked = []
    for order in orders:
        processes = NotedProcesses()
        stack = load_stack(scenario.device.kind)(order, processes)
        monkeypatch.setattr(base.Stack, "make_store", lambda self: Path("/nowhere/image"))
        for module in (sys.modules[type(stack).__module__], fuse, nbd, scsi):
            monkeypatch.setattr(module, "await_true", lambda *_: None, raising=False)
        monkeypatch.setattr(iscsi, "RUN", tmp_path)
        monkeypatch.setattr(multipath, "CONFIGURATION", tmp_path / "multipath.conf")
        configfs = tmp_path / f"configfs-{order.io_flusher}"
        monkeypatch.setattr(scsi, "CONFIGFS", configfs)
        for kind in (fuse, ublk):
            monkeypatch.setattr(kind, "await_ready_line", lambda process, prefix: "/dev/made-by-it")
        uri = "nbd+unix:///?socket=/run/made-by-it"
        monkeypatch.setattr(nbd, "await_ready_line", lambda process, prefix, uri=uri: uri)
        attached: list[tuple[str, Address]] = []
        monkeypatch.setattr(nbd, "attach", lambda device, address, to=attached: to.append((device, address)))
        devices = iter([set(), {"ublkb7"}])
        monkeypatch.setattr(ublk, "ublk_devices", lambda devices=devices: next(devices))
        monkeypatch.setattr(fuse, "MOUNT", FakeDirectory("/run/lab/fuse"))
        stack.start()
        steps = [tuple(word.replace(str(configfs), "") for word in words) for words in processes.steps]
        asked.append((processes.started, (steps, attached, tree_text(configfs))))
        assert len(attached) == (scenario.device.kind in ("nbd", "nbd-tcp", "stacked"))
        assert len(stack.daemons()) == (2 if scenario.device.kind == "stacked" else 1)
    (without, did), (with_, did_too) = asked
    assert did == did_too
    words = [pair for (a, _), (b, _) in zip(without, with_, strict=True) for pair in zip(a, b, strict=True)]
    changed = [pair for pair in words if pair[0] != pair[1]]
    states = [(a, b) for (_, a), (_, b) in zip(without, with_, strict=True)]
    ours = [pair for pair in changed if pair == ("--no-io-flusher", "--io-flusher")]
    others = [state for state in states if state == (False, True)]
    assert changed == ours
    assert set(states) <= {(False, False), (False, True)}
    # our own daemons set the state themselves; two stand on each other in the stack of that name
    assert len(others) == (1 if scenario.daemon.command else 0)
    assert len(ours) + len(others) == len(stack.carriers())


@pytest.mark.parametrize(
    ("which", "upper", "lower"), [("both", True, True), ("upper", True, False), ("lower", False, True)]
)
def test_the_state_is_on_the_daemon_that_is_named(
    which: str, upper: bool, lower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that stand on each other, from their start on; and what looks at it later knows whose it is."""
    text = f'{builtin_scenarios()["ext4-on-stacked-throttled"]}\n[hardening]\ndaemon = "{which}"\n'
    monkeypatch.setattr(base.Stack, "make_store", lambda self: Path("/nowhere/image"))
    monkeypatch.setattr(fuse, "MOUNT", FakeDirectory("/run/lab/fuse"))
    monkeypatch.setattr(fuse, "await_ready_line", lambda *_: "")
    monkeypatch.setattr(nbd, "await_ready_line", lambda *_: "nbd+unix:///?socket=/run/made-by-it")
    monkeypatch.setattr(nbd, "attach", lambda *_: None)
    processes = NotedProcesses()
    stack = load_stack("stacked")(PlayHalf(parse_scenario(text), True, ""), processes)
    stack.start()
    (below, _), (above, _) = processes.started
    assert ("--io-flusher" in above, "--io-flusher" in below) == (upper, lower)
    assert ("--no-io-flusher" in above, "--no-io-flusher" in below) == (not upper, not lower)
    first, second = stack.daemons()
    assert stack.carriers() == tuple(pid for pid, has in ((first, upper), (second, lower)) if has)


def tree_text(top: Path) -> list[tuple[str, str]]:
    """Every file and link below, by its path, with what it holds."""
    return [
        (
            str(path.relative_to(top)),
            os.readlink(path).replace(str(top), "") if path.is_symlink() else path.read_text(),
        )
        for path in sorted(top.rglob("*"))
        if path.is_symlink() or path.is_file()
    ]


class FakeDirectory(type(Path())):  # type: ignore[misc]
    """A path whose directory need not be made."""

    def mkdir(self, *_: object, **__: object) -> None:
        pass


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_machine_is_the_scenarios(name: str) -> None:
    """Memory, processors and modules are the scenario's; a network is there only for a remote store."""
    scenario = SCENARIOS[name]
    guest = guest_for(scenario, (Disk("/x"),))
    assert guest.memory_bytes == scenario.machine.memory
    assert guest.cpus == scenario.machine.cpus
    assert guest.network == (scenario.daemon.store == "remote" or scenario.machine.network)
    assert guest.disks == (Disk("/x"),)
    loaded = {module.partition(" ")[0] for module in guest.modules}
    assert {module.partition(" ")[0] for module in STACKS[scenario.device.kind].modules} <= loaded
    assert len(guest.modules) == len(loaded), "each module once"


def test_a_daemon_that_stores_elsewhere_has_a_network() -> None:
    """Where the scenario says so, with the driver; else only a remote store has one."""
    text = builtin_scenarios()["ext4-on-nbd-throttled"]
    for more, network in (("", False), ("network = true\n", True)):
        scenario = parse_scenario(text.replace("[machine]\n", f"[machine]\n{more}"))
        guest = guest_for(scenario, ())
        assert guest.network == network
        assert ("virtio_net" in guest.modules) == network


def test_each_disk_is_what_it_was_asked_for_as() -> None:
    """The daemon's store has the device's size and a margin, the reader's disk its own; each has its name."""
    swap, files = SCENARIOS["swap-on-nbd"], SCENARIOS["ext4-on-nbd-throttled"]
    assert disks_for(swap) == (EmptyDisk(swap.pressure.size, "reader"),)
    assert disks_for(files) == (EmptyDisk(files.device.size + STORE_MARGIN_BYTES, "store"),)
    both = replace(files, pressure=swap.pressure)
    bare = replace(files, daemon=replace(files.daemon, store="disk"))
    assert disks_for(bare) == (EmptyDisk(files.device.size, "store"),)  # the device is as large as that disk
    assert sorted(disks_for(both), key=lambda disk: disk.name) == [
        EmptyDisk(swap.pressure.size, "reader"),
        EmptyDisk(files.device.size + STORE_MARGIN_BYTES, "store"),
    ]


def block_tree(tmp_path: Path, serials: dict[str, str | None]) -> Path:
    """A /sys/block with these disks."""
    for name, serial in serials.items():
        (tmp_path / name).mkdir()
        if serial is not None:
            (tmp_path / name / "serial").write_text(serial + "\n")
    return tmp_path


def test_the_guest_finds_a_disk_by_its_name(tmp_path: Path) -> None:
    """Whatever the order of the disks, and whatever other disks there are."""
    block = block_tree(tmp_path, {"vda": "", "vdb": "reader", "vdc": "store", "sda": "store", "vdd": None})
    assert find_disk("store", block) == "/dev/vdc"
    assert find_disk("reader", block) == "/dev/vdb"
    with pytest.raises(SetupFailed, match="no disk named 'other'"):
        find_disk("other", block)


def test_store_and_reader_use_their_own_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mkfs and mount are for the store's disk, the reader reads the reader's."""
    for module in (base, stage):
        monkeypatch.setattr(module, "find_disk", lambda name: f"/dev/disk-{name}")
    monkeypatch.setattr(base, "STORE", tmp_path / "store")
    monkeypatch.setattr(stage, "await_ready", lambda program: None)
    processes = NotedProcesses()
    image = nbd.NbdStack(PlayHalf(SCENARIOS["ext4-on-nbd-throttled"], False, ""), processes).make_store()
    assert image.stat().st_size == SCENARIOS["ext4-on-nbd-throttled"].device.size
    assert [words[-1 if words[0] == "mkfs.ext4" else -2] for words in processes.steps] == [
        "/dev/disk-store"
    ] * 2
    stage.WorkloadPrograms(SCENARIOS["swap-on-nbd"], processes, tmp_path).start_pressure()
    assert processes.started[-1][0][-2:] == ["read", "/dev/disk-reader"]
    stage.WorkloadPrograms(SCENARIOS["ext4-on-nbd-throttled"], processes, tmp_path).start_pressure()
    assert len(processes.started) == 1, "no pressure, no reader"


@pytest.mark.parametrize("use", BLOCK_USES)
def test_the_device_is_used_as_the_scenario_says(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """swap is made and switched on, a file system made and mounted, all on the device of the stack."""
    processes = NotedProcesses()
    monkeypatch.setattr(base.Stack, "directory", tmp_path / "mnt")
    fuse.FuseStack(PlayHalf(SCENARIOS["ext4-on-bindfs-throttled"], False, ""), processes).use(use)
    made, taken = processes.steps
    assert made[0] == ("mkswap" if use == "swap" else f"mkfs.{use}")
    assert made[-1] == "/dev/loop0"
    assert taken == (
        ("swapon", "/dev/loop0")
        if use == "swap"
        else ("mount", "-t", use, "/dev/loop0", str(tmp_path / "mnt"))
    )


def test_the_queue_is_as_deep_as_the_scenario_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nr_requests of a block device, queue_depth of a SCSI disk; what the driver makes of it is looked at."""
    stack = fuse.FuseStack(PlayHalf(SCENARIOS["ext4-on-bindfs-throttled"], False, ""), NotedProcesses())
    monkeypatch.setattr(base, "BLOCK_DEVICES", tmp_path)
    (tmp_path / "loop0" / "queue").mkdir(parents=True)
    file = tmp_path / "loop0" / "queue" / "nr_requests"
    file.write_text("128")
    stack.limit_queue(16)
    assert file.read_text() == "16"
    scsi = tmp_path / "loop0" / "device" / "queue_depth"
    scsi.parent.mkdir()
    scsi.write_text("32")
    stack.limit_queue(2)
    assert (file.read_text(), scsi.read_text()) == ("16", "2")
    scsi.unlink()
    file.unlink()
    file.symlink_to("/dev/null")  # takes what is written, and has something else
    with pytest.raises(SetupFailed, match=r"queue_depth: the driver takes  in place of 3"):
        stack.limit_queue(3)
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(SetupFailed, match=r"queue_depth 3: .*No space left"):
        stack.limit_queue(3)


def test_an_anonymous_pressure_waits_for_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not press before the observer looks; a reader has begun by then and is told nothing."""
    monkeypatch.setattr(stage, "await_ready", lambda program: None)
    monkeypatch.setattr(stage, "find_disk", lambda name: f"/dev/disk-{name}")
    monkeypatch.setattr(Path, "write_text", lambda *_: 0)
    swap = SCENARIOS["swap-on-nbd"]
    scenario = replace(swap, pressure=replace(swap.pressure, kind="anonymous"))
    processes = NotedProcesses()
    work = stage.WorkloadPrograms(scenario, processes, tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as presser:

        def start(argv: Any, **_: Any) -> Any:
            processes.steps.append(tuple(argv))
            return presser

        monkeypatch.setattr(processes, "start", start)
        work.start_pressure()
        assert processes.steps[-1][-2:] == ("touch", str(scenario.pressure.size))
        work.begin_pressure()
        assert presser.stdout is not None
        assert presser.stdout.readline() == b"go\n"
        work.end_pressure()
        assert presser.returncode == -9, "it has done its part once everything is written"


def test_settings_name_the_file_that_is_not_there(tmp_path: Path) -> None:
    """A setting that the kernel does not have is an error with the file's name."""
    file = tmp_path / "setting"
    file.write_text("0")
    settings.apply_settings(KernelTable(write={str(file): "1"}))
    assert file.read_text() == "1"
    with pytest.raises(OSError, match="no_such_setting"):
        settings.apply_settings(KernelTable(sysctl={"vm.no_such_setting": "1"}))
    with pytest.raises(OSError, match=str(tmp_path / "other")):
        settings.apply_settings(KernelTable(write={str(tmp_path / "other" / "file"): "0"}))


def test_a_feature_that_the_kernel_lacks_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning off what is not there is no error; turning it on is, and where it is there it is written."""
    file = tmp_path / "lru_gen" / "enabled"
    means = settings.ABSENT_MEANS["/sys/kernel/mm/lru_gen/enabled"]
    monkeypatch.setitem(settings.ABSENT_MEANS, str(file), means)
    settings.apply_settings(KernelTable(write={str(file): "0"}))
    assert not file.exists()
    with pytest.raises(OSError, match=str(file)):
        settings.apply_settings(KernelTable(write={str(file): "7"}))
    file.parent.mkdir()
    file.write_text("0x0007")
    settings.apply_settings(KernelTable(write={str(file): "0"}))
    assert file.read_text() == "0"


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Processes of a test, without the privileges that a guest's observer takes away; little patience."""
    monkeypatch.setattr("ioflusher.lab.guest.processes.become_ordinary", lambda state=False, group=None: None)
    monkeypatch.setattr("ioflusher.lab.guest.processes.SETUP_DEADLINE_S", 0.5)
    return Processes()


def shell(processes: Processes, script: str, *, stdout: bool = False) -> Process:
    """A shell that stays, or does not."""
    return processes.start(["sh", "-c", script], stdout=stdout)


@contextmanager
def ending(process: Process) -> Iterator[Process]:
    """Kill it in the end."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_what_does_not_start_exits_or_never_serves_is_told_apart(ordinary: Processes) -> None:
    """Three failures, three messages, each with the command and with what it printed itself."""
    with pytest.raises(SetupFailed, match="no-such-daemon does not start: No such file"):
        ordinary.start(["no-such-daemon"])
    with (
        ending(shell(ordinary, "echo no such export >&2; echo bye; exit 3")) as ends,
        pytest.raises(SetupFailed) as caught,
    ):
        await_true(lambda: False, "it had no socket", ends)
    assert "; exit 3` ended with status 3; it printed:\nno such export\nbye" in str(caught.value)
    with ending(shell(ordinary, "kill -9 $$")) as killed, pytest.raises(SetupFailed) as caught:
        await_true(lambda: False, "it had no socket", killed)
    assert "was killed by signal 9; it printed nothing" in str(caught.value)
    with (
        ending(shell(ordinary, "echo waiting for the moon; exec sleep 60")) as stays,
        pytest.raises(SetupFailed) as caught,
    ):
        await_true(lambda: False, "there was no socket", stays)
    assert str(caught.value).startswith("there was no socket after 0.5 s: `sh -c ")
    assert str(caught.value).endswith("it printed:\nwaiting for the moon")
    with pytest.raises(SetupFailed, match=r"false exited 1"):
        ordinary.step("false")


def test_a_daemon_of_ours_that_does_not_say_that_it_serves(ordinary: Processes) -> None:
    """It says nothing, or ends with an error, or says something else: each with its own words."""
    with (
        ending(shell(ordinary, "echo hm >&2; exec sleep 60", stdout=True)) as silent,
        pytest.raises(SetupFailed, match=r"said nothing for 0\.5 s; it printed:\nhm"),
    ):
        await_ready_line(silent, "serving ")
    with (
        ending(shell(ordinary, "echo 'error: SET_PARAMS' >&2; exit 2", stdout=True)) as ends,
        pytest.raises(SetupFailed, match=r"ended with status 2; it printed:\nerror: SET_PARAMS"),
    ):
        await_ready_line(ends, "serving ")
    with (
        ending(shell(ordinary, "echo hello; exec sleep 60", stdout=True)) as other,
        pytest.raises(SetupFailed, match=r"said 'hello', expected 'serving '"),
    ):
        await_ready_line(other, "serving ")
    with ending(shell(ordinary, "echo serving /dev/x; exec sleep 60", stdout=True)) as serves:
        assert await_ready_line(serves, "serving ") == "/dev/x"


def test_only_the_end_of_the_output_is_kept(ordinary: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    """A daemon that prints for ever neither waits nor fills the observer's memory; the console has it all."""
    with ending(shell(ordinary, "seq 1 20000; exit 1")) as talks, pytest.raises(SetupFailed) as caught:
        await_true(lambda: False, "it had no socket", talks)
    assert str(caught.value).endswith("\n".join(str(n) for n in range(20001 - LAST_LINES, 20001)))
    assert len(capfd.readouterr().err.split()) == 20000


def command_of(pid: int) -> str:
    """The words of a process, each with a NUL behind it; "" once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_family_is_all_that_a_daemon_started(ordinary: Processes) -> None:
    """Children, their children, and those whose parent is gone, as sshfs starts its server; not others."""
    script = "sleep 61 & (sleep 62 & exec sleep 0) & sh -c 'sleep 63; true' & exec sleep 64"
    with ending(shell(ordinary, script)) as daemon, ending(ordinary.start(["sleep", "65"])) as other:
        wanted = {f"sleep\0{seconds}\0" for seconds in (61, 62, 63, 64)}
        deadline = time.monotonic() + 20
        sleeps: set[str] = set()
        while sleeps != wanted and time.monotonic() < deadline:
            members = family(daemon)
            sleeps = {words for words in map(command_of, members) if words.startswith("sleep")}
            sleeps.discard("sleep\x000\0")
        assert sleeps == wanted
        assert members[0] == daemon.pid
        assert other.pid not in members
        for pid in members[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def test_a_daemon_with_a_log_of_its_own_is_heard(tmp_path: Path) -> None:
    """Where the stage fails, the end of the daemon's own log stands in the message; without one, that."""
    log = tmp_path / "daemon.log"
    with (
        pytest.raises(SetupFailed, match=rf"(?s)^it ended\nthe last lines of {log}:\nnothing$"),
        with_log(log),
    ):
        raise SetupFailed("it ended")
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    with pytest.raises(SetupFailed, match=r"(?s):\nline 8\n.*line 19$"), with_log(log):
        raise SetupFailed("it ended")
    with with_log(log):
        pass


def test_a_step_is_tried_until_it_succeeds(ordinary: Processes, tmp_path: Path) -> None:
    """It says what it printed; where the daemon ends meanwhile, that is said instead."""
    file = tmp_path / "tries"
    once_more = f"echo try >>{file}; [ $(wc -l <{file}) = 2 ] && cat {file}"
    with ending(shell(ordinary, "exec sleep 60")) as stays:
        assert ordinary.step_until("sh", "-c", once_more, running=(stays,)) == "try\ntry\n"
        with pytest.raises(SetupFailed) as caught:
            ordinary.step_until("false", running=(stays,))
        assert str(caught.value) == (
            f"false exited 1: it said nothing, tried for {processes.SETUP_DEADLINE_S:g} s: "
            "`sh -c exec sleep 60`; it printed nothing"
        )
    with pytest.raises(SetupFailed, match="exec sleep 60` was killed by signal 9"):
        ordinary.step_until("false", running=(stays,))


def test_a_daemon_that_goes_to_the_background(ordinary: Processes) -> None:
    """It serves, but nobody could watch it; what stays in the session of its parent can be watched."""
    with ending(shell(ordinary, "setsid sleep 2 >/dev/null 2>&1 & exit 0")) as away:
        away.wait()
        await_true(lambda: family(away) == (away.pid,), "it stayed in the session")
        with pytest.raises(SetupFailed) as caught:
            await_true(lambda: True, "there was no device", away)
    assert str(caught.value).endswith(
        "exit 0` ended with status 0; it printed nothing\nit has to stay in the foreground"
    )
    with ending(shell(ordinary, "sleep 60 >/dev/null 2>&1 & exit 0")) as stays:
        stays.wait()
        await_true(lambda: True, "there was no device", stays)
        os.killpg(stays.pid, 9)


def test_a_thread_that_has_ended_is_not_looked_at() -> None:
    """A daemon that was killed and that nobody has waited for yet has no flags that say anything."""
    with subprocess.Popen(["sleep", "60"]) as daemon:
        observer = Observer(lambda: (daemon.pid,), cast(Any, None), cast(Any, None), cast(Any, None))
        assert [thread.tid for thread in observer.threads(stacks=False)] == [daemon.pid]
        daemon.kill()
        os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
        assert observer.threads(stacks=False) == ()


def test_where_a_step_fails_the_daemons_are_heard(ordinary: Processes) -> None:
    """What those printed that run, and how one ended, each once; who said nothing is not mentioned."""
    with pytest.raises(SetupFailed, match=r"^mkfs exited 1$"), ordinary.told():
        raise SetupFailed("mkfs exited 1")
    with (
        ending(shell(ordinary, "echo cannot write the file; exec sleep 60")) as speaks,
        ending(shell(ordinary, "exec sleep 61")),
    ):
        ended = shell(ordinary, "exit 3")
        ended.wait()
        await_true(lambda: bool(speaks.said.lines()), "it said nothing")
        for error in (SetupFailed("mkfs exited 1"), OSError(5, "Input/output error")):
            with pytest.raises(SetupFailed) as caught, ordinary.told():
                raise error
            assert str(caught.value) == (
                f"{error}\n`sh -c echo cannot write the file; exec sleep 60`; it printed:\n"
                "cannot write the file\n`sh -c exit 3` ended with status 3; it printed nothing"
            )
        with pytest.raises(SetupFailed) as caught, ordinary.told():
            raise SetupFailed(f"nobody listened: {speaks.told()}")
        assert str(caught.value).count("cannot write the file") == 2, "in the command and in what it printed"


def test_who_listens_is_seen_without_a_connection() -> None:
    """The port of a socket that listens, not that of one that is bound alone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert not listens(listener.getsockname()[1])
        listener.listen()
        assert listens(listener.getsockname()[1])


def test_whether_a_process_holds_a_file(tmp_path: Path) -> None:
    """Its descriptors tell; a process that is gone holds nothing."""
    file = tmp_path / "held"
    assert not holds(os.getpid(), str(file))
    with file.open("w"):
        assert holds(os.getpid(), str(file))
    assert not holds(os.getpid(), str(file))
    assert not holds(1 << 22, str(file)), "pid_max is at most that"


@pytest.mark.parametrize("row", STACKS.values(), ids=lambda row: row.kind)
def test_every_row_has_its_class(row: Any) -> None:
    """The class is there and is a stack; the example is a command that a scenario may have."""
    assert issubclass(load_stack(row.kind), base.Stack)
    found = sorted(re.findall(r"\{\w+\}", " ".join(row.example)))
    assert found in [sorted(places) for places in row.places.values()]


def scenario_text(**replaced: str) -> str:
    """The bindfs scenario with lines replaced."""
    text = builtin_scenarios()["ext4-on-bindfs-throttled"]
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_stack_without_a_daemon_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scenario of such a stack must have a command, and gets an example of one."""
    monkeypatch.setitem(STACKS, "fuse", replace(STACKS["fuse"], own_daemon=False))
    with pytest.raises(ScenarioError, match="'fuse' has no daemon of ours") as caught:
        parse_scenario(scenario_text(**{"command = ": "command = [] #"}))
    assert '["bindfs", "-f", "{directory}", "{mount}"]' in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'kind = "fuse"',
            'kind = "drbd"',
            f"device.kind: expected one of {', '.join(map(repr, STACKS))}, found 'drbd'",
        ),
        (
            'store = "file"',
            'store = "remote"',
            "daemon.store: expected one of 'file', 'disk' for device.kind 'fuse'",
        ),
        (
            "command = ",
            'setup = [["true", "{file}"]]\ncommand = ',
            "daemon.command and daemon.setup: expected {directory} and {mount} in it, "
            "found {directory}, {mount}, {file}",
        ),
        (
            "command = ",
            "setup = [[]]\ncommand = ",
            "daemon.setup: expected commands, found one without a word",
        ),
        ('"{mount}"', '"{socket}"', "expected {directory} and {mount} in it, found {directory}, {socket}"),
    ],
)
def test_a_stack_that_is_not_there_is_an_error(old: str, new: str, says: str) -> None:
    """What the row does not offer is refused before anything boots, with what it does offer."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(scenario_text(**{old: new}), origin="mine.toml")
    assert says in str(caught.value)


def test_modules_of_the_stack_are_added_once() -> None:
    """A scenario that names a module itself, with options of its own, keeps them."""
    assert SCENARIOS["ext4-on-nbd-throttled"].modules == ("nbd nbds_max=1",)
    assert SCENARIOS["ext4-on-bindfs-throttled"].modules == ("fuse", "loop max_loop=1")


def test_processes_of_the_stack_that_ended_are_told(ordinary: Processes) -> None:
    """Those that ended since, in the order in which they were started, with their last words."""
    with (
        ending(shell(ordinary, "echo no space; exit 3")) as ends,
        ending(ordinary.start(["sleep", "60"])) as stays,
        ending(shell(ordinary, "kill -9 $$")) as killed,
    ):
        assert ordinary.staged == (ends, stays, killed)
        for process in (ends, killed):
            process.wait(timeout=30)
        first, second = ended_processes(ordinary.staged)
    assert first.endswith("ended with status 3; it printed:\nno space")
    assert second.endswith("was killed by signal 9; it printed nothing")


@pytest.mark.parametrize(
    ("table", "address", "listens"),
    [
        ("tcp", "0100007F:2A39", True),
        ("tcp", "00000000:2A39", True),
        ("tcp6", "00000000000000000000000000000000:2A39", True),
        ("tcp", "0100007F:2A3A", False),
    ],
)
def test_whether_a_server_listens_is_seen_without_a_connection(
    table: str, address: str, listens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nbd-server -d takes one client alone. Port 10809 is 2A39; any address will do, no other port."""
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    for name in ("tcp", "tcp6"):
        here = address if name == table else "0" * (8 if name == "tcp" else 32) + ":0001"
        nobody = "0" * len(here.partition(":")[0]) + ":0000"
        line = f"   0: {here} {nobody} 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n"
        (tmp_path / name).write_text(head + line)
    monkeypatch.setattr("ioflusher.lab.guest.network.NET", tmp_path)
    stack = nbd.NbdTcpStack(PlayHalf(SCENARIOS["swap-on-nbd"], False, REMOTE), NotedProcesses())
    assert stack.listens() is listens


def test_our_own_server_listens_where_the_kind_says() -> None:
    """On a Unix socket or on TCP, with the store of the scenario."""
    order = PlayHalf(SCENARIOS["swap-on-nbd"], True, REMOTE)
    assert nbd.own_server(order, "", nbd.NbdStack.listen)[4:6] == ["--unix", nbd.SOCKET]
    argv = nbd.own_server(order, "", nbd.NbdTcpStack.listen)
    assert argv[4:6] == ["--tcp", "127.0.0.1:10809"]
    assert argv[6:8] == ["--remote", REMOTE]


# of 7.5 s: what was executed, what was waited for, and turns
THROTTLED = RunTime(900_000_000, 1_500_000_000, 750)
STARVED = RunTime(200_000_000, 6_800_000_000, 20)
IN_CIRCLES = RunTime(7_400_000_000, 0, 300)
NO_TURN = RunTime(0, 0, 0)


@pytest.mark.parametrize(
    ("stalled_s", "state", "had", "frozen"),
    [
        (7.5, "D", THROTTLED, False),
        (8.0, "D", THROTTLED, True),
        (8.0, "S", NO_TURN, True),
        (8.0, "D", IN_CIRCLES, True),
        (8.0, "R", THROTTLED, True),
        (8.0, "R", STARVED, False),
        (8.0, "R", IN_CIRCLES, False),
        (8.0, "R", NO_TURN, False),
        (31.5, "R", NO_TURN, False),
        (32.0, "R", IN_CIRCLES, True),
    ],
)
def test_a_daemon_that_lacks_a_processor_is_given_time(
    stalled_s: float, state: str, had: RunTime, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready to run all the time is not frozen until four times as long; just woken from throttling is."""
    clock = [100.0]
    monkeypatch.setattr("ioflusher.lab.guest.observer.time.monotonic", lambda: clock[0])
    counters = SimpleNamespace(read=lambda: Requests(5, 2))
    near_misses = SimpleNamespace(begin=lambda: None, read=lambda: None)
    port = SimpleNamespace(say=lambda report: None)
    observer = Observer(lambda: (), cast(Any, counters), cast(Any, near_misses), cast(Any, port))
    before = RunTime(10_000_000, 5_000_000, 30)
    times = {7: before, 8: before}
    monkeypatch.setattr(observer, "run_times", lambda: dict(times))
    monkeypatch.setattr(observer, "memory_kib", dict)
    waiting = SimpleNamespace(tid=7, state="S")
    monkeypatch.setattr(observer, "threads", lambda stacks: (waiting, SimpleNamespace(tid=8, state=state)))
    observer.begin()
    clock[0] += 0.5
    observer.sample()
    clock[0] = 100.0 + stalled_s
    times[8] = RunTime(*map(sum, zip(astuple(before), astuple(had), strict=True)))
    observer.sample()
    assert observer.stalled_s == stalled_s
    assert observer.is_frozen(8) is frozen


def test_what_a_thread_had_of_processors() -> None:
    """The three numbers of schedstat; what has none is an error."""
    assert parse_schedstat(b"11311507 8352583 16\n") == RunTime(11311507, 8352583, 16)
    for line in (b"", b"1 2\n", b"1 2 3 4\n", b"one 2 3\n"):
        with pytest.raises(ValueError, match=r"int|unpack"):
            parse_schedstat(line)


def test_the_threads_of_a_daemon_have_run() -> None:
    """By their numbers, from the kernel: this process stands in for a daemon."""
    observer = Observer(lambda: (os.getpid(),), cast(Any, None), cast(Any, None), cast(Any, None))
    times = observer.run_times()
    assert times[threading.get_native_id()].ran_ns > 0
