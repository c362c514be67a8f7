"""On a throttled scenario's stage: freezes that are ended, and that are not.

    ioflusher lab shell ext4-on-nbd-throttled < SCRIPT, which executes this module with the project's Python:
    python -m tests.rescue.guest_freezes PART...

A part is one of `PARTS` with a number of rounds, as guard:20. Prints one JSON object a line: what was done,
and what came of it.
"""

import fcntl
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ioflusher.kernel.nbd import NBD_SET_TIMEOUT
from ioflusher.kernel.pressure import PressureTriggers, parse_pressure
from ioflusher.kernel.status import parse_status
from ioflusher.kernel.task import parse_stat
from ioflusher.rescue.guard.service import TRIGGERS
from ioflusher.rescue.live import DeviceRequests
from tests.rescue.stage import (
    DEADLINE_S,
    GuardProcess,
    Stage,
    become_program,
    guard_process,
    until,
)

STALLED_S = 1.0
UNTOUCHED_S = 10.0  # for which a freeze that nobody ends is watched
UBLK_CHUNKS = 192  # as the scenario's own work: with fewer it may go through
ANSWER = Path("/run/rescue.json")
COPY = "/store/copy"
SERVER = (sys.executable, "-m", "ioflusher.lab.daemons.nbd", "--store", COPY, "--unix")


def say(what: str, **found: Any) -> None:
    """One line for who reads it."""
    print(json.dumps({"what": what, **found}), flush=True)


def run_program(*words: str) -> tuple[int, str]:
    """Its exit status, and what it printed."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.dup2(os.open(ANSWER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        become_program(*words)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, ANSWER.read_text()


def guard(stage: Stage, rounds: int) -> None:
    """A guard, started before, ends so many freezes; then it is ended, and one is left to itself."""
    service = guard_process("--stalled", str(STALLED_S), "--history", "/run/guard.log")
    if not described(service, service.pid):
        return
    for number in range(rounds):
        guarded(stage, service, number)
        stage.make_ready()
    say("guard ended", status=service.end(), kept=len(Path("/run/guard.log").read_text().splitlines()))
    left_alone(stage, rounds)


def described(service: GuardProcess, pid: int, ready: str = "watching 1 devices") -> bool:
    """Say how the guard runs; False where it does not."""
    if not service.said(ready):
        say("guard", failed=service.lines)
        return False
    status = parse_status(Path(f"/proc/{pid}/status").read_bytes())
    thread = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    say(
        "guard",
        said=service.lines[-1],
        locked=status.locked_kib,
        resident=status.resident_kib,
        io_flusher=thread.io_flusher,
        policy=thread.policy.name,
        confined=confinement(pid),
    )
    return True


def guarded(stage: Stage, service: GuardProcess, number: int) -> None:
    """One freeze, ended by the guard."""
    since = len(service.lines)
    pid = stage.write(number)
    work = stage.follow(pid)
    if work.seconds is None:
        stage.raise_limit()
        os.waitpid(pid, 0)
    froze = len(service.lines) > since
    acted = froze and service.said("put back: ", since, 40)
    said = service.lines[since:]
    seen_by = [match[1] for line in said if (match := re.search(r"; first seen by (.*)", line))]
    seconds = [float(m[1]) for line in said if (m := re.search(r"goes on, ([\d.]+) s after", line))]
    say(
        "guarded",
        round=number,
        **asdict(work),
        seen_by=seen_by,
        acted=acted,
        first_s=seconds,
        wrong=stage.wrong_chunks(number) if not work.status else None,
        said=said if not seen_by or work.status or not seconds else said[:1],
    )


def pressure(stage: Stage, rounds: int) -> None:
    """What the kernel tells of pressure while the device stands still, by the guard's triggers."""
    for number in range(rounds):
        triggers = PressureTriggers(TRIGGERS)
        before = pressure_totals()
        pid = stage.write(number)
        began = moved = time.monotonic()
        completed = -1
        woken: list[list[Any]] = []
        frozen_before = before
        while (now := time.monotonic()) - began < DEADLINE_S and now - moved < UNTOUCHED_S:
            resources = triggers.wait(0.1)
            before_look, (completed, in_flight) = completed, stage.requests.read()
            if completed != before_look or not in_flight:
                moved, frozen_before = time.monotonic(), pressure_totals()
                woken = []
            woken += [[round(time.monotonic() - moved, 2), *resources]] if resources else []
        frozen_after = pressure_totals()
        triggers.close()
        stage.raise_limit()
        work = stage.follow(pid)
        say(
            "pressure",
            watched=triggers.watched,
            writing_s={name: frozen_before[name] - before[name] for name in before},
            frozen_s={name: frozen_after[name] - frozen_before[name] for name in before},
            waits=stage.waits(),
            woken=woken,
            work=asdict(work),
        )
        stage.make_ready()


