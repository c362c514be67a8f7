"""Inside the guest: play one half of a scenario and report what happens, even when the rest freezes.

settings -> the stack starts its daemon and makes the device -> swap or a file system on it
-> pressure and workload start -> samples, until all is verified, the workload ends or the device is frozen
"""

import json
import os
import select
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ioflusher.lab.guest import workloads
from ioflusher.lab.guest.cgroups import Groups, make_groups
from ioflusher.lab.guest.disks import find_disk
from ioflusher.lab.guest.faults import FaultDriver
from ioflusher.lab.guest.hardening import harden
from ioflusher.lab.guest.near_misses import NearMissWatch
from ioflusher.lab.guest.observer import Observer
from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.guest.processes import Process, Processes, SetupFailed, await_line, become_observer
from ioflusher.lab.guest.settings import apply_settings
from ioflusher.lab.messages import (
    READER_DISK,
    Hardened,
    PlayHalf,
    SettingUp,
    StageFailed,
    WorkReady,
    WorkVerified,
    WorkWritten,
    decode_report,
)
from ioflusher.lab.stacks import load_stack
from ioflusher.lab.stacks.base import Stack
from ioflusher.scenario.records import KernelTable, Scenario

SAMPLE_S = 0.5


def play(order: PlayHalf, port: ReportPort) -> None:
    """Build the stage, let the workload go, watch until it is done or the device is frozen."""
    try:
        stage = build_stage(order, port)
        stage.start_programs()
    except (SetupFailed, OSError) as error:
        port.say(StageFailed(message=str(error)))
        return
    stage.watch()
    stage.stack.end()


def build_stage(order: PlayHalf, port: ReportPort) -> "Stage":
    """Apply the settings, become the observer, start the daemon and put its device to use.

    Raises:
        SetupFailed, OSError: which say the step.
    """
    scenario = order.scenario
    processes = Processes()
    hardening = scenario.hardening
    # where only some threads are to carry the state, they get it once they are there
    at_start = msgspec.structs.replace(order, io_flusher=order.io_flusher and hardening.state == "all")
    stack = load_stack(scenario.device.kind)(at_start, processes)
    # by an ordinary task: vm.dirty_bytes that a real-time one writes puts a limit in force that is a quarter
    # and more above it, and comes down slowly (writeback_set_ratelimit(), mm/page-writeback.c)
    apply_settings(scenario.kernel)
    if hardening.min_free_kbytes is not None:
        apply_settings(KernelTable(sysctl={"vm.min_free_kbytes": str(hardening.min_free_kbytes)}))
    become_observer()
    groups = make_groups(scenario.cgroup, hardening.reserve, processes)
    port.say(SettingUp(step="starting the daemon"))
    processes.group = groups.daemon
    with processes.told():
        stack.start()
        started = tuple(process for process in processes.staged if process.poll() is None)
        processes.group = None
        if done := harden(hardening, stack.daemons(), stack.carriers() if order.io_flusher else ()):
            port.say(Hardened(done=done))
        if scenario.device.queue_depth is not None:
            stack.limit_queue(scenario.device.queue_depth)
        port.say(SettingUp(step=f"putting {scenario.device.use} on {stack.device}"))
        stack.use(scenario.device.use)
    return Stage(scenario, port, processes, stack, groups, started)


@dataclass(slots=True)
class Stage:
    """A daemon that serves its device, with swap or a file system on that; and what will use it.

    Attributes:
        scenario: what is played.
        port: where reports go.
        processes: starts the programs.
        stack: the device and its daemon.
        groups: the control groups that programs start in.
        started: the processes that the stack started and that are to stay.
    """

    scenario: Scenario
    port: ReportPort
    processes: Processes
    stack: Stack
    groups: Groups
    started: tuple[Process, ...]
    _work: "WorkloadPrograms" = field(init=False)
    _worker: Process = field(init=False)

    def start_programs(self) -> None:
        """Start the pressure, and the workload, which waits for the word.

        Raises:
            SetupFailed: which says the program.
        """
        self._work = WorkloadPrograms(
            self.scenario,
            self.processes,
            self.stack.directory,
            self.stack.look_through(self.scenario.device.use),
        )
        self._work.start_pressure()
        self.processes.group = self.groups.workload
        self._worker = self._work.start_workload()
        self.processes.group = None

    def watch(self) -> None:
        """Let the workload go, and report until it is done or the device is frozen."""
        near_misses = NearMissWatch(self.stack.daemons, self.stack.device)
        observer = Observer(
            self.stack.daemons,
            self.stack.counters(),
            near_misses,
            self.port,
            self.started,
            device=self.stack.device,
        )
        faults = FaultDriver(self.scenario.fault, self.stack.faults(), self.port)
        watch(self._work, self._worker, observer, faults, self.port)


