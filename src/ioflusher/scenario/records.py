"""Scenarios: what machine, whose device, which pressure, and what counts as frozen.

These types are the keys of a scenario file (docs/lab.md); `ioflusher.scenario.file` reads one. A guest
gets its scenario as this record.
"""

import re
import typing
from dataclasses import dataclass, field
from typing import Annotated

from ioflusher.scenario.stacks import STACKS
from ioflusher.support.toml import Form, Size, whole_number


def _setting(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(value)
    return str(value)


def _series(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(\d+\.\d+\S*|newest)?", value):
        raise ValueError(value)
    return value


def _version(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(\d+\.\d+)?", value):
        raise ValueError(value)
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 86400:
        raise ValueError(value)
    return float(value)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


Seconds = Annotated[float, Form("a number of seconds, 0 or more", _seconds)]
# a series of kernels
Kernel = Annotated[str, Form('a series such as "5.8", or "newest"', _series)]
# a version of the kernel, its first two numbers
Version = Annotated[str, Form('a version in quotes such as "5.9"', _version)]
# what may become of a half
Outcome = typing.Literal["frozen", "finished", "out of memory"]
# the content of a kernel setting
Setting = Annotated[str, Form("a string or a whole number", _setting)]


@dataclass(frozen=True, slots=True)
class MachineTable:
    """The virtual machine.

    Attributes:
        memory: bytes.
        cpus: processors.
        modules: kernel modules, with options, loaded before its root is.
        kernel: the series that the scenario needs, such as "5.8"; empty for any. `--kernel` overrides it.
        network: QEMU's user network, for a daemon that stores elsewhere; a "remote" store has it anyway.
    """

    memory: Size
    cpus: int = 1
    modules: tuple[str, ...] = ()
    kernel: Kernel = ""
    network: bool = False


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Kernel settings: `sysctl` by dotted name, `write` a file of /proc or /sys each with its new content."""

    sysctl: dict[str, Setting] = field(default_factory=dict)
    write: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """The block device that the daemon serves.

    Attributes:
        size: bytes.
        use: what lies on it; the stack's row says what it may be.
        kind: the stack between the device and its daemon, a row of `ioflusher.scenario.stacks.STACKS`.
        queue_depth: requests that the device takes at once; None as the driver has it.
        paths: how many paths lead to it, for "multipath"; None for two.
        mkfs: options for mkfs, besides those that make it quick and suit the kernel.
    """

    size: Size
    use: typing.Literal["swap", "ext4", "xfs", "btrfs", "nfs"]
    kind: str = "nbd"
    queue_depth: Annotated[int, whole_number(1, 10_000, "number of requests at once")] | None = None
    paths: Annotated[int, whole_number(2, 16, "number of paths")] | None = None
    mkfs: tuple[str, ...] = ()


# what a thread of a daemon does for a request
Action = typing.Literal["allocate", "store", "store-direct", "send", "wait", "lock", "unlock"]


@dataclass(frozen=True, slots=True)
class ThreadTable:
    """A thread of the daemon, or several that are alike, as the model has it; a guest has the daemon itself.

    Attributes:
        name: its name in the kernel (comm).
        does: its actions for a request, in order, between receiving it and replying. "allocate": memory of
            its own, held until the reply; "store": a buffered write to the store, over TCP to the server
            outside and back where that is the store; "store-direct": a write with O_DIRECT; "send": bytes
            into a socket; "wait": until the server outside has answered; "lock", "unlock": the daemon's
            mutex.
        takes: "requests" of the device; "events", such as a lost connection or a path that is back;
            "nothing"; or the name of a thread above, which then hands its requests on and does not reply.
        count: how many there are.
        state: "inherited": as `hardening.state` says; "own": it sets the state itself, which is what
            `hardening.state` "own" is about; "never": a thread of the kernel.
        locked: whether its memory is there beforehand, so that "allocate" takes none; None as
            `hardening.lock_memory` says.
        realtime: SCHED_FIFO priority; None as `hardening.realtime` says.
    """

    name: str
    does: tuple[Action, ...] = ()
    takes: str = "requests"
    count: Annotated[int, whole_number(1, 256, "number of threads that are alike")] = 1
    state: typing.Literal["inherited", "own", "never"] = "inherited"
    locked: bool | None = None
    realtime: Annotated[int, whole_number(0, 99, "SCHED_FIFO priority")] | None = None


# where a daemon keeps what is written to its device
Store = typing.Literal["remote", "file", "disk", "own"]


@dataclass(frozen=True, slots=True)
class DaemonTable:
    """The user-space daemon.

    Attributes:
        store: "remote": forward every request to a server outside the machine;
            "file": buffered writes into a file on another disk of the machine;
            "disk": buffered writes to that other disk itself, without a file system between;
            "own": what `command` has itself; an empty file system on another disk is at /store for it.
        command: another daemon than ours, in the foreground, with the placeholders of its stack; for nbd
            {socket}, the Unix socket to listen on, and {file} or {remote} (an NBD URI), its store. The state
            is set just before it is executed.
        setup: commands that tell that other daemon what to serve, run one after the other once it is started,
            each until it succeeds; with the same placeholders, each of which may be in any of the commands.
        thread: what its threads do, for the model; empty: as `ioflusher.scenario.daemons` has it.
    """

    store: Store
    command: tuple[str, ...] = ()
    setup: tuple[tuple[str, ...], ...] = ()
    thread: tuple[ThreadTable, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadTable:
    """What uses the device; in the end all that it wrote is read back and compared.

    Attributes:
        kind: "anonymous": touch memory that must be swapped out; "files": write files, then sync;
            "small-files": the same, a directory for each `per_directory` of them, each written in one go.
        size: bytes in all.
        file_size: bytes of one file.
        per_directory: small files in one directory.
        chunk: bytes between two pauses.
        pause_ms: length of a pause.
        passes: how many times all of it is written, each time with other content.
    """

    kind: typing.Literal["anonymous", "files", "small-files"]
    size: Size
    file_size: Size = 32 << 20
    per_directory: Annotated[int, whole_number(1, 1_000_000, "number of files in one directory")] = 1000
    chunk: Size = 1 << 20
    pause_ms: Annotated[int, whole_number(0, 60_000, "milliseconds of a pause")] = 0
    passes: Annotated[int, whole_number(1, 1000, "number of times that all is written")] = 1


@dataclass(frozen=True, slots=True)
class PressureTable:
    """What else needs memory meanwhile.

    Attributes:
        kind: "none"; "reader": read another disk over and over, which fills memory with clean page cache;
            "anonymous": touch memory over and over, while the workload writes.
        size: bytes of that disk or memory.
    """

    kind: typing.Literal["none", "reader", "anonymous"] = "none"
    size: Size = 0


@dataclass(frozen=True, slots=True)
class HardeningTable:
    """What the daemon has besides the state, in both halves alike, put upon it from outside once it serves.

    Attributes:
        state: which of its threads carry the state in the half with it: "all", from its first line on;
            "first-thread", that one alone; "all-but-last", all but the one that was started last;
            "own", those for which a `daemon.command` sets it itself.
        daemon: where two stand on each other, the one that `state` is about: "both", the "upper", which
            serves the device, or the "lower", on which it stores; the other one never carries it.
        lock_memory: mlockall(), in the way that `ioflusher set --lock-memory` finds safe.
        reserve: bytes that reclaim leaves to all that the stack starts: memory.min of a control group.
        realtime: SCHED_FIFO priority, 0 for ordinary scheduling.
        oom_score_adj: None to leave it.
        min_free_kbytes: vm.min_free_kbytes, in place of what kernel.sysctl may say; None to leave it.
    """

    state: typing.Literal["all", "first-thread", "all-but-last", "own"] = "all"
    daemon: typing.Literal["both", "upper", "lower"] = "both"
    lock_memory: bool = False
    reserve: Size = 0
    realtime: Annotated[int, whole_number(0, 49, "SCHED_FIFO priority, below the observer's")] = 0
    oom_score_adj: Annotated[int, whole_number(-1000, 1000, "OOM score adjustment")] | None = None
    min_free_kbytes: Annotated[int, whole_number(0, 1 << 30, "value of vm.min_free_kbytes")] | None = None


@dataclass(frozen=True, slots=True)
class CgroupTable:
    """A memory control group for some of the processes, from their start on; in bytes, None for no limit.

    Attributes:
        who: "workload": the program that uses the device; "daemon": all that the stack starts; or both.
        version: 1 or 2 of the hierarchy; the kernel must have it.
        memory_max, memory_high, memory_min: memory.max, memory.high and memory.min of version 2; version 1
            knows the first alone, as memory.limit_in_bytes.
        swap_max: memory.swap.max; in version 1, by how much memory.memsw.limit_in_bytes is above memory_max.
    """

    who: typing.Literal["workload", "daemon", "both"]
    version: typing.Literal[1, 2] = 2
    memory_max: Size | None = None
    memory_high: Size | None = None
    memory_min: Size | None = None
    swap_max: Size | None = None


@dataclass(frozen=True, slots=True)
class FaultTable:
    """What goes wrong meanwhile, in both halves alike.

    Attributes:
        kind: a row of `ioflusher.scenario.faults.FAULTS`.
        at_s: seconds from the workload's begin to the fault's.
        for_s: how long it lasts; 0: it is not ended.
        times: how many times it comes.
        every_s: seconds from one time to the next.
        delay_ms: by how much each request is delayed, for "remote-slow".
    """

    kind: str
    at_s: Seconds
    for_s: Seconds = 0.0
    times: Annotated[int, whole_number(1, 1000, "number of times that it comes")] = 1
    every_s: Seconds = 0.0
    delay_ms: Annotated[int, whole_number(0, 600_000, "delay of each request")] = 0


@dataclass(frozen=True, slots=True)
class FrozenTable:
    """What counts as frozen: requests in flight, none completed for so many seconds."""

    stalled_s: float = 15.0


@dataclass(frozen=True, slots=True)
class ExpectedTable:
    """What is expected of some kernels; of all others, that the half without the state freezes.

    Attributes:
        since: the first version of the kernel that it is said of.
        why: a sentence with the change of the kernel that is the reason.
        before: the first version that it is no longer said of; empty: of every later one.
        without_state, with_state: what becomes of the halves: "frozen" in the daemon's own wait, "finished"
            with everything read back as it was written.
    """

    since: Version
    why: str
    before: Version = ""
    without_state: Outcome = "frozen"
    with_state: Outcome = "finished"

    def is_about(self, version: tuple[int, int]) -> bool:
        """Whether it is said of this version of the kernel."""
        return _numbers(self.since) <= version < _numbers(self.before or "999.0")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One experiment's whole description.

    Attributes:
        name: a word for the command line.
        title: one line for people.
        served: what is served by whom, a sentence.
        pressed: what pressure is put on it, a sentence.
        deadline_s: seconds from power-on to the end of one half; a half that is neither done nor frozen
            by then is lost.
    """

    name: str
    title: str
    served: str
    pressed: str
    machine: MachineTable
    device: DeviceTable
    daemon: DaemonTable
    workload: WorkloadTable
    kernel: KernelTable = KernelTable()
    pressure: PressureTable = PressureTable()
    hardening: HardeningTable = HardeningTable()
    cgroup: CgroupTable | None = None
    fault: tuple[FaultTable, ...] = ()
    frozen: FrozenTable = FrozenTable()
    expected: tuple[ExpectedTable, ...] = ()
    deadline_s: float = 90.0

    @property
    def modules(self) -> tuple[str, ...]:
        """Kernel modules, with options: its own, and those of stack and network that it does not name."""
        own = self.machine.modules
        named = {module.partition(" ")[0] for module in own}
        needed = (*STACKS[self.device.kind].modules, *(("virtio_net",) if self.machine.network else ()))
        return (*own, *(module for module in needed if module.partition(" ")[0] not in named))

    def expected_of(self, version: tuple[int, int]) -> ExpectedTable | None:
        """What its last table says of a version of the kernel; None for what the state promises."""
        return next((table for table in reversed(self.expected) if table.is_about(version)), None)
