"""From the stack of a scenario to the drivers, worker threads and daemons of the model. A stack is a row.

A stack is made in two parts: first its devices and what is dirty there, which the limits of dirty memory have
to know all of; then the programs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ioflusher.model.block import SWAP_IN, BioPool, BlockDriver, DiskDriver, Served
from ioflusher.model.daemon import ServingThread, Surroundings, add_daemon, add_event_thread
from ioflusher.model.faults import add_faults
from ioflusher.model.files import BufferedFile, File, awaited_requests, block_device_file, ext4_file
from ioflusher.model.fuse import FuseFile, FuseQueue, FuseWriteback
from ioflusher.model.iscsi import CMD_PER_LUN, IscsiDriver
from ioflusher.model.linux import Linux
from ioflusher.model.loop import LoopDriver
from ioflusher.model.multipath import MultipathDriver
from ioflusher.model.nbd import NbdDriver
from ioflusher.model.nfs import NfsMount
from ioflusher.model.scale import Scale
from ioflusher.model.tcmu import IN_FLIGHT, TcmuDriver
from ioflusher.model.transitions import Changes, Expression, Variable
from ioflusher.model.ublk import UblkDriver
from ioflusher.model.writeback import make_backing_device
from ioflusher.scenario.daemons import OUR_FUSE_DAEMON, DaemonRow, describe
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.faults import fault_events
from ioflusher.scenario.records import HardeningTable, Scenario, ThreadTable

# blk_mq_tag_set.queue_depth of drivers whose daemons do not say otherwise
QUEUE_DEPTH = 128


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What a stack is made from.

    Attributes:
        linux: the kernel. scenario: the scenario. io_flusher: whether it is the half with the state. scale:
        its size. pool: fs_bio_set. memory: what daemons hold. kinds: the requests that the device gets.
    """

    linux: Linux
    scenario: Scenario
    io_flusher: bool
    scale: Scale
    pool: BioPool
    memory: Variable
    kinds: tuple[str, ...]

    def depth(self, most: int = QUEUE_DEPTH) -> int:
        """Requests that the device takes at once."""
        return self.scale.queue_depth or self.scenario.device.queue_depth or most

    def store(self, row: DaemonRow) -> BufferedFile | None:
        """The file or the disk that a daemon stores into; None for a server outside."""
        kind = self.scenario.daemon.store
        if kind == "remote":
            return None
        linux = self.linux
        direct = SWAP_IN in self.kinds or any("store-direct" in thread.does for thread in row.threads)
        disk = DiskDriver(
            linux,
            "vda",
            request_ns=linux.unit_bytes * 10,
            queue_depth=self.scale.queue_depth or 256,
            kinds=("write", "direct") if direct else ("write",),
        )
        # what the flusher allocates matters where reclaim without __GFP_FS may wait, which it does for swap
        maps_blocks = kind == "file" and "swap" in self.kinds
        backing = make_backing_device(linux, disk, self.pool, maps_blocks=maps_blocks)
        awaited = awaited_requests(linux, disk, self.pool) if direct else None
        disk.add_server()
        return block_device_file(linux, backing, awaited) if kind == "disk" else ext4_file(backing, awaited)

    def serve(
        self, row: DaemonRow, served: Served, store: BufferedFile | None, *, which: str = "both"
    ) -> None:
        """Add the daemon's threads; `which` of two it is: "upper" or "lower"."""
        threads = serving_threads(self.scenario, row, self.io_flusher and _concerns(self.scenario, which))
        serving = [thread for thread in threads if thread.takes != "events"]
        add_daemon(self.linux, serving, self.around(served, store))

    def around(self, served: Served, store: BufferedFile | None = None) -> Surroundings:
        """What a daemon works with."""
        remote_ns = self.linux.unit_bytes * 150
        return Surroundings(served, store, self.memory, remote_ns, self.scenario.machine.cpus)

    def react(self, row: DaemonRow, served: Served, when: Expression, changes: Changes, what: str) -> None:
        """Add the daemon's threads that take events."""
        for thread in serving_threads(self.scenario, row, self.io_flusher):
            if thread.takes == "events":
                add_event_thread(self.linux, thread, self.around(served), when, changes, what)