def pressure_totals() -> dict[str, float]:
    """Seconds of stall since boot, by resource and kind."""
    return {
        f"{resource} {line.kind}": round(line.total_us / 1e6, 2)
        for resource in TRIGGERS
        for line in parse_pressure(Path("/proc/pressure", resource).read_bytes())
    }


def left_alone(stage: Stage, number: int) -> None:
    """The same freeze with nobody to end it: it stays, until the limit is raised by hand."""
    pid = stage.write(number)
    frozen = stage.frozen(STALLED_S, pid)
    before = stage.requests.read()[0]
    time.sleep(UNTOUCHED_S)
    completed = stage.requests.read()[0] - before
    waits = stage.waits()
    stage.raise_limit()
    work = stage.follow(pid)
    say("left alone", frozen=frozen, seconds=UNTOUCHED_S, completed=completed, waits=waits, work=asdict(work))
    stage.make_ready()


def rescue(stage: Stage, rounds: int) -> None:
    """`rescue --now` ends so many freezes."""
    for number in range(rounds):
        ended(stage, number, "--stalled", "3")
        stage.make_ready()


def once(stage: Stage, rounds: int) -> None:
    """`rescue --now` ends the scenario's own freeze; then the file system is checked: the last part."""
    if stage.device.startswith("/dev/ublk"):
        stage.chunks = UBLK_CHUNKS
    ended(stage, 0, "--stalled", "3")
    subprocess.run(("umount", stage.directory), check=False)
    checked = subprocess.run(("e2fsck", "-f", "-n", stage.device), capture_output=True, text=True)
    say("checked", status=checked.returncode, said=checked.stdout.splitlines()[-1:])


def ended(stage: Stage, number: int, *options: str) -> None:
    """A freeze of three seconds, and the program."""
    pid, frozen = stage.freeze(number)
    status, answer = run_program("rescue", "--now", "--json", *options)
    work = stage.follow(pid)
    if work.seconds is None:
        stage.raise_limit()
        os.waitpid(pid, 0)
    record = json.loads(answer or "{}")
    freezes = record.get("freezes", ())
    say(
        "rescued",
        round=number,
        frozen=frozen,
        status=status,
        devices=[freeze["device"] for freeze in freezes],
        way=[freeze["way"] for freeze in freezes],
        seconds=[freeze["seconds"] for freeze in freezes],
        actions=[[each["action"], each["result"]] for freeze in freezes for each in freeze["actions"]],
        details=[each["detail"] for freeze in freezes for each in freeze["actions"] if each["detail"]],
        put_back=[freeze["put_back"] for freeze in freezes],
        left=[freeze["left"] for freeze in freezes],
        work=asdict(work),
        wrong=stage.wrong_chunks(number) if not work.status else None,
    )


def tried(stage: Stage, number: int, what: str, act: Callable[[], object], seconds: float = 12.0) -> None:
    """A freeze, something done about it, and what comes of it; ended by hand where nothing does."""
    pid, frozen = stage.freeze(number)
    before, began = stage.requests.read()[0], time.monotonic()
    act()
    first = until(lambda: stage.requests.read()[0] != before, seconds)
    work = stage.follow(pid, max(1.0, seconds - (time.monotonic() - began)))
    by_hand = work.seconds is None
    if by_hand:
        stage.raise_limit()
        work = stage.follow(pid)
    wrong = stage.wrong_chunks(number) if not work.status else None
    say(what, frozen=frozen, first_s=first, by_hand=by_hand, work=asdict(work), wrong=wrong)


