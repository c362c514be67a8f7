"""Where a verdict's time goes, and how soon a guest speaks: `python -m tests.lab.benchmark WHAT ...`.

    boot [--rounds N]                 first event of ours and of plain QEMU, in turns
    timeline SCENARIO [--rounds N]    what each part of a half costs, one half after the other
    verdict SCENARIO [--rounds N]     the whole command, both halves at once and one after the other, in turns

Seconds by the clock want a quiet machine; processor seconds of QEMU, requests and bytes move less with what
else the machine does. All figures are medians.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ioflusher.lab.experiment import run_half
from ioflusher.lab.initramfs import newc
from ioflusher.lab.messages import (
    Booted,
    DeviceFrozen,
    GuestReport,
    Hello,
    RunCommand,
    SettingUp,
    WorkBegan,
    WorkEnded,
    WorkVerified,
    WorkWritten,
)
from ioflusher.lab.players import Cancellable
from ioflusher.lab.qemu import KERNEL_ARGUMENTS, qemu_argv
from ioflusher.lab.session import Guest, Lab
from ioflusher.lab.vm import Ended, VirtualMachine
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import Scenario

PROGRAM = str(Path(sys.executable).with_name("ioflusher"))
MEMORY_BYTES = 512 << 20
DEADLINE_S = 300.0
FIRST_WORDS = b"first event"
# the kernel gives the first process no console where the archive has no /dev/console
PLAIN_INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox echo first event >/dev/ttyS0
exec /bin/busybox sleep 1000
"""


