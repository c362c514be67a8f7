"""Play a scenario: two virtual machines that differ in one word, and what became of each."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from ioflusher.kernlog.console import task_reports
from ioflusher.kernlog.frames import parse_proc_stack
from ioflusher.kernlog.waits import explain_stack
from ioflusher.lab.channel import Event
from ioflusher.lab.disks import guest_disks
from ioflusher.lab.errors import LabError
from ioflusher.lab.job import ScenarioJob
from ioflusher.lab.outcome import DaemonThread, Half, HalfOutcome, Run, Sample, bounded_console
from ioflusher.lab.scenario import Scenario
from ioflusher.lab.session import Guest, Lab, await_agent
from ioflusher.lab.vm import Ended, VirtualMachine
from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.server import Server

HOST_IN_GUEST = "10.0.2.2"  # QEMU's user network: this machine's loopback
STORE_MARGIN = 64 << 20  # file system overhead around the daemon's store
SILENCE_S = 25.0  # an observer that says nothing for so long is frozen too
SETUP_SILENCE_S = 60.0  # the agent gives each step of the set-up 40 s and then says which one failed
NMI_DEADLINE_S = 40.0  # for a panic's stacks over an emulated serial line

Watch = Callable[[bool, Event], None]


def guest_for(scenario: Scenario, disks: tuple[Any, ...]) -> Guest:
    """The machine that the scenario asks for."""
    return Guest(
        memory_bytes=scenario.machine.memory,
        cpus=scenario.machine.cpus,
        modules=scenario.machine.modules,
        disks=disks,
        network=scenario.daemon.store == "remote",
    )


def disk_sizes(scenario: Scenario) -> list[str]:
    """The empty disks behind the root: the daemon's store first, then what the reader reads."""
    sizes = []
    if scenario.daemon.store == "file":
        sizes.append(str(scenario.device.size + STORE_MARGIN))
    if scenario.pressure.kind == "reader":
        sizes.append(str(scenario.pressure.size))
    return sizes


@contextlib.contextmanager
def remote_store(scenario: Scenario) -> Iterator[str]:
    """The server outside the machine, as a URI for the guest; empty where the scenario needs none."""
    if scenario.daemon.store != "remote":
        yield ""
        return
    with MemoryBackend(scenario.device.size) as backend, Server(backend) as server:
        address = server.listen_tcp()
        server.start()
        yield f"nbd://{HOST_IN_GUEST}:{address.port}"


def run_pair(
    lab: Lab,
    scenario: Scenario,
    text: str,
    *,
    only: str | None = None,
    watch: Watch = lambda half, event: None,
) -> Run:
    """Play the halves one after the other, or only "without" or "with"."""
    without = run_half(lab, scenario, text, io_flusher=False, watch=watch) if only != "with" else None
    with_ = run_half(lab, scenario, text, io_flusher=True, watch=watch) if only != "without" else None
    return Run(without, with_)


def run_half(lab: Lab, scenario: Scenario, text: str, *, io_flusher: bool, watch: Watch) -> Half:
    """Boot one machine and follow it to its outcome.

    Raises LabError when the stage could not be built: that is no outcome of the experiment.
    """
    with remote_store(scenario) as remote, guest_disks(disk_sizes(scenario)) as disks:
        job = ScenarioJob(text, io_flusher, remote)
        with lab.boot(guest_for(scenario, disks), job) as vm:
            boot_s = await_agent(vm)
            return _Follower(vm, scenario, io_flusher, boot_s, watch).follow()


