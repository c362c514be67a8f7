"""What a daemon does for one request: system calls, allocations, locks, threads, faults.

It is played in a guest without pressure: requests go to the device one at a time, in rounds of a kind and a
size; what the daemon's threads do in rounds without requests is the base line, and subtracted by the time.
`DaemonProfile` is the record that `lab profile --json` prints; `work_profiles`, which is pure, has the sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ioflusher.lab.disks import guest_disks
from ioflusher.lab.errors import LabError, MachineLost
from ioflusher.lab.experiment import disks_for, guest_for
from ioflusher.lab.messages import (
    AgentFailed,
    GuestReport,
    PlayHalf,
    Profiled,
    ProfileDaemon,
    ProfileRound,
    StageFailed,
)
from ioflusher.lab.remote import remote_store
from ioflusher.lab.session import Lab, await_agent
from ioflusher.lab.vm import Ended
from ioflusher.scenario.records import HardeningTable, KernelTable, PressureTable, Scenario

SILENCE_S = 120.0
SIZES = (4096, 65536)  # bytes of a request
IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Spread:
    """A number for each request, over the rounds: mean, lowest and highest."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SyscallProfile:
    """A system call, for each request.

    Attributes:
        name: "outside system calls" has what was allocated in page faults.
        calls: how often it is called.
        allocating: in how many of the calls the kernel allocated at least once.
        objects, object_bytes: kmalloc() and kmem_cache_alloc() in it, and their bytes.
        pages: pages from the page allocator, which slabs take too when they grow.
    """

    name: str
    calls: Spread
    allocating: Spread
    objects: Spread
    object_bytes: Spread
    pages: Spread


@dataclass(frozen=True, slots=True)
class GfpProfile:
    """Allocations of one kind with the same flags, for each request.

    Attributes:
        event: "kmalloc", "kmem_cache_alloc" or "mm_page_alloc".
        flags: as the kernel prints them. Those of mm_page_alloc are what the allocator went by, the thread's
            state included; the others are what the caller asked for.
        count: allocations.
        size: bytes.
    """

    event: str
    flags: str
    count: Spread
    size: Spread


@dataclass(frozen=True, slots=True)
class WorkProfile:
    """What the daemon does for one request of a kind.

    Attributes:
        work: "read" or "write"; of a trace "flush", "discard" or "other", too.
        size: bytes of a request; of a trace the mean of those that do not exceed the same power of two.
        rounds: how many were played; `requests`: that the device completed in all of them.
        latency_s: of a request, as who waits for it sees it, emulation included; None where a trace does
            not show requests.
        syscalls: the most frequent first.
        gfp: the most bytes first.
        faults: page faults in user space.
        futex_waits: calls of futex() that wait for a lock or a condition; `futex_wait_s` how long.
        threads: of the daemon that did anything in a round, a number and not one for each request.
        lost: whether events were lost, so that the numbers are too small.
    """

    work: str
    size: int
    rounds: int
    requests: int
    latency_s: Spread | None
    syscalls: tuple[SyscallProfile, ...]
    gfp: tuple[GfpProfile, ...]
    faults: Spread
    futex_waits: Spread
    futex_wait_s: Spread
    threads: Spread
    lost: bool


@dataclass(frozen=True, slots=True)
class DaemonProfile:
    """A daemon's profile.

    Attributes:
        served: who serves what, a sentence.
        kind: the stack; empty for a trace.
        command: the daemon's; empty for ours; of a trace the name of its busiest thread.
        kernel, accelerator: of the guest; None where a trace does not tell.
        io_flusher: whether the daemon carried the state; None for a trace.
        device: in the guest; of a trace its numbers, or empty.
        threads: that the daemon had in the end; of a trace those that it shows.
        missing: events that the kernel, or the trace, lacks, so that what they would show is 0.
        works: by size, writes first.
        left_out: what of a trace is in no number, in words.
    """

    served: str
    kind: str
    command: tuple[str, ...]
    kernel: str | None
    accelerator: str | None
    io_flusher: bool | None
    device: str
    threads: int
    missing: tuple[str, ...]
    works: tuple[WorkProfile, ...]
    left_out: tuple[str, ...] = ()

    @property
    def recorded(self) -> bool:
        """Whether it is of a trace that somebody recorded, and not of a guest."""
        return self.accelerator is None


def without_pressure(scenario: Scenario) -> Scenario:
    """The scenario's machine and daemon, and nothing that presses on it, limits it or breaks it."""
    return replace(
        scenario,
        kernel=KernelTable(),
        pressure=PressureTable(),
        cgroup=None,
        fault=(),
        hardening=HardeningTable(),
    )