def device_timeout(stage: Stage, rounds: int) -> None:
    """queue/io_timeout at 3 s before the freeze."""
    path = Path("/sys/block") / Path(stage.device).name / "queue/io_timeout"
    old = path.read_text()
    for number in range(rounds):
        path.write_text("3000")
        tried(stage, number, "io_timeout", lambda: None)
        path.write_text(old)
        stage.make_ready()


def share(stage: Stage, rounds: int) -> None:
    """The daemon in the state, its store with a strict limit of one percent: does that freeze?"""
    store = os.stat("/store").st_dev
    directory = Path(f"/sys/class/bdi/{os.major(store)}:{os.minor(store)}")
    before = {name: (directory / name).read_text() for name in ("max_ratio", "strict_limit")}
    for number in range(rounds):
        for pid in stage.daemons:
            run_program("set", str(pid))
        (directory / "max_ratio").write_text("1")
        (directory / "strict_limit").write_text("1")
        pid = stage.write(number)
        work = stage.follow(pid)
        by_hand = work.seconds is None
        for name, value in before.items():
            (directory / name).write_text(value)
        lifted = stage.follow(pid, 10.0) if by_hand else None
        if lifted is not None and lifted.seconds is None:
            stage.raise_limit()
            os.waitpid(pid, 0)
        say("share", work=asdict(work), lifted=lifted and asdict(lifted), wrong=stage.wrong_chunks(number))
        stage.make_ready()


def store_share(stage: Stage, rounds: int) -> None:
    """The store's max_ratio at 1: each second stall is left alone, in the others it is lifted."""
    stalls = 0
    store = os.stat("/store").st_dev
    max_ratio = Path(f"/sys/class/bdi/{os.major(store)}:{os.minor(store)}/max_ratio")
    for number in range(rounds):
        stage.make_ready()
        pid = stage.write(number)
        frozen = stage.frozen(STALLED_S, pid)
        before = stage.requests.read()[0]
        stalls += frozen
        lifted = frozen and stalls % 2 == 1
        if lifted:
            max_ratio.write_text("100")
        work = stage.follow(pid, 4 * UNTOUCHED_S)
        completed = stage.requests.read()[0] - before
        waits = stage.waits()
        if by_hand := work.seconds is None:
            stage.raise_limit()
            os.waitpid(pid, 0)
        say(
            "store-share",
            lifted=lifted,
            frozen=frozen,
            completed=completed,
            waits=waits,
            by_hand=by_hand,
            work=asdict(work),
        )


def nbd_timeout(stage: Stage, rounds: int) -> None:
    """nbd's own time-out at 3 s before the freeze, as by `nbd attach --timeout 3`: the last part."""
    with open(stage.device, "rb") as device:
        fcntl.ioctl(device, NBD_SET_TIMEOUT, 3)
        tried(stage, 0, "nbd time-out", lambda: None, DEADLINE_S)


def abort(stage: Stage, rounds: int) -> None:
    """fuse-abort, by `rescue --now`: the last part."""
    # as systemd does
    subprocess.run(("mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"), check=True)
    name = Path(stage.device).name
    ended(stage, 0, "--stalled", "3", "--only", "fuse-abort", "--allow-loss", name)


def copy_store(stage: Stage) -> None:
    """Take the file system away, and have its store once more, for a device that is attached by us."""
    (daemon,) = stage.daemons
    subprocess.run(("umount", stage.device), check=True)
    subprocess.run(("cp", "--sparse=always", store_of(daemon), COPY), check=True)