@dataclass(frozen=True, slots=True)
class ModelledStack:
    """What was made of it.

    Attributes:
        device: what the scenario uses. start: adds the programs.
    """

    device: BlockDriver
    start: Callable[[], None]


def _concerns(scenario: Scenario, which: str) -> bool:
    """Whether hardening.daemon is about this daemon."""
    return scenario.hardening.daemon in ("both", which)


def serving_threads(scenario: Scenario, row: DaemonRow, io_flusher: bool) -> tuple[ServingThread, ...]:
    """A daemon's threads that take requests or events, each with the state where the scenario gives it.

    Raises:
        ScenarioError: hardening.state is "own", and no thread is said to set the state itself.
    """
    hardening = scenario.hardening
    if hardening.state == "own" and not any(thread.state == "own" for thread in row.threads):
        raise ScenarioError(
            f"{scenario.name}: hardening.state: expected a daemon of which a thread sets the state itself, "
            f"found {row.program or 'ours'!r}, none of whose threads does",
            hint='describe its threads, each as [[daemon.thread]], with state = "own"',
        )
    each = [thread for thread in row.threads for _ in range(thread.count)]
    found: list[ServingThread] = []
    for number, thread in enumerate(each):
        if thread.takes == "nothing":
            continue
        carries = io_flusher and _carries(hardening, thread, number, len(each))
        made = _serving(scenario, thread, carries)
        if found and found[-1].name == made.name and found[-1].io_flusher == made.io_flusher:
            found[-1] = _serving(scenario, thread, carries, found[-1].count + 1)
        else:
            found.append(made)
    return tuple(found)


def _carries(hardening: HardeningTable, thread: ThreadTable, number: int, count: int) -> bool:
    if thread.state == "never":
        return False
    match hardening.state:
        case "all":
            return True
        case "first-thread":
            return number == 0
        case "all-but-last":
            return number < count - 1
        case "own":
            return thread.state == "own"


def has_locked(hardening: HardeningTable, thread: ThreadTable) -> bool:
    """Whether a thread's memory is locked."""
    return hardening.lock_memory if thread.locked is None else thread.locked


def _serving(scenario: Scenario, thread: ThreadTable, carries: bool, count: int = 1) -> ServingThread:
    hardening, kernel = scenario.hardening, thread.state == "never"
    realtime = hardening.realtime if thread.realtime is None else thread.realtime
    outside = scenario.daemon.store == "remote"
    return ServingThread(
        thread.name,
        tuple(
            one
            for action in thread.does
            for one in (("send", "wait") if outside and action == "store" else (action,))
        ),
        thread.takes,
        carries,
        realtime=bool(realtime) and not kernel,
        locked=has_locked(hardening, thread) and not kernel,
        in_kernel=kernel,
        count=count,
    )


def _nbd(plan: StackPlan, *, tcp: bool = False) -> ModelledStack:
    row = describe(plan.scenario)
    device = NbdDriver(plan.linux, "nbd0", queue_depth=plan.depth(), kinds=plan.kinds, tcp=tcp)
    store = plan.store(row)
    return ModelledStack(device, lambda: plan.serve(row, device, store))


def _nbd_tcp(plan: StackPlan) -> ModelledStack:
    return _nbd(plan, tcp=True)


def _fuse(plan: StackPlan) -> ModelledStack:
    return _loop_on_fuse(plan, describe(plan.scenario), plan.kinds)


