"""Inside the guest: play one half of a scenario and report what happens, even when the rest freezes.

The process that runs this carries the IO_FLUSHER state, has its memory locked and a real-time priority:
an observer that freezes with what it observes is worth nothing. Everything that it starts is set back
to an ordinary process first, so that the daemon begins without the state in both halves.
"""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ioflusher.flag import set_io_flusher
from ioflusher.harden import RealtimePolicy, lock_memory, set_oom_score_adj, set_realtime
from ioflusher.lab.guest.observer import DEVICE, Observer
from ioflusher.lab.guest.port import EventPort
from ioflusher.lab.job import ScenarioJob
from ioflusher.lab.scenario import Scenario, parse_scenario

STORE = Path("/store")
MOUNT = Path("/mnt")
SOCKET = "/run/lab/nbd.sock"
SAMPLE_S = 0.5
SETUP_DEADLINE_S = 40.0
PRIORITY = 50


class SetupFailed(Exception):
    """The stage could not be built; the message says which step and what it printed."""


def become_observer() -> None:
    """What the observer needs to go on in a frozen machine."""
    set_io_flusher(True)
    lock_memory()
    set_realtime(RealtimePolicy.FIFO, PRIORITY)
    set_oom_score_adj(-1000)


def become_ordinary(state: bool = False) -> None:
    """In a child, before it executes its program: nothing of the observer's privileges is left.

    `state` is for a daemon that does not set the IO_FLUSHER state itself.
    """
    set_io_flusher(state)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    set_oom_score_adj(0)


def daemon_argv(job: ScenarioJob, scenario: Scenario) -> list[str]:
    """The daemon's command. The two halves differ in one word, `--io-flusher` or `--no-io-flusher`.

    A command of the scenario's own is the same in both: the state is set before it is executed, or not.
    """
    if scenario.daemon.command:
        places = {"{socket}": SOCKET, "{file}": str(STORE / "image"), "{remote}": job.remote}
        return [replaced(word, places) for word in scenario.daemon.command]
    argv = [sys.executable, "-m", "ioflusher", "nbd", "serve", "--unix", SOCKET, "--max-payload", "1M"]
    argv += (
        ["--remote", job.remote] if scenario.daemon.store == "remote" else ["--file", str(STORE / "image")]
    )
    argv += ["--io-flusher" if job.io_flusher else "--no-io-flusher"]
    if scenario.daemon.lock_memory:
        argv += ["--lock-memory"]
    if scenario.daemon.realtime:
        argv += ["--realtime", str(scenario.daemon.realtime)]
    return argv


def replaced(word: str, places: dict[str, str]) -> str:
    """The word with each placeholder replaced."""
    for name, value in places.items():
        word = word.replace(name, value)
    return word