@contextmanager
def own_device(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """nbd1 with the copy, attached over netlink, and its server, which has not the state."""
    stage.device, stage.directory = "/dev/nbd1", Path("/mnt")
    argv = [*SERVER, "/run/first.sock", "--no-io-flusher"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().decode().split()[-1]
        run_program("nbd", "attach", "--netlink", stage.device, uri)
        subprocess.run(("mount", stage.device, stage.directory), check=True)
        stage.daemons, stage.requests = [server.pid], DeviceRequests("nbd1")
        yield server
        subprocess.run(("umount", stage.directory), check=False)
        run_program("nbd", "detach", stage.device)
        server.kill()


def take_over(stage: Stage, rounds: int) -> None:
    """nbd-take-over, by `rescue --now`: another server of the same store, with the state; the last part."""
    copy_store(stage)
    with subprocess.Popen([*SERVER, "/run/second.sock"], stdout=subprocess.PIPE) as second:
        assert second.stdout is not None
        with own_device(stage) as first:
            say("take-over", second=second.stdout.readline().decode())
            options = ("--only", "nbd-take-over", "--allow-loss", "nbd1")
            ended(stage, 0, "--stalled", "3", *options)
            say("servers", first=first.poll(), second=second.poll())
        second.terminate()


def ublk_recovery(stage: Stage, rounds: int) -> None:
    """ublk-recovery, by `rescue --now`, on a ublk scenario: a server with the state stands by; the last part.

    The device is made anew, as one that outlives its server.
    """
    (daemon,) = stage.daemons
    store = store_of(daemon)
    subprocess.run(("umount", stage.device), check=True)
    os.kill(daemon, signal.SIGTERM)
    gone = until(lambda: not Path("/sys/block", Path(stage.device).name).exists())
    argv = [sys.executable, "-m", "ioflusher.lab.daemons.ublk", "--store", store]
    with subprocess.Popen([*argv, "--recoverable", "--no-io-flusher"], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        stage.device = first.stdout.readline().decode().split()[-1]
        name = Path(stage.device).name
        stage.daemons, stage.requests = [first.pid], DeviceRequests(name)
        subprocess.run(("mount", stage.device, stage.directory), check=True)
        stage.chunks = UBLK_CHUNKS
        number = name.removeprefix("ublkb")
        with subprocess.Popen([*argv, "--recover", number], stdout=subprocess.PIPE) as second:
            assert second.stdout is not None
            say("ublk-recovery", gone=gone, device=stage.device, second=second.stdout.readline().decode())
            options = ("--only", "ublk-recovery", "--allow-loss", name)
            ended(stage, 0, "--stalled", "3", *options)
            say("servers", first=first.poll(), second=second.poll())
            subprocess.run(("umount", stage.directory), check=False)
            second.terminate()
            first.kill()


def store_of(daemon: int) -> str:
    """The file that it serves."""
    links = (os.readlink(link) for link in Path(f"/proc/{daemon}/fd").iterdir())
    return next(path for path in links if path.startswith("/store/"))


def disconnect(stage: Stage, rounds: int) -> None:
    """nbd-disconnect, by `rescue --now`: the last part."""
    name = Path(stage.device).name
    ended(stage, 0, "--stalled", "3", "--only", "nbd-disconnect", "--allow-loss", name)


def multipath(stage: Stage, rounds: int) -> None:
    """On swap-on-multipath: all paths offline while somebody reads; multipath-queueing by `rescue --now`."""
    for number in range(rounds):
        with unreachable(stage) as reader:
            time.sleep(3.0)
            waits = reader.poll() is None
            name = Path(stage.device).name
            status, answer = run_program("rescue", "--now", "--json", "--stalled", "1", "--allow-loss", name)
            _, error = reader.communicate(timeout=30)
        (freeze,) = json.loads(answer)["freezes"]
        say(
            "multipath",
            round=number,
            waits=waits,
            status=status,
            way=freeze["way"],
            reason=freeze["reason"],
            actions=[[each["action"], each["result"]] for each in freeze["actions"]],
            seconds=freeze["seconds"],
            put_back=freeze["put_back"],
            left=freeze["left"],
            reader=[reader.returncode, error.strip()],
            back=until(lambda: read_device(stage).wait() == 0),
        )


def guarded_multipath(stage: Stage, rounds: int) -> None:
    """The same with a guard, which was allowed to: it acts by itself."""
    name = Path(stage.device).name
    service = guard_process("--stalled", "1", "--policy", "more", "--allow-loss", name)
    described(service, service.pid)
    for number in range(rounds):
        since = len(service.lines)
        with unreachable(stage) as reader:
            began = time.monotonic()
            _, error = reader.communicate(timeout=DEADLINE_S)
            seconds = time.monotonic() - began
            acted = service.said("put back: ", since)
        say(
            "guarded multipath",
            round=number,
            acted=acted,
            seconds=round(seconds, 2),
            said=service.lines[since:],
            reader=[reader.returncode, error.strip()],
            back=until(lambda: read_device(stage).wait() == 0),
        )
    say("guard ended", status=service.end())


@contextmanager
def unreachable(stage: Stage) -> Iterator[subprocess.Popen[str]]:
    """All paths of the map are offline, and somebody reads from it."""
    paths = [
        path / "device/state" for path in Path("/sys/block", Path(stage.device).name, "slaves").iterdir()
    ]
    for path in paths:
        path.write_text("offline\n")
    try:
        yield read_device(stage)
    finally:
        for path in paths:
            path.write_text("running\n")


def read_device(stage: Stage) -> subprocess.Popen[str]:
    """A block of it is read, past the page cache."""
    words = ("dd", f"if={stage.device}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct", "status=none")
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


UNITS = Path("/etc/systemd/system")
SYSTEMD = (
    *("unshare", "--fork", "--pid", "--mount-proc", "--cgroup"),
    *("/lib/systemd/systemd", "--system", "--unit=only.target", "--log-target=console"),
)


def systemd(stage: Stage, rounds: int) -> None:
    """The guard's unit under a real systemd, first process of a PID namespace; the last part.

    What is frozen has to be in that namespace, too: `inside_systemd` is a service of it.
    """
    copy_store(stage)
    _, unit = run_program("guard", "--unit", "--stalled", str(STALLED_S), "--history", "/run/kept/guard.log")
    environment = {
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "IOFLUSHER_DEVICE": stage.device,
        "IOFLUSHER_DAEMON": "",
    }
    # the interpreter lies below /root here
    lines = ("[Service]", "StandardError=append:/run/said", "ProtectHome=read-only")
    for place, text in {
        "ioflusher-guard.service": unit,
        "ioflusher-guard.service.d/test.conf": unit_lines(*lines, PYTHONPATH=environment["PYTHONPATH"]),
        "stage.service": unit_lines(
            *("[Unit]", "DefaultDependencies=no", "[Service]", "StandardOutput=append:/run/told"),
            *("StandardError=append:/run/told", f"WorkingDirectory={os.getcwd()}"),
            f"ExecStart={sys.executable} -m tests.rescue.guest_freezes inside-systemd:{rounds}",
            **environment,
        ),
        "only.target": unit_lines(
            *("[Unit]", "DefaultDependencies=no", "Wants=stage.service ioflusher-guard.service"),
        ),
    }.items():
        (UNITS / place).parent.mkdir(parents=True, exist_ok=True)
        (UNITS / place).write_text(text)
    Path("/run/kept").mkdir()
    told, said = Path("/run/told"), Path("/run/said")
    told.touch()
    said.touch()
    subprocess.run("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup", shell=True)
    with subprocess.Popen(SYSTEMD, env={**os.environ, "container": "lxc"}, stdout=sys.stderr) as manager:
        until(lambda: manager.poll() is not None or '"part"' in told.read_text(), 240.0)
        print(told.read_text(), flush=True)
        say("systemd", status=manager.poll(), said=said.read_text().splitlines()[-40:])
        manager.kill()


def guard_pid() -> int | None:
    """The process that is a guard."""
    programs = ((int(path.parent.name), path.read_bytes()) for path in Path("/proc").glob("[0-9]*/cmdline"))
    return next((pid for pid, words in programs if b"ioflusher.rescue.guard" in words), None)


def confinement(pid: int) -> list[str]:
    """What it may do, as /proc/PID/status has it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"))]


def unit_lines(*lines: str, **environment: str) -> str:
    """A unit file's text."""
    return "\n".join((*lines, *(f"Environment={name}={value}" for name, value in environment.items()), ""))


def inside_systemd(stage: Stage, rounds: int) -> None:
    """A service beside the guard's: the freezes that it ends."""
    guard_said = GuardProcess(["sh", "-c", "exec tail -n +1 -f /run/said >&2"])
    with own_device(stage):
        guard_said.said("watching /dev/nbd1", 0, 120.0)
        pid = guard_pid()
        if pid is None or not described(guard_said, pid, "watching /dev/nbd1"):
            say("inside systemd", pid=pid, failed=guard_said.lines)
            return
        root = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()[0]
        say("inside systemd", status=confinement(pid), root=root)
        for number in range(rounds):
            guarded(stage, guard_said, number)
            stage.make_ready()
        kept = Path("/run/kept/guard.log").read_text().splitlines()
        say("inside systemd", kept=len(kept))


def swap(stage: Stage, mib: int) -> None:
    """On swap-on-nbd: a guard with so many MiB in reserve; writeback throttling of the device is off."""
    Path("/sys/block/nbd0/queue/wbt_lat_usec").write_text("0")
    reserved_swap(stage, mib)


def reserved_swap(stage: Stage, mib: int) -> None:
    """On swap-on-nbd, -fuse or -ublk: a guard with so many MiB in reserve; the last part."""
    from ioflusher.lab.guest import workloads
    from ioflusher.lab.guest.disks import find_disk
    from ioflusher.lab.messages import READER_DISK
    from ioflusher.rescue.protection import protect

    service = guard_process("--stalled", "3", "--reserve", f"{mib}M", "--history", "/run/guard.log")
    described(service, service.pid)
    reader = Gated(lambda: workloads.read(find_disk(READER_DISK)))
    worker = Gated(fill_memory)
    protect()
    reader.begin()
    reader.told()
    worker.begin()
    work = stage.follow(worker.pid, 150.0)
    queue = Path("/sys/block", Path(stage.device).name, "queue/wbt_lat_usec")
    wbt = queue.read_text().strip() if queue.exists() else None
    say("swap", reserve=mib, wbt=wbt, work=asdict(work), waits=stage.waits(), said=service.lines[2:])


def fill_memory() -> None:
    """The scenario's workload: 188 MiB, a quarter of it more than there is room for; read back in the end."""
    from ioflusher.lab.guest import workloads

    chunks = workloads.pieces(188 << 20, 4 << 20)
    memory = mmap.mmap(-1, 188 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for number, (at, length) in enumerate(chunks):
        memory[at : at + length] = workloads.pattern(number, length)
        time.sleep(0.02)
    sys.exit(workloads.wrong_chunks(memory[at : at + length] for at, length in chunks))


class Gated:
    """A child that waits for the word, forked while this process was an ordinary one."""

    def __init__(self, work: Callable[[], None]) -> None:
        (self._wait, self._go), (self._told, tell) = os.pipe(), os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.dup2(tell, 1)
                os.read(self._wait, 1)
                work()
                os._exit(0)
            except SystemExit as end:
                os._exit(int(end.code or 0))
            finally:
                os._exit(99)

    def begin(self) -> None:
        """Let it go."""
        os.write(self._go, b"g")

    def told(self) -> None:
        """Wait until it says that it is ready."""
        os.read(self._told, 1)


PARTS: dict[str, Callable[[Stage, int], None]] = {
    "guard": guard,
    "pressure": pressure,
    "rescue": rescue,
    "once": once,
    "device-timeout": device_timeout,
    "share": share,
    "store-share": store_share,
    "nbd-timeout": nbd_timeout,
    "abort": abort,
    "disconnect": disconnect,
    "multipath": multipath,
    "guarded-multipath": guarded_multipath,
    "take-over": take_over,
    "ublk-recovery": ublk_recovery,
    "systemd": systemd,
    "inside-systemd": inside_systemd,
    "swap": swap,
    "swap-throttled": reserved_swap,
}


def main() -> None:
    """Play the parts in their order."""
    stage = Stage()
    for word in sys.argv[1:]:
        name, _, rounds = word.partition(":")
        began = time.monotonic()
        PARTS[name](stage, int(rounds or 1))
        say("part", name=name, seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