def profile_daemon(
    lab: Lab,
    scenario: Scenario,
    *,
    io_flusher: bool,
    requests: int,
    rounds: int,
    sizes: Sequence[int] = SIZES,
    accelerator: str,
    on_report: Callable[[GuestReport], None],
) -> DaemonProfile:
    """Boot a guest, have its daemon profiled, and sum up.

    Raises:
        LabError: the daemon did not come up, or the guest was lost.
    """
    quiet = without_pressure(scenario)
    with remote_store(quiet) as remote, guest_disks(disks_for(quiet)) as disks:
        order = ProfileDaemon(PlayHalf(quiet, io_flusher, remote.uri), requests, rounds, tuple(sizes))
        with lab.boot(guest_for(quiet, disks), order) as vm:
            await_agent(vm)
            played: list[ProfileRound] = []
            while True:
                report = vm.next_report(SILENCE_S)
                match report:
                    case None:
                        raise MachineLost(
                            f"the guest said nothing for {SILENCE_S:g} s", console=vm.console_tail()
                        )
                    case Ended():
                        raise MachineLost(vm.last_words("the profile was whole"), console=vm.console_tail())
                    case AgentFailed():
                        raise MachineLost(f"the guest's agent failed:\n{report.traceback}")
                    case StageFailed():
                        raise LabError(
                            f"the daemon did not come up: {report.message}\n"
                            f"the last lines of the guest's console:\n{vm.console_tail()}"
                        )
                    case ProfileRound():
                        played.append(report)
                    case Profiled():
                        break
                on_report(report)
    return DaemonProfile(
        served=scenario.served,
        kind=scenario.device.kind,
        command=scenario.daemon.command,
        kernel=lab.kernel.release,
        accelerator=accelerator,
        io_flusher=io_flusher,
        device=report.device,
        threads=report.threads,
        missing=report.missing,
        works=work_profiles(played),
    )


def work_profiles(played: Sequence[ProfileRound]) -> tuple[WorkProfile, ...]:
    """The rounds of each kind and size summed up, for one request, without the base line."""
    idle = [one for one in played if one.work == IDLE]
    kinds = dict.fromkeys((one.work, one.size) for one in played if one.work != IDLE)
    return tuple(
        _work_profile([one for one in played if (one.work, one.size) == kind], idle) for kind in kinds
    )


def _work_profile(rounds: list[ProfileRound], idle: list[ProfileRound]) -> WorkProfile:
    def spread(amount: Callable[[ProfileRound], float]) -> Spread:
        return _per_request(rounds, idle, amount)

    names = {use.name for one in rounds for use in one.syscalls}
    kinds = {(use.event, use.flags) for one in rounds for use in one.gfp}
    syscalls = [
        SyscallProfile(
            name,
            *(
                spread(lambda one, name=name, field=field: _syscall(one, name, field))  # type: ignore[misc]
                for field in ("calls", "allocating", "objects", "object_bytes", "pages")
            ),
        )
        for name in names
    ]
    gfp = [
        GfpProfile(
            *kind,
            *(
                spread(lambda one, kind=kind, field=field: _gfp(one, kind, field))  # type: ignore[misc]
                for field in ("count", "size")
            ),
        )
        for kind in kinds
    ]
    threads = [one.threads for one in rounds]
    latencies = [one.duration_s / one.requests for one in rounds if one.requests and one.duration_s]
    return WorkProfile(
        work=rounds[0].work,
        size=rounds[0].size,
        rounds=len(rounds),
        requests=sum(one.requests for one in rounds),
        latency_s=_spread(latencies) if latencies else None,
        syscalls=tuple(sorted(syscalls, key=lambda one: (-one.calls.mean, one.name))),
        gfp=tuple(sorted(gfp, key=lambda one: (-one.size.mean, one.event, one.flags))),
        faults=spread(lambda one: one.faults),
        futex_waits=spread(lambda one: one.futex_waits),
        futex_wait_s=spread(lambda one: one.futex_wait_s),
        threads=_spread([float(number) for number in threads]),
        lost=any(one.lost for one in rounds),
    )


def _syscall(one: ProfileRound, name: str, field: str) -> float:
    return float(sum(getattr(use, field) for use in one.syscalls if use.name == name))


def _gfp(one: ProfileRound, kind: tuple[str, str], field: str) -> float:
    return float(sum(getattr(use, field) for use in one.gfp if (use.event, use.flags) == kind))


def _per_request(
    rounds: list[ProfileRound], idle: list[ProfileRound], amount: Callable[[ProfileRound], float]
) -> Spread:
    """An amount for each request; what an idle daemon does in the same time is none of a request's."""
    idle_s = sum(one.watched_s for one in idle)
    rate = sum(amount(one) for one in idle) / idle_s if idle_s else 0.0
    return _spread(
        [max(0.0, amount(one) - rate * one.watched_s) / one.requests for one in rounds if one.requests]
    )


def _spread(values: list[float]) -> Spread:
    return Spread(sum(values) / len(values), min(values), max(values)) if values else Spread(0.0, 0.0, 0.0)