@dataclass(slots=True)
class Stage:
    """The processes of one half."""

    scenario: Scenario
    job: ScenarioJob
    events: EventPort
    daemon: subprocess.Popen[bytes] | None = None
    client: subprocess.Popen[bytes] | None = None
    reader: subprocess.Popen[bytes] | None = None

    def spawn(
        self, argv: list[str], *, stdin: bool = False, stdout: bool = False, state: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start an ordinary process, with pipes where asked; its errors go to the console."""
        return subprocess.Popen(
            argv,
            preexec_fn=partial(become_ordinary, state),
            bufsize=0,
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE if stdout else None,
        )

    def step(self, *argv: str) -> None:
        """Run a set-up command to its end."""
        try:
            done = subprocess.run(
                argv, preexec_fn=become_ordinary, capture_output=True, timeout=SETUP_DEADLINE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupFailed(f"{' '.join(argv)}: {error}") from error
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "backslashreplace").strip()
            raise SetupFailed(f"{' '.join(argv)} exited {done.returncode}: {said[-500:]}")

    def settings(self) -> None:
        """Apply the scenario's kernel settings."""
        for name, value in self.scenario.kernel.sysctl.items():
            Path("/proc/sys", *name.split(".")).write_text(value)
        for file, value in self.scenario.kernel.write.items():
            Path(file).write_text(value)

    def start_daemon(self) -> None:
        """Start the daemon and connect the kernel's client to it."""
        if self.scenario.daemon.store == "file":
            self.step("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "/dev/vdb")
            STORE.mkdir(exist_ok=True)
            self.step("mount", "-t", "ext4", "/dev/vdb", str(STORE))
            with (STORE / "image").open("wb") as image:
                image.truncate(self.scenario.device.size)
        argv = daemon_argv(self.job, self.scenario)
        if self.scenario.daemon.command:
            self.daemon = self.spawn(argv, state=self.job.io_flusher)
            uri = await_socket(self.daemon)
        else:
            self.daemon = self.spawn(argv, stdout=True)
            uri = await_uri(self.daemon)
        self.client = self.spawn([sys.executable, "-m", "ioflusher", "nbd", "attach", DEVICE, uri])
        deadline = time.monotonic() + SETUP_DEADLINE_S
        while int(Path("/sys/block/nbd0/size").read_text()) == 0:
            if time.monotonic() > deadline:
                raise SetupFailed(f"{DEVICE} was not attached after {SETUP_DEADLINE_S:g} s")
            time.sleep(0.1)

    def use_device(self) -> None:
        """Put swap or a file system on the device."""
        use = self.scenario.device.use
        if use == "swap":
            self.step("mkswap", DEVICE)
            self.step("swapon", DEVICE)
            return
        options = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=1"] if use == "ext4" else ["-q", "-K", "-f"]
        self.step(f"mkfs.{use}", *options, DEVICE)
        self.step("mount", "-t", use, DEVICE, str(MOUNT))

    def start_work(self) -> subprocess.Popen[bytes]:
        """Start reader and workload; the workload waits for a line before it begins."""
        pressure, workload = self.scenario.pressure, self.scenario.workload
        # by path and without site packages: it needs neither, and a guest under emulation starts slowly
        work = [sys.executable, "-S", "-I", str(Path(__file__).with_name("work.py"))]
        if pressure.kind == "reader":
            disk = "/dev/vdc" if self.scenario.daemon.store == "file" else "/dev/vdb"
            self.reader = self.spawn([*work, "read", disk], stdout=True)
            await_ready(self.reader)
        order = {
            "size": workload.size,
            "file_size": workload.file_size,
            "chunk": workload.chunk,
            "pause_s": workload.pause_ms / 1000,
            "directory": str(MOUNT),
        }
        return self.spawn([*work, workload.kind, json.dumps(order)], stdin=True, stdout=True)

    def end_pressure(self) -> None:
        """Once everything is written the reader has done its part: it goes, and its page cache with it.

        Reading back would race with it for memory otherwise, and take minutes under emulation.
        """
        if self.reader is not None:
            self.reader.kill()
            self.reader.wait()
            self.reader = None
            Path("/proc/sys/vm/drop_caches").write_text("1")


def play(job: ScenarioJob, events: EventPort) -> None:
    """Build the stage, let the workload go, watch until it is done or the device is frozen."""
    scenario = parse_scenario(job.scenario)
    stage = Stage(scenario, job, events)
    try:
        become_observer()
        stage.settings()
        events.say("phase", name="starting the daemon")
        stage.start_daemon()
        events.say("phase", name=f"putting {scenario.device.use} on {DEVICE}")
        stage.use_device()
        worker = stage.start_work()
        await_ready(worker)
    except (SetupFailed, OSError) as error:
        events.say("setup-failed", message=str(error))
        return
    assert stage.daemon is not None
    observer = Observer(stage.daemon.pid, events)
    watch(stage, observer, worker)


def await_uri(daemon: subprocess.Popen[bytes]) -> str:
    """Where our daemon listens, as it says itself."""
    assert daemon.stdout is not None
    if not select.select([daemon.stdout], [], [], SETUP_DEADLINE_S)[0]:
        raise SetupFailed(f"the daemon was not listening after {SETUP_DEADLINE_S:g} s")
    line = os.read(daemon.stdout.fileno(), 4096).decode("utf-8", "backslashreplace").strip()
    if not line.startswith("listening on "):
        raise SetupFailed(f"the daemon did not start (it said {line!r}; see the console)")
    return line.removeprefix("listening on ")


def await_socket(daemon: subprocess.Popen[bytes]) -> str:
    """Wait until another server has its Unix socket; returns the socket's URI."""
    deadline = time.monotonic() + SETUP_DEADLINE_S
    while not Path(SOCKET).is_socket():
        if daemon.poll() is not None:
            raise SetupFailed(f"{daemon.args!r} ended with status {daemon.returncode}; see the console")
        if time.monotonic() > deadline:
            raise SetupFailed(f"{daemon.args!r} had no socket {SOCKET} after {SETUP_DEADLINE_S:g} s")
        time.sleep(0.1)
    return f"nbd+unix:///?socket={SOCKET}"


def await_ready(worker: subprocess.Popen[bytes]) -> None:
    """Wait until the program has its memory and code and, if it waits for one, only needs the word."""
    assert worker.stdout is not None
    if not select.select([worker.stdout], [], [], SETUP_DEADLINE_S)[0]:
        raise SetupFailed(f"{worker.args!r} was not ready after {SETUP_DEADLINE_S:g} s")
    os.read(worker.stdout.fileno(), 4096)


def watch(stage: Stage, observer: Observer, worker: subprocess.Popen[bytes]) -> None:
    """Take samples until the end; every path out of here has said how it ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    pipe = worker.stdout.fileno()
    observer.begin()
    os.write(worker.stdin.fileno(), b"go\n")
    while True:
        if select.select([pipe], [], [], SAMPLE_S)[0]:
            text = os.read(pipe, 65536)
            if not text:
                break
            for line in text.splitlines():
                phase = observer.relay(line)
                if phase == "written":
                    stage.end_pressure()
                elif phase == "verified":
                    observer.finished(0)
                    return
        observer.sample()
        if observer.stalled_s >= stage.scenario.frozen.stalled_s:
            observer.frozen()
            return
    observer.finished(worker.wait())  # it ended before it had read everything back