def _loop_on_fuse(
    plan: StackPlan, row: DaemonRow, kinds: tuple[str, ...], which: str = "both"
) -> ModelledStack:
    """loop0 over a file of a FUSE mount."""
    linux = plan.linux
    device = LoopDriver(linux, "loop0", queue_depth=plan.depth(), kinds=kinds)
    store = plan.store(row)
    served: Served
    file: File
    if row.writeback_cache:
        mount = served = FuseWriteback(linux, "fuse")
        backing = make_backing_device(linux, mount, plan.pool, strictlimit=True, temporary=mount.temporary)
        file = BufferedFile(backing, ("fuse_file_write_iter", "generic_perform_write"), ("fuse_write_begin",))
    else:
        asked = ("write", SWAP_IN) if SWAP_IN in kinds else ("write",)
        served = FuseQueue(linux, "fuse", queue_depth=device.queue_depth, kinds=asked)
        file = FuseFile(served)

    def start() -> None:
        device.add_worker(file)
        plan.serve(row, served, store, which=which)

    return ModelledStack(device, start)


def _stacked(plan: StackPlan) -> ModelledStack:
    """nbd0, whose server stores into loop0, the file of which our FUSE daemon serves."""
    upper = describe(plan.scenario)
    device = NbdDriver(plan.linux, "nbd0", queue_depth=plan.depth(), kinds=plan.kinds)
    below = _loop_on_fuse(plan, OUR_FUSE_DAEMON, ("write",), "lower")
    store = block_device_file(plan.linux, make_backing_device(plan.linux, below.device, plan.pool))

    def start() -> None:
        plan.serve(upper, device, store, which="upper")
        below.start()

    return ModelledStack(device, start)


def _ublk(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = UblkDriver(plan.linux, "ublkb0", queue_depth=plan.depth(), kinds=plan.kinds)
    store = plan.store(row)
    return ModelledStack(device, lambda: plan.serve(row, device, store))


def _tcmu(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = TcmuDriver(plan.linux, "sda", queue_depth=plan.depth(IN_FLIGHT), kinds=plan.kinds)
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store)

    return ModelledStack(device, start)


def _iscsid(plan: StackPlan) -> ModelledStack:
    """The initiator's own daemon, and a target outside or in the kernel; the connection may be cut."""
    row = describe(plan.scenario)
    device = IscsiDriver(plan.linux, "sda", queue_depth=plan.depth(CMD_PER_LUN), kinds=plan.kinds)
    store = plan.store(row)
    connected, reachable = device.connected, device.reachable

    def start() -> None:
        device.add_worker()
        if store is None:
            device.add_target_outside(plan.linux.unit_bytes * 150)
        else:
            plan.serve(row, device, store)
        lost = (connected.is_(0)) & (reachable > 0)
        plan.react(row, device, lost, {connected: 1}, "makes another connection")
        events = fault_events(plan.scenario.fault)
        if events:
            add_faults(plan.linux, events, {reachable: 0, connected: 0}, {reachable: 1})

    return ModelledStack(device, start)


def _multipath(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = MultipathDriver(
        plan.linux,
        "dm_0",
        queue_depth=plan.depth(),
        kinds=plan.kinds,
        paths=plan.scenario.device.paths or 2,
    )

    def start() -> None:
        device.add_disk(plan.linux.unit_bytes * 10)
        when, changes = device.reinstates
        plan.react(row, device, when, changes, "reinstates the paths")
        events = fault_events(plan.scenario.fault)
        if events:
            add_faults(plan.linux, events, {device.online: 0}, {device.online: 1})

    return ModelledStack(device, start)


def _nfs(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = NfsMount(plan.linux, "nfs")
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store)

    return ModelledStack(device, start)


def _iscsi(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = IscsiDriver(plan.linux, "sda", queue_depth=plan.depth(CMD_PER_LUN), kinds=plan.kinds)
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store)

    return ModelledStack(device, start)


STACKS: Mapping[str, Callable[[StackPlan], ModelledStack]] = MappingProxyType(
    {
        "nbd": _nbd,
        "nbd-tcp": _nbd_tcp,
        "nbd-device": _nbd,
        "fuse": _fuse,
        "stacked": _stacked,
        "ublk": _ublk,
        "tcmu": _tcmu,
        "iscsi": _iscsi,
        "iscsid": _iscsid,
        "multipath": _multipath,
        "nfs": _nfs,
    }
)
