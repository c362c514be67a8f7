"""What this machine and a guest say to each other, all of it: typed records, one JSON object a line.

To the guest goes one order, a file in its first file system: run a command, play one half of a scenario, or
open a shell on its stage.
From the guest come reports over a virtio-serial port of their own; the console is for people and for the
kernel's last words, and no verdict hangs on it. Inside the guest, the programs that use the device say their
reports on standard output, and the observer checks and passes them on.

Every record is a tagged struct: the tag stands under "event" in a report and under "order" in an order. Both
ends come from one source tree, so a record that one of them does not know is an error, not another version.
"""

from collections.abc import Iterator

import msgspec

from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.near_misses import NearMisses
from ioflusher.scenario.records import Scenario

EVENTS_PORT = "org.ioflusher.events"
STDIN_PORT = "org.ioflusher.stdin"
STDOUT_PORT = "org.ioflusher.stdout"
STDERR_PORT = "org.ioflusher.stderr"
RESIZE_PORT = "org.ioflusher.resize"
ORDER_FILE = "order.json"  # in /run/lab of the guest
# names of the disks that a scenario's guest has beside its root
STORE_DISK = "store"  # the daemon's store lies on it
READER_DISK = "reader"  # the pressure's reader reads it
LONGEST_LINE_BYTES = 4 << 20


class Order(msgspec.Struct, frozen=True, tag_field="order"):
    """What a guest is started for."""


class RunCommand(Order, frozen=True, tag="run-command"):
    """Run a command as root with all capabilities.

    Attributes:
        argv: the command and its words.
        cwd: where it starts, if the guest has that directory.
        environment: its environment.
    """

    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]


class PlayHalf(Order, frozen=True, tag="play-half"):
    """Play one half of an experiment.

    Attributes:
        scenario: what is played.
        io_flusher: whether the daemon carries the state. The one thing in which the two halves differ.
        remote: NBD URI of the server outside, as the guest reaches it; empty where there is none.
    """

    scenario: Scenario
    io_flusher: bool
    remote: str


class WindowSize(msgspec.Struct, frozen=True):
    """The size of a terminal in characters; on `RESIZE_PORT` a line each time that it changes."""

    rows: int
    columns: int


class OpenShell(Order, frozen=True, tag="open-shell"):
    """Build the stage of one half, and run a shell on it.

    Attributes:
        half: whose stage.
        freeze: whether the workload runs beside the shell, which is protected like the observer then.
        cwd, environment: as in `RunCommand`.
        window: the size of the terminal on which somebody types; None where the shell reads a script.
    """

    half: PlayHalf
    freeze: bool
    cwd: str
    environment: dict[str, str]
    window: WindowSize | None


class ProfileDaemon(Order, frozen=True, tag="profile-daemon"):
    """Start the daemon of one half, send its device requests, and count what it does for them.

    Attributes:
        half: whose daemon.
        requests: of one round.
        rounds: of each kind.
        sizes: bytes of a request, each a kind.
    """

    half: PlayHalf
    requests: int
    rounds: int
    sizes: tuple[int, ...]


class SyscallUse(msgspec.Struct, frozen=True):
    """What a daemon's threads did in one system call, or outside of all.

    Attributes:
        name: of the call, or "outside system calls".
        calls: how often it was called.
        allocating: in how many of them the kernel allocated.
        objects, object_bytes: allocations of kmalloc() and kmem_cache_alloc(), and their bytes.
        pages: pages from the page allocator.
    """

    name: str
    calls: int
    allocating: int
    objects: int
    object_bytes: int
    pages: int


class GfpUse(msgspec.Struct, frozen=True):
    """Allocations with the same flags: the event that tells them, how many, and bytes in all."""

    event: str
    flags: str
    count: int
    size: int


class ThreadReport(msgspec.Struct, frozen=True):
    """A thread of the daemon, or another task of the guest.

    Attributes:
        pid: its process's number in the guest.
        tid: its own.
        comm: its name; bytes that are no UTF-8 stand as \\xNN.
        state: letter of its run state.
        flags: its PF_* bits (task->flags).
        stack: the text of /proc/PID/task/TID/stack; empty where it was not asked for.
    """

    pid: int
    tid: int
    comm: str
    state: str
    flags: int
    stack: str = ""


