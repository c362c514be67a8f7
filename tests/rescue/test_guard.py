"""The guard on recorded trees: what it watches, keeps and says. It acts on nothing of this machine."""

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.guard.keeping import Keeping
from ioflusher.rescue.guard.scout import Scouted, dump_scouted, load_scouted
from ioflusher.rescue.guard.service import Guard
from ioflusher.rescue.guard.settings import GuardPolicy, GuardSettings, load_settings
from ioflusher.rescue.guard.unit import CAPABILITIES, options
from ioflusher.rescue.mapper import MultipathMap
from ioflusher.rescue.other_server import OtherServer
from ioflusher.rescue.served import FuseMount, ServedDevice
from tests.cli.program import call
from tests.rescue.freezes import NBD0
from tests.rescue.test_live import THROTTLED

REPORT = GuardSettings(GuardPolicy.REPORT, stalled_s=0.01)
FULL = GuardSettings(GuardPolicy.MORE, ("nbd0",), 3.0, 10.0, 1 << 25, "/run/guard", 60.0, 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose nbd0 stands still, with its daemon throttled."""
    device = tmp_path / "sys/class/block/nbd0"
    device.mkdir(parents=True)
    (device / "stat").write_text("10 0 0 0 2 0 0 0 0 0 0\n")
    (device / "inflight").write_text("0 3\n")
    vm = tmp_path / "proc/sys/vm"
    vm.mkdir(parents=True)
    for name, value in {
        "dirty_bytes": 8 << 20,
        "dirty_background_bytes": 4 << 20,
        "dirty_ratio": 0,
        "dirty_background_ratio": 0,
        "min_free_kbytes": 8192,
    }.items():
        (vm / name).write_text(f"{value}\n")
    lines = {"MemTotal": 400 << 10, "MemFree": 99, "MemAvailable": 300 << 10, "Dirty": 4, "Writeback": 7680}
    (tmp_path / "proc/meminfo").write_text("".join(f"{n}: {v} kB\n" for n, v in lines.items()))
    task = tmp_path / "proc/7/task/8"
    task.mkdir(parents=True)
    (task / "stat").write_text("8 (server) D 1 7 7 0 -1 4194560 " + "0 " * 40)
    (task / "stack").write_text(THROTTLED)
    return tmp_path


@pytest.fixture
def guard(root: Path) -> Callable[..., tuple[Guard, list[str]]]:
    """A guard of that machine, and what it says."""

    def make(settings: GuardSettings = REPORT, scouted: Scouted | None = None) -> tuple[Guard, list[str]]:
        said: list[str] = []
        found = scouted or Scouted((NBD0,), ())
        keeping = Keeping(str(root / "kept"), kmsg=str(root / "kmsg"), pmsg=str(root / "none"))
        return Guard(settings, said.append, scout=lambda _: found, keeping=keeping, root=root), said

    return make


def scout(watcher: Guard) -> None:
    """Have the machine looked at, to the end."""
    watcher.begin_scouting()
    watcher.end_scouting(5.0)


def test_a_freeze_is_kept_with_stacks_memory_and_history(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]]
) -> None:
    """By the policy report nothing is done, and that is said; it is not told again at once."""
    (root / "kmsg").touch()
    watcher, said = guard()
    assert said == ["watching /dev/nbd0, served by server (7)"]
    while watcher.look() < 0.01:
        pass
    kept = (root / "kept").read_text()
    assert "thread 8 (server) of its daemon 7 waits in balance_dirty_pages(): dirty throttling" in kept
    assert "server 7/8 D: balance_dirty_pages < balance_dirty_pages_ratelimited_flags < " in kept
    assert "memory: 99 KiB free, 4 KiB dirty, 7680 KiB under writeback" in kept
    assert "could be done: dirty-limits: echo 82845696 > /proc/sys/vm/dirty_bytes" in kept
    assert re.search(r"before: \d+\.\d+ nbd0: 12 completed, 3 in flight\n", kept)
    log = (root / "kmsg").read_text()
    assert log.startswith("<4>ioflusher guard: a request of /dev/nbd0 has waited for ")
    assert "does nothing about it" in log
    assert said[-1].endswith(": dirty throttling; first seen by the time")
    told = len(said)
    watcher.look()
    assert len(said) == told


def test_what_woke_it_up_first_is_told(root: Path, guard: Callable[..., tuple[Guard, list[str]]]) -> None:
    """For the look from which the age counts; later ones only wait for the time to pass."""
    watcher, said = guard()
    assert watcher.look(("io", "memory")) == 0.0
    while watcher.look() < 0.01:
        time.sleep(0.005)
    assert said[-1].endswith(": dirty throttling; first seen by io and memory pressure")


def test_who_serves_it_now_is_looked_for_where_nobody_is_seen_to_wait(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon was started again after the last scout, and froze before the next: it is found."""
    (root / "proc/7").rename(root / "proc/9")
    watcher, said = guard()
    again = replace(NBD0, daemons=(replace(NBD0.daemons[0], pid=9),))
    monkeypatch.setattr(watcher, "_scout", lambda _: Scouted((again,), ()))
    while watcher.look() < 0.01:
        pass
    assert said[-1].startswith("a request of /dev/nbd0 has waited for ")
    assert "no thread that serves it can be looked at" in said[-1]
    watcher.end_scouting(5.0)
    watcher.look()
    assert "thread 8 (server) of its daemon 9 waits in balance_dirty_pages()" in said[-1]


def test_what_may_only_be_slow_is_judged_again_soon(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once, unless it turns out to be something else."""
    monkeypatch.setattr("ioflusher.rescue.guard.service.JUDGED_AGAIN_S", 0.0)
    stack = root / "proc/7/task/8/stack"
    stack.write_text("[<0>] do_epoll_wait+0x64c/0x7e0\n")
    watcher, said = guard()
    while watcher.look() < 0.01:
        pass
    assert "it may only be slow" in said[-1]
    told = len(said)
    watcher.look()
    assert len(said) == told
    stack.write_text(THROTTLED)
    watcher.look()
    assert "waits in balance_dirty_pages(): dirty throttling" in said[-1]


class Mapper:
    """A device mapper with one multipath map."""

    state = MultipathMap((False, False), queues=True)
    closed = 0

    def __init__(self, root: Path = Path("/")) -> None:
        self.messages: list[tuple[str, str]] = []

    def multipath(self, name: str) -> MultipathMap:
        """How it is."""
        return self.state

    def message(self, name: str, text: str) -> None:
        """Requests that wait for a path fail."""
        self.messages.append((name, text))

    def close(self) -> None:
        """Close it."""
        Mapper.closed += 1


@pytest.fixture
def mapped(root: Path, monkeypatch: pytest.MonkeyPatch) -> Scouted:
    """The same machine with a multipath map instead, of which nothing is in flight."""
    block = root / "sys/class/block"
    (block / "nbd0").rename(block / "dm-0")
    (block / "dm-0/inflight").write_text("0 0\n")
    monkeypatch.setattr("ioflusher.rescue.guard.service.MapperControl", Mapper)
    monkeypatch.setattr(Mapper, "state", Mapper.state)
    monkeypatch.setattr(Mapper, "closed", 0)
    return Scouted((ServedDevice("dm-0", DeviceKind.DM, multipath="mpatha"),), ())


def test_a_map_without_a_path_is_told_once(
    mapped: Scouted,
    root: Path,
    guard: Callable[..., tuple[Guard, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it has had none for so long; and anew when it had one meanwhile. Nothing is in flight, so nobody
    looks more often than when all is well, and the machine is looked at as ever."""
    monkeypatch.setattr("ioflusher.rescue.guard.service.JUDGED_AGAIN_S", 0.0)
    watcher, said = guard(scouted=mapped)
    told = len(said)
    assert watcher.look() == 0.0
    assert len(said) == told
    time.sleep(0.02)
    for _ in range(3):
        assert watcher.look() == 0.0
    (line,) = said[told:]
    assert line.startswith("none of the 2 paths of mpatha is in use: what it is asked for waits")
    assert (
        "could be done: multipath-queueing: dmsetup message mpatha 0 fail_if_no_path"
        in (root / "kept").read_text()
    )
    Mapper.state = MultipathMap((False, True), queues=True)
    watcher.look()
    Mapper.state = MultipathMap((False, False), queues=True)
    watcher.look()
    assert len(said) == told + 1
    time.sleep(0.02)
    watcher.look()
    assert len(said) == told + 2


def test_a_map_that_fails_requests_without_a_path_stands_not_still(
    mapped: Scouted, guard: Callable[..., tuple[Guard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks it gets an error. A map that does not tell is none of which anything is said."""
    watcher, said = guard(scouted=mapped)
    told = len(said)
    Mapper.state = MultipathMap((False, False), queues=False)
    watcher.look()
    time.sleep(0.02)
    watcher.look()

    def refuse(self: Mapper, name: str) -> MultipathMap:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    monkeypatch.setattr(Mapper, "multipath", refuse)
    watcher.look()
    time.sleep(0.02)
    watcher.look()
    assert said[told:] == []


def test_a_map_without_a_path_is_ended_where_that_was_allowed(
    mapped: Scouted,
    root: Path,
    guard: Callable[..., tuple[Guard, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the message alone, and it keeps requests again afterwards; kept once, however often it is done."""
    controls: list[Mapper] = []

    def control() -> Mapper:
        controls.append(Mapper())
        return controls[-1]

    monkeypatch.setattr("ioflusher.rescue.actions.multipath_queueing.MapperControl", control)
    monkeypatch.setattr("ioflusher.rescue.guard.service.AGAIN_S", 0.0)
    monkeypatch.setattr("ioflusher.rescue.actions.multipath_queueing.WAIT_S", 0.1)
    settings = GuardSettings(GuardPolicy.MORE, ("dm-0",), stalled_s=0.01)
    watcher, said = guard(settings, mapped)
    watcher.look()
    for _ in range(2):
        time.sleep(0.02)
        watcher.look()
    sent = [("mpatha", "fail_if_no_path"), ("mpatha", "queue_if_no_path")]
    assert [control.messages for control in controls] == [sent, sent]
    assert "multipath-queueing: no effect: mpatha fails requests while it has no path" in said
    assert (root / "kept").read_text().count("could be done: multipath-queueing") == 1
    watcher._take(Scouted((), ()))
    assert (Mapper.closed, watcher._devices) == (3, {})


def test_a_device_that_goes_on_is_left_alone(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]]
) -> None:
    """Those in flight complete between two looks, or none are."""
    watcher, _ = guard()
    for number in range(13, 25, 3):
        (root / "sys/class/block/nbd0/stat").write_text(f"{number} 0 0 0 2 0 0 0 0 0 0\n")
        assert watcher.look() == 0.0
    (root / "sys/class/block/nbd0/inflight").write_text("0 0\n")
    assert watcher.look() == 0.0
    assert (root / "kept").read_text() == ""


def test_a_device_that_vanishes_is_watched_no_longer(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]]
) -> None:
    """Said once."""
    watcher, said = guard()
    (root / "sys/class/block/nbd0/stat").write_text("")
    assert watcher.look() == 0.0
    assert said[-1].startswith("/dev/nbd0 vanished: ")
    assert said[-1].endswith("no longer watched")
    told = len(said)
    watcher.look()
    assert len(said) == told


def test_a_daemon_that_was_started_again_is_known(
    root: Path, guard: Callable[..., tuple[Guard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next scout brings its number; a scout that fails leaves what is known."""
    watcher, said = guard()
    again = replace(NBD0, daemons=(replace(NBD0.daemons[0], pid=9),))
    monkeypatch.setattr(watcher, "_scout", lambda _: Scouted((again,), ()))
    scout(watcher)
    assert watcher._devices["nbd0"].served is again

    def fail(_: object) -> Scouted:
        raise subprocess.TimeoutExpired("scout", 60)

    monkeypatch.setattr(watcher, "_scout", fail)
    scout(watcher)
    assert said[-1].startswith("cannot look at the machine: ")
    assert watcher._devices["nbd0"].served is again
    monkeypatch.setattr(watcher, "_scout", lambda _: Scouted((), ()))
    scout(watcher)
    assert watcher._devices == {}


def test_a_reserve_that_the_machine_does_not_bear(guard: Callable[..., tuple[Guard, list[str]]]) -> None:
    """Holding it would be what the guard is against; nothing of it is taken."""
    with pytest.raises(RescueError) as raised:
        guard(replace(REPORT, reserve=151 << 20))
    assert str(raised.value) == "151 MiB in reserve are more than half of the 300 MiB that are available"
    guard(replace(REPORT, reserve=1 << 20))


def test_a_device_that_may_lose_and_nobody_serves(
    guard: Callable[..., tuple[Guard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is mistyped would be found in the freeze."""
    watcher, said = guard(replace(REPORT, allow_loss=("nbd0", "nbd7")))
    monkeypatch.setattr(watcher, "look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        watcher.run()
    assert said[-1] == "--allow-loss: nobody serves /dev/nbd7 yet"


def interrupt(*_: object) -> float:
    """Instead of a look: the end."""
    raise KeyboardInterrupt


def test_it_keeps_nothing_on_what_it_watches(guard: Callable[..., tuple[Guard, list[str]]]) -> None:
    """Its history may not; its own program is warned of."""
    settings = GuardSettings(history="/mnt/x")
    with pytest.raises(RescueError, match="/mnt/x lies on /dev/nbd0, which is watched"):
        guard(settings, Scouted((NBD0,), (("/mnt/x", "nbd0"),)))
    _, said = guard(settings, Scouted((NBD0,), (("/usr/bin/python3", "nbd0"),)))
    assert "/usr/bin/python3 lies on /dev/nbd0" in said[0]


def test_a_place_that_takes_nothing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the others have it."""
    monkeypatch.setattr("ioflusher.rescue.guard.keeping.WRITE_S", 0.5)
    monkeypatch.setattr(os, "fdatasync", lambda file: None)  # how busy the disk is, is not the matter
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    keeping = Keeping(str(tmp_path / "kept"), kmsg=str(tmp_path / "none"), pmsg=str(tmp_path / "fifo"))
    assert keeping.places == (str(tmp_path / "kept"), str(tmp_path / "fifo"))
    late = keeping.keep(["x" * (1 << 20)], [])
    assert late == (f"{tmp_path / 'fifo'}: not within 0.5 s",)
    assert (tmp_path / "kept").stat().st_size == (1 << 20) + 1
    os.close(reader)


def test_settings_and_what_a_scout_saw_go_to_another_process_and_back() -> None:
    """As they were."""
    assert load_settings(FULL.dump()) == FULL
    scouted = Scouted(
        (
            NBD0.__class__(
                "nbd0",
                NBD0.kind,
                NBD0.daemons,
                (9,),
                ("NBD server",),
                ("iSCSI target",),
                ("/data",),
                ("/dev/nbd0",),
                (FuseMount(38, "/p"),),
                "mpatha",
                4,
                OtherServer(12, "nbdkit", "nbd://127.0.0.1:10809/", 7, "/disk.img"),
            ),
        ),
        (("/x", "nbd0"),),
    )
    assert load_scouted(dump_scouted(scouted)) == scouted


def test_the_unit_starts_it_with_the_same_options_and_nothing_more() -> None:
    """Hardened: few capabilities, no new ones, a read-only system; protected: locked, real time."""
    words = [
        "--policy",
        "more",
        "--allow-loss",
        "/dev/nbd0",
        "--reserve",
        "32M",
        "--stalled",
        "3",
        "--priority",
        "20",
    ]
    unit = call("guard", *words, "--history", "/var/lib/ioflusher/guard.log", "--unit").stdout
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command.endswith(
        " guard --policy more --stalled 3 --priority 20 --allow-loss nbd0 --reserve 33554432"
        " --history /var/lib/ioflusher/guard.log"
    )
    assert command.startswith("/")
    for line in (
        f"CapabilityBoundingSet={' '.join(CAPABILITIES)} CAP_KILL",
        "RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "DeviceAllow=/dev/ublk-control rw",
        "ReadWritePaths=-/var/lib/ioflusher",
        "DevicePolicy=closed",
        "DeviceAllow=/dev/kmsg w",
        "DeviceAllow=/dev/mapper/control rw",
        "DeviceAllow=block-43 rw",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "RestrictNamespaces=yes",
        "LimitMEMLOCK=infinity",
        "CPUSchedulingPolicy=rr",
        "CPUSchedulingPriority=20",
        "OOMScoreAdjust=-1000",
    ):
        assert line in unit.splitlines()
    unit = call("guard", "--unit").stdout
    assert f"CapabilityBoundingSet={' '.join(CAPABILITIES)}\n" in unit
    assert "RestrictAddressFamilies=AF_UNIX AF_NETLINK\n" in unit
    assert "IPAddressAllow" not in unit
    assert options(GuardSettings()) == ["--policy", "lossless", "--stalled", "5", "--priority", "10"]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("words", [[], ["--policy", "more", "--history", "/srv/100 %/guard.log"]])
def test_systemd_takes_the_unit(tmp_path: Path, words: list[str]) -> None:
    """Every line; with no device but those that it writes to, and far from what a service may do else."""
    unit = tmp_path / "ioflusher-guard.service"
    unit.write_text(call("guard", *words, "--unit").stdout)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=true", str(unit)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    (exposure,) = re.findall(r"Overall exposure level for .*: ([\d.]+)", said)
    assert float(exposure) < 4.5


def test_loss_is_allowed_to_the_policy_more_alone() -> None:
    """Else it is a mistake of who asks."""
    ended = call("guard", "--allow-loss", "nbd0")
    assert (ended.status, "goes with --policy more" in ended.stderr) == (2, True)


def test_it_is_of_the_standard_library_alone() -> None:
    """Whatever it loads before it watches, actions included."""
    code = (
        "import sys; before = set(sys.modules); import ioflusher.rescue.guard.__main__ as m; m.warm_up();"
        "print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    names = {name.split(".")[0] for name in out.stdout.split()}
    assert {name for name in names if name not in sys.stdlib_module_names} == {"ioflusher"}