class _Follower:
    """Turns the events of one machine into a Half."""

    def __init__(
        self, vm: VirtualMachine, scenario: Scenario, io_flusher: bool, boot_s: float, watch: Watch
    ) -> None:
        self._vm = vm
        self._scenario = scenario
        self._io_flusher = io_flusher
        self._boot_s = boot_s
        self._watch = watch
        self._began = 0.0
        self._samples: list[Sample] = []
        self._begin_threads: list[dict[str, Any]] = []
        self._work: dict[str, dict[str, Any]] = {}

    def follow(self) -> Half:
        deadline = self._vm.started_at + self._scenario.deadline_s
        while True:
            left = deadline - time.monotonic()
            patience = SILENCE_S if self._samples else SETUP_SILENCE_S
            event = self._vm.next_event(min(left, patience))
            if event is None:
                return self._silent("deadline" if left <= patience else "silence")
            if isinstance(event, Ended):
                return self._ended()
            self._watch(self._io_flusher, event)
            half = self._take(event)
            if half is not None:
                return half

    def _take(self, event: Event) -> Half | None:
        """One event; the Half if it was the last one."""
        data = event.data
        match event.kind:
            case "begin":
                self._began = event.time_s
                self._begin_threads = data["threads"]
            case "sample":
                since = event.time_s - self._began
                self._samples.append(Sample(since, data["completed"], data["in_flight"], data["memory_kib"]))
            case "work":
                self._work[str(data.get("phase"))] = data
            case "frozen":
                return self._frozen(event)
            case "finished":
                return self._finished(event)
            case "setup-failed" | "failed":
                raise LabError(
                    f"the guest could not build the scenario's stage: {data.get('message')}\n"
                    f"the last lines of its console:\n{self._vm.console_tail()}"
                )
        return None

    def _half(self, outcome: HalfOutcome, detail: str, **more: Any) -> Half:
        last = self._samples[-1] if self._samples else None
        values: dict[str, Any] = {
            "completed": last.completed if last else 0,
            "in_flight": last.in_flight if last else 0,
            "samples": tuple(self._samples),
            "console": bounded_console(self._vm.console_bytes()),
            **more,
        }
        return Half(self._io_flusher, outcome, detail, self._boot_s, self._vm.elapsed_s, **values)

    def _last_progress(self) -> float:
        """When the last request completed, seconds since the begin."""
        moved = 0.0
        for before, after in zip(self._samples, self._samples[1:], strict=False):
            if after.completed != before.completed:
                moved = after.time_s
        return moved

    def _frozen(self, event: Event) -> Half:
        threads = tuple(_thread(raw) for raw in event.data["threads"])
        witness = next((thread for thread in threads if thread.self_wait), None)
        if witness and witness.explanation:
            detail = f"The daemon waits for itself: {witness.explanation.sentence}."
        else:
            detail = "None of the daemon's threads was seen waiting for itself."
        waiting = tuple(
            (raw["comm"], explain_stack(parse_proc_stack(raw["stack"])).sentence)
            for raw in event.data["others"]
        )
        return self._half(
            HalfOutcome.FROZEN,
            detail,
            when_s=event.time_s - self._began - event.data["stalled_s"],
            completed=event.data["completed"],
            in_flight=event.data["in_flight"],
            threads=threads,
            waiting=waiting,
        )

    def _finished(self, event: Event) -> Half:
        data = event.data
        verified = self._work.get("verified", {})
        threads = tuple(_thread(raw) for raw in data["threads"])
        more = {
            "when_s": event.time_s - self._began,
            "completed": data["completed"],
            "in_flight": data["in_flight"],
            "threads": threads,
        }
        if data["oom_kills"]:
            return self._half(
                HalfOutcome.OUT_OF_MEMORY, f"The kernel killed {data['oom_kills']} process(es).", **more
            )
        if data["status"] or not verified:
            detail = f"The workload ended with status {data['status']} before it had read everything back."
            return self._half(HalfOutcome.LOST, detail, console_tail=self._vm.console_tail(), **more)
        wrong = int(verified["wrong_chunks"])
        detail = "All that was written came back." if not wrong else f"{wrong} chunks came back wrong."
        return self._half(
            HalfOutcome.FINISHED, detail, verified_bytes=int(verified["bytes"]), wrong_chunks=wrong, **more
        )

    def _ended(self) -> Half:
        tail = self._vm.console_tail(25)
        panicked = b"Kernel panic" in self._vm.console_bytes()
        detail = "The kernel panicked." if panicked else "The machine ended without a word on its outcome."
        return self._half(HalfOutcome.PANICKED if panicked else HalfOutcome.LOST, detail, console_tail=tail)

    def _silent(self, why: str) -> Half:
        """Nothing came any more: an NMI makes the kernel print every stack on the console."""
        self._vm.inject_nmi()
        until = time.monotonic() + NMI_DEADLINE_S
        while (left := until - time.monotonic()) > 0:
            if isinstance(self._vm.next_event(left), Ended):
                break
        tids = {raw["tid"]: raw for raw in self._begin_threads}
        threads = tuple(
            _thread({**tids[report.pid], "state": report.state or "?"}, report.frames)
            for report in task_reports(self._vm.console_bytes())
            if report.pid in tids
        )
        witness = next((thread for thread in threads if thread.self_wait), None)
        if why == "silence" and witness and witness.explanation:
            detail = f"Even the observer stopped; the panic's stacks show: {witness.explanation.sentence}."
            return self._half(HalfOutcome.FROZEN, detail, when_s=self._last_progress(), threads=threads)
        limit = f"{self._scenario.deadline_s:g} s" if why == "deadline" else f"{SILENCE_S:g} s of silence"
        return self._half(
            HalfOutcome.LOST,
            f"Neither done nor frozen after {limit}.",
            when_s=self._last_progress(),
            threads=threads,
            console_tail=self._vm.console_tail(25),
        )


def _thread(raw: dict[str, Any], frames: tuple[Any, ...] = ()) -> DaemonThread:
    """A thread from the guest's record, its stack explained where there is one."""
    frames = frames or parse_proc_stack(raw.get("stack", ""))
    return DaemonThread(
        tid=raw["tid"],
        comm=raw["comm"],
        state=raw["state"],
        flags=raw["flags"],
        io_flusher=raw["io_flusher"],
        explanation=explain_stack(frames) if frames else None,
        stack=raw.get("stack", ""),
    )