class TimedReport(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    """Something that the guest says.

    Attributes:
        time_s: seconds since the guest's kernel started, by CLOCK_MONOTONIC in the guest.
    """

    time_s: float = 0.0


class Booted(TimedReport, frozen=True, tag="booted"):
    """The init script: the root is mounted."""


class Hello(TimedReport, frozen=True, tag="hello"):
    """The agent runs; `release` is the kernel's."""

    release: str


class CommandStarted(TimedReport, frozen=True, tag="command-started"):
    """The command of `RunCommand` was executed."""


class CommandEnded(TimedReport, frozen=True, tag="command-ended"):
    """The command is done.

    Attributes:
        status: its exit status; 128 and the signal's number if one ended it; 126 or 127 if it did not start.
        message: why it did not start, else empty.
    """

    status: int
    message: str = ""


class ShellReady(TimedReport, frozen=True, tag="shell-ready"):
    """The shell of `OpenShell` runs: the stage's device, and the processes that serve it."""

    device: str
    daemons: tuple[int, ...]


class SettingUp(TimedReport, frozen=True, tag="setting-up"):
    """What the agent does before the workload begins, for people."""

    step: str


class StageFailed(TimedReport, frozen=True, tag="stage-failed"):
    """The stage could not be built; `message` says which step and what it printed."""

    message: str


class AgentFailed(TimedReport, frozen=True, tag="agent-failed"):
    """The agent itself failed; `traceback` is Python's."""

    traceback: str


class WorkBegan(TimedReport, frozen=True, tag="work-began"):
    """The stage stands and the workload begins.

    Attributes:
        threads: the daemon's, without stacks.
        memory_kib: lines of /proc/meminfo.
        device: the block device that the daemon serves; empty in what an earlier version recorded.
        completed_before: requests that it had completed by then; None as above.
    """

    threads: tuple[ThreadReport, ...]
    memory_kib: dict[str, int]
    device: str = ""
    completed_before: int | None = None


class Sampled(TimedReport, frozen=True, tag="sampled"):
    """One look at device and memory while the workload runs.

    Attributes:
        completed: requests that the device has completed since the workload began.
        in_flight: requests that it has taken and not completed.
        memory_kib: lines of /proc/meminfo.
        near_misses: how near the daemon came; None in what an earlier version recorded.
    """

    completed: int
    in_flight: int
    memory_kib: dict[str, int]
    near_misses: NearMisses | None = None


class Hardened(TimedReport, frozen=True, tag="hardened"):
    """What the daemons were given besides the state; `done` is for people."""

    done: tuple[str, ...]


class FaultBegan(TimedReport, frozen=True, tag="fault-began"):
    """A fault of the scenario begins, or should have.

    Attributes:
        fault: the number of its table in the scenario, from 0.
        kind: what it is.
        failed: why it could not be brought about; empty where it was.
    """

    fault: int
    kind: str
    failed: str = ""


class FaultEnded(TimedReport, frozen=True, tag="fault-ended"):
    """It is over; the fields are those of `FaultBegan`."""

    fault: int
    kind: str
    failed: str = ""


class WorkReady(TimedReport, frozen=True, tag="work-ready"):
    """A program of the workload has its memory and code; it begins when it reads a line."""


class WorkWritten(TimedReport, frozen=True, tag="work-written"):
    """The workload has written all of its bytes."""

    written_bytes: int


class FileSystemChecked(TimedReport, frozen=True, tag="file-system-checked"):
    """The workload has unmounted its file system, had it looked through, and mounted it again."""

    check: FileSystemCheck


class WorkVerified(TimedReport, frozen=True, tag="work-verified"):
    """The workload has read everything back; `wrong_chunks` were not as they were written."""

    verified_bytes: int
    wrong_chunks: int


class DeviceFrozen(TimedReport, frozen=True, tag="device-frozen"):
    """Requests are in flight and none has completed for as long as the scenario says.

    Attributes:
        stalled_s: seconds since the last one completed.
        completed, in_flight: as in `Sampled`.
        threads: the daemon's, with their kernel stacks.
        waiting: every other task in uninterruptible sleep, with its stack.
        memory_kib, vm_counters: lines of /proc/meminfo and /proc/vmstat.
        near_misses: how near the daemon came; None in what an earlier version recorded.
        ended: which of the processes that the stack had started ended meanwhile, how, and what each printed
            last; a sentence for each.
    """

    stalled_s: float
    completed: int
    in_flight: int
    threads: tuple[ThreadReport, ...]
    waiting: tuple[ThreadReport, ...]
    memory_kib: dict[str, int]
    vm_counters: dict[str, int]
    near_misses: NearMisses | None = None
    ended: tuple[str, ...] = ()


class WorkEnded(TimedReport, frozen=True, tag="work-ended"):
    """The workload is over.

    Attributes:
        status: exit status of its program, 0 also where it had verified everything.
        completed, in_flight: as in `Sampled`.
        oom_kills: processes that the kernel killed for want of memory since the workload began.
        threads: the daemon's, without stacks.
        memory_kib, vm_counters: lines of /proc/meminfo and /proc/vmstat.
        near_misses: how near the daemon came; None in what an earlier version recorded.
        ended: which of the processes that the stack had started ended meanwhile, how, and what each printed
            last; a sentence for each.
    """

    status: int
    completed: int
    in_flight: int
    oom_kills: int
    threads: tuple[ThreadReport, ...]
    memory_kib: dict[str, int]
    vm_counters: dict[str, int]
    near_misses: NearMisses | None = None
    ended: tuple[str, ...] = ()


class ProfileRound(TimedReport, frozen=True, tag="profile-round"):
    """What a daemon did in one round of `ProfileDaemon`.

    Attributes:
        work: "read", "write" or "idle".
        size: bytes of a request, 0 for none.
        requests: that the device completed.
        duration_s: of the requests, one after another; 0 where that is not known.
        watched_s: in which events were counted.
        lost: whether events were lost.
        syscalls, gfp: what was counted.
        faults: page faults in user space.
        futex_waits: calls of futex() that wait, and `futex_wait_s` how long those took that ended.
        threads: that did anything.
    """

    work: str
    size: int
    requests: int
    duration_s: float
    watched_s: float
    lost: bool
    syscalls: tuple[SyscallUse, ...]
    gfp: tuple[GfpUse, ...]
    faults: int
    futex_waits: int
    futex_wait_s: float
    threads: int


class Profiled(TimedReport, frozen=True, tag="profiled"):
    """The profile is whole: the device, the daemon's threads, and events that the kernel lacks."""

    device: str
    threads: int
    missing: tuple[str, ...]


class Garbled(TimedReport, frozen=True, tag="garbled"):
    """A line that is no report; `text` is its beginning. Made by whoever reads, never sent."""

    text: str


GuestReport = (
    Booted
    | Hello
    | CommandStarted
    | CommandEnded
    | ShellReady
    | ProfileRound
    | Profiled
    | SettingUp
    | StageFailed
    | AgentFailed
    | WorkBegan
    | Sampled
    | Hardened
    | FaultBegan
    | FaultEnded
    | WorkReady
    | WorkWritten
    | FileSystemChecked
    | WorkVerified
    | DeviceFrozen
    | WorkEnded
    | Garbled
)

_ENCODER = msgspec.json.Encoder()
_REPORTS: msgspec.json.Decoder[GuestReport] = msgspec.json.Decoder(GuestReport)
AnyOrder = RunCommand | PlayHalf | OpenShell | ProfileDaemon
_ORDERS: msgspec.json.Decoder[AnyOrder] = msgspec.json.Decoder(AnyOrder)


def encode_order(order: Order) -> bytes:
    """The order as the file that the guest's agent reads."""
    return _ENCODER.encode(order)


def decode_order(data: bytes) -> AnyOrder:
    """The order in the file; raises msgspec.ValidationError where it is none."""
    return _ORDERS.decode(data)


def encode_report(report: TimedReport) -> bytes:
    """The report as one line."""
    return _ENCODER.encode(report) + b"\n"


def decode_report(line: bytes) -> GuestReport:
    """The report in a line; a line that is none becomes `Garbled`."""
    try:
        return _REPORTS.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Garbled(text=line[:200].decode("utf-8", "backslashreplace"))


class ReportReader:
    """Bytes of a port to reports, however they are cut, without I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[GuestReport]:
        """Reports that are complete with these bytes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            yield decode_report(line)
        if len(self._buffer) > LONGEST_LINE_BYTES:
            self._buffer.clear()
            yield Garbled(text=f"a line of more than {LONGEST_LINE_BYTES} bytes")