def processor_s(pid: int) -> float:
    """User and system time of a process and all its threads (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# first events


def our_first_event(lab: Lab) -> tuple[float, float]:
    """Seconds from QEMU's start to `Booted`, by the clock and of QEMU's processor time."""
    order = RunCommand(("true",), "/", {})
    with lab.boot(Guest(MEMORY_BYTES), order) as vm:
        report = vm.next_report(DEADLINE_S)
        assert isinstance(report, Booted), report
        return vm.elapsed_s, processor_s(vm.pid)


def plain_first_event(lab: Lab, kernel: Path | None = None) -> tuple[float, float]:
    """The same for the same kernel, arguments, processor and archive, whose init only writes a line.

    There are no disks and no ports: what QEMU needs at least. `kernel` is the file, by default the one that
    ours boots.
    """
    with tempfile.TemporaryDirectory(prefix="ioflusher-plain-") as name:
        console, archive = Path(name) / "console", Path(name) / "initramfs"
        vm = lab.boot(Guest(MEMORY_BYTES), RunCommand(("true",), "/", {}))
        try:
            # of two archives the kernel takes the later one's file
            archive.write_bytes(vm._initramfs + newc([("init", 0o100755, PLAIN_INIT)]))
            argv = plain_argv(qemu_argv(vm._hardware, vm.places), console, archive)
            if kernel is not None:
                argv[argv.index("-kernel") + 1] = str(kernel)
        finally:
            vm.close()
        began = time.monotonic()
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
            try:
                while not (console.exists() and FIRST_WORDS in console.read_bytes()):
                    assert time.monotonic() - began < DEADLINE_S, console.read_text(errors="replace")
                    assert process.poll() is None, "QEMU ended"
                    time.sleep(0.005)
                return time.monotonic() - began, processor_s(process.pid)
            finally:
                process.kill()


def plain_argv(ours: list[str], console: Path, archive: Path) -> list[str]:
    """Of our command line what makes the processor, the memory and the kernel, and a serial line."""
    kept = [*ours[: ours.index("-accel")]]
    for option in ("-accel", "-cpu", "-machine", "-m", "-smp", "-kernel", "-append"):
        kept += [option, ours[ours.index(option) + 1]]
    kept += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    return [*kept, "-initrd", str(archive), "-serial", f"file:{console}"]


def boot(rounds: int) -> None:
    """Ours and plain QEMU in turns: with the kernel's file as it is, and with the one that ours boots."""
    contenders: dict[str, Callable[[Lab], tuple[float, float]]] = {
        "plain QEMU": lambda lab: plain_first_event(lab, lab.kernel.image),
        "plain QEMU, kernel unpacked": plain_first_event,
        "ours": our_first_event,
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with Lab() as lab:
        for number in range(rounds + 1):
            for name, measure in contenders.items():
                figures = measure(lab)
                if number:  # the first fills caches
                    measured[name].append(figures)
        print(f"Linux {lab.kernel.release}, {lab.accelerator.value}, arguments {' '.join(KERNEL_ARGUMENTS)}")
    print(f"{f'first event, {rounds} rounds':28} {'s, median':>10} {'least':>8} {'processor s, median':>20}")
    for name, times in measured.items():
        clock, processor = zip(*times, strict=True)
        print(f"{name:28} {median(clock):10.2f} {min(clock):8.2f} {median(processor):20.2f}")
    ours = measured.pop("ours")
    for name, plain in measured.items():
        for place, what in enumerate(("by the clock", "of processor time")):
            ratio = median([row[place] for row in ours]) / median([row[place] for row in plain])
            print(f"ours to {name}, {what}: {ratio:.2f}")


# the parts of a half


class Timeline:
    """What one half has used when each of its parts is over: clock, QEMU, this process, requests, MiB."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._pid: int | None = None
        self._qemu_s = 0.0
        self._step = "the agent's modules and the settings"
        self._before = self._now()
        self.parts: dict[str, tuple[float, ...]] = {}

    def _now(self) -> tuple[float, ...]:
        if self._pid is not None:
            with contextlib.suppress(OSError):  # it has ended
                self._qemu_s = processor_s(self._pid)
        served = self._lab.root_server.counters()
        read = (float(served.reads), served.bytes_read / (1 << 20))
        return (time.monotonic(), self._qemu_s, time.process_time(), *read)

    def over(self, part: str) -> None:
        """The part ends here."""
        now = self._now()
        self.parts[part] = tuple(after - before for after, before in zip(now, self._before, strict=True))
        self._before = now

    def machine(self, machine: VirtualMachine) -> None:
        """QEMU runs; what the follower is not told of is noted on its way."""
        self._pid = machine.pid
        self.over("disks, archive, QEMU's start")
        heard = machine.next_report

        def noting(timeout_s: float) -> GuestReport | Ended | None:
            report = heard(timeout_s)
            if isinstance(report, Booted):
                self.over("BIOS, kernel, root: the first event")
            elif isinstance(report, Hello):
                self.over("the agent's Python starts")
            return report

        machine.next_report = noting  # type: ignore[method-assign]

    def report(self, io_flusher: bool, report: GuestReport) -> None:
        """An `OnReport`; a step of the set-up ends where the next one begins."""
        match report:
            case SettingUp(step=step):
                self.over(self._step)
                self._step = step
            case WorkBegan():
                self.over(f"{self._step}, pressure and workload start")
            case WorkWritten():
                self.over("the work, until all is written")
            case WorkVerified():
                self.over("all is read back and compared")
            case DeviceFrozen():
                self.over("the work, until nothing has moved for stalled_s")
            case WorkEnded():
                self.over("the last report")


def timeline(name: str, rounds: int) -> None:
    """The parts of each half of a scenario."""
    began, own = time.monotonic(), time.process_time()
    scenario = parse_scenario(builtin_scenarios()[name])
    with Lab(scenario=scenario) as lab:
        clock, own = time.monotonic() - began, time.process_time() - own
        print(f"{name}, Linux {lab.kernel.release}, {lab.accelerator.value}; {rounds} rounds, medians")
        print(f"the lab, once for all guests: {clock:.2f} s, of this process {own:.2f} s of processor")
        for io_flusher in (False, True):
            lines = [one_timeline(lab, scenario, io_flusher) for _ in range(rounds)]
            heading = f"{'with' if io_flusher else 'without'} the state"
            print(f"\n{heading:58} {'s':>7} {'QEMU s':>7} {'own s':>7} {'reads':>6} {'MiB':>6}")
            for part in lines[0]:
                show(part, [line[part] for line in lines if part in line])
            show("in all", [tuple(map(sum, zip(*line.values(), strict=True))) for line in lines])


def one_timeline(lab: Lab, scenario: Scenario, io_flusher: bool) -> dict[str, tuple[float, ...]]:
    """One half."""
    line = Timeline(lab)

    def booted(machine: Cancellable) -> None:
        assert isinstance(machine, VirtualMachine)
        line.machine(machine)

    run_half(lab, scenario, io_flusher=io_flusher, on_report=line.report, on_machine=booted)
    line.over("the half's judgement, teardown")
    return line.parts


def show(part: str, rows: list[tuple[float, ...]]) -> None:
    """One line: medians of the columns."""
    clock, qemu, own, reads, mib = (median(column) for column in zip(*rows, strict=True))
    print(f"{part:58} {clock:7.2f} {qemu:7.2f} {own:7.2f} {reads:6.0f} {mib:6.1f}")


# whole commands


def verdict(name: str, rounds: int) -> None:
    """`ioflusher lab run`, at once and in turn."""
    measured: dict[str, list[tuple[float, float]]] = {"both halves at once": [], "--sequential": []}
    outcomes: list[str] = []
    for _ in range(rounds):
        for how, words in (("both halves at once", []), ("--sequential", ["--sequential"])):
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            with tempfile.TemporaryDirectory() as reports:
                done = subprocess.run(
                    [PROGRAM, "lab", "run", name, "--json", "--report", reports, *words],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=2 * DEADLINE_S,
                    check=False,
                )
            clock, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            record = json.loads(done.stdout)
            assert record["at_once"] == (not words), "this machine has no room for both halves"
            (run,) = record["runs"]
            outcomes.append(f"{run['without']['outcome']}/{run['with']['outcome']}")
            processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            measured[how].append((clock, processor))
            print(f"{how}: {clock:.1f} s, {processor:.1f} s of processors, {outcomes[-1]}", flush=True)
    print(f"\n{f'{name}, {rounds} rounds':34} {'s, median':>10} {'least':>8} {'most':>8} {'processor s':>12}")
    for how, times in measured.items():
        clocks, processors = zip(*times, strict=True)
        figures = (median(clocks), min(clocks), max(clocks), median(processors))
        print(f"{how:34} {figures[0]:10.1f} {figures[1]:8.1f} {figures[2]:8.1f} {figures[3]:12.1f}")


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Where a verdict's time goes.")
    parser.add_argument("what", choices=["boot", "timeline", "verdict"])
    parser.add_argument("scenario", nargs="?", default="swap-on-nbd")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    words = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors at first")
    if words.what == "boot":
        boot(words.rounds)
    elif words.what == "timeline":
        timeline(words.scenario, words.rounds)
    else:
        verdict(words.scenario, words.rounds)
    print(f"load {os.getloadavg()[0]:.1f} in the end")


if __name__ == "__main__":
    main()