@dataclass(slots=True)
class WorkloadPrograms:
    """What uses the device, and what else needs memory meanwhile."""

    scenario: Scenario
    processes: Processes
    directory: Path
    look_through: dict[str, list[str]] | None = None
    _presser: Process | None = field(default=None, init=False)

    # by path and without site packages: they need neither, and a guest under emulation starts slowly
    _PROGRAM = (sys.executable, "-S", "-I", workloads.__file__)

    def start_pressure(self) -> None:
        """Start what the scenario's pressure asks for, and wait until it presses."""
        pressure = self.scenario.pressure
        if pressure.kind == "reader":
            argv = (*self._PROGRAM, "read", find_disk(READER_DISK))
            self._presser = self.processes.start(argv, stdout=True)
            await_ready(self._presser)
        elif pressure.kind == "anonymous":
            argv = (*self._PROGRAM, "touch", str(pressure.size))
            self._presser = self.processes.start(argv, stdin=True, stdout=True)
            await_ready(self._presser)

    def begin_pressure(self) -> None:
        """Give the word to a pressure that waits for it."""
        if self._presser is not None and self._presser.stdin is not None:
            os.write(self._presser.stdin.fileno(), b"go\n")

    def start_workload(self) -> Process:
        """Start the workload; it waits for a line before it begins."""
        workload = self.scenario.workload
        sizes = {
            "size": workload.size,
            "file_size": workload.file_size,
            "per_directory": workload.per_directory,
            "chunk": workload.chunk,
            "pause_s": workload.pause_ms / 1000,
            "passes": workload.passes,
            "directory": str(self.directory),
            "look_through": self.look_through,
        }
        argv = (*self._PROGRAM, workload.kind, json.dumps(sizes))
        worker = self.processes.start(argv, stdin=True, stdout=True)
        await_ready(worker)
        return worker

    def end_pressure(self) -> None:
        """Once everything is written the pressure has done its part: it goes, and a reader's page cache too.

        Reading back would race with it for memory otherwise, and take minutes under emulation.
        """
        if self._presser is not None:
            self._presser.kill()
            self._presser.wait()
            self._presser = None
            Path("/proc/sys/vm/drop_caches").write_text("1")


def await_ready(program: Process) -> None:
    """Wait until the program has its memory and code and, if it waits for one, only needs the word."""
    line = await_line(program)
    if not isinstance(decode_report(line.encode()), WorkReady):
        raise SetupFailed(f"{program.shown()} did not get ready: it said {line!r}{program.printed()}")


def watch(
    work: WorkloadPrograms, worker: Process, observer: Observer, faults: FaultDriver, port: ReportPort
) -> None:
    """Take samples and bring faults about until the end; every path out of here has said how it ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    pipe = worker.stdout.fileno()
    observer.begin()
    faults.begin()
    work.begin_pressure()
    os.write(worker.stdin.fileno(), b"go\n")
    while True:
        readable = select.select([pipe], [], [], min(SAMPLE_S, faults.due_in_s()))[0]
        faults.act()
        if readable:
            text = os.read(pipe, 65536)
            if not text:
                break
            for line in text.splitlines():
                report = decode_report(line)
                port.say(report)
                if isinstance(report, WorkWritten):
                    work.end_pressure()
                elif isinstance(report, WorkVerified):
                    observer.work_ended(0)
                    return
        observer.sample()
        if observer.is_frozen(work.scenario.frozen.stalled_s):
            observer.device_frozen()
            return
    observer.work_ended(worker.wait())  # it ended before it had read everything back
