"""From the stack of a scenario to the drivers, worker threads and daemons of the model. A stack is a row.

A stack is made in two parts: first its devices and what is dirty there, which the limits of dirty memory have
to know all of; then the programs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ioflusher.model.block import SWAP_IN, BioPool, BlockDriver, DiskDriver, Served
from ioflusher.model.code import Code
from ioflusher.model.daemon import (
    ServingThread,
    Surroundings,
    add_daemon,
    add_event_thread,
    add_link_thread,
)
from ioflusher.model.faults import (
    Effect,
    Outside,
    Signals,
    add_faults,
    outside_effects,
    outside_of,
    signal_effects,
    signals_of,
)
from ioflusher.model.files import BufferedFile, File, awaited_requests, block_device_file, ext4_file
from ioflusher.model.fuse import FuseFile, FuseQueue, FuseWriteback
from ioflusher.model.iscsi import CMD_PER_LUN, IscsiDriver
from ioflusher.model.linux import Linux
from ioflusher.model.loop import LoopDriver
from ioflusher.model.multipath import MultipathDriver
from ioflusher.model.nbd import EndingNbdDriver, NbdDriver, ReconnectedNbdDriver
from ioflusher.model.nfs import NfsMount
from ioflusher.model.scale import Scale
from ioflusher.model.tcmu import IN_FLIGHT, TcmuDriver
from ioflusher.model.transitions import Changes, Expression, Variable
from ioflusher.model.ublk import UblkDriver
from ioflusher.model.writeback import make_backing_device
from ioflusher.scenario.daemons import OUR_FUSE_DAEMON, DaemonRow, describe
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.faults import NBD_REQUEST_TIMEOUT_S
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

    def has_fault(self, *kinds: str) -> bool:
        """Whether the scenario has a fault of one of these kinds."""
        return any(fault.kind in kinds for fault in self.scenario.fault)

    def goes_wrong(self, row: DaemonRow, *, files: Changes | None = None, more: int = 0) -> "Trouble":
        """What the scenario does to a daemon and to the server outside.

        Args:
            row: the daemon.
            files: what changes when the daemon's files are closed.
            more: threads that it has beside those that serve.
        """
        threads = serving_threads(self.scenario, row, self.io_flusher)
        count = more + sum(thread.count for thread in threads if not thread.in_kernel)
        outside = outside_of(self.linux, self.scenario.fault)
        # the process that the signal is sent to is the first one
        faults = () if row.forks else self.scenario.fault
        count += outside.linked is not None
        return Trouble(signals_of(self.linux, faults, threads=count, files=files or {}), outside)

    def serve(
        self,
        row: DaemonRow,
        served: Served,
        store: BufferedFile | None,
        *,
        which: str = "both",
        trouble: "Trouble | None" = None,
    ) -> None:
        """Add the daemon's threads; `which` of two it is: "upper" or "lower"."""
        threads = serving_threads(self.scenario, row, self.io_flusher and _concerns(self.scenario, which))
        serving = [thread for thread in threads if thread.takes != "events"]
        add_daemon(self.linux, serving, self.around(served, store, trouble))

    def around(
        self, served: Served, store: BufferedFile | None = None, trouble: "Trouble | None" = None
    ) -> Surroundings:
        """What a daemon works with."""
        remote_ns = self.linux.unit_bytes * 150
        trouble = trouble or NO_TROUBLE
        return Surroundings(
            served,
            store,
            self.memory,
            remote_ns,
            self.scenario.machine.cpus,
            trouble.signals,
            trouble.outside,
            trouble.refuse,
        )

    def react(
        self,
        row: DaemonRow,
        served: Served,
        when: Expression,
        changes: Changes,
        what: str,
        trouble: "Trouble | None" = None,
    ) -> None:
        """Add the daemon's threads that take events."""
        for thread in serving_threads(self.scenario, row, self.io_flusher):
            if thread.takes == "events":
                around = self.around(served, trouble=trouble)
                add_event_thread(self.linux, thread, around, when, changes, what)

    def first_thread(self, row: DaemonRow) -> ServingThread:
        """The thread of a daemon that takes connections."""
        first, count = row.threads[0], sum(thread.count for thread in row.threads)
        carries = self.io_flusher and _carries(self.scenario.hardening, first, 0, count)
        return _serving(self.scenario, first, carries)

    def add_faults(self, trouble: "Trouble", own: Mapping[str, Effect] | None = None) -> None:
        """Add what brings the faults about; `own` is what those do that the stack alone knows."""
        faults = self.scenario.fault
        if not faults:
            return
        known = {**signal_effects(trouble.signals), **(own or {})}
        nothing: Effect = {}, {}
        effects = {
            number: known.get(fault.kind)
            or (nothing if fault.kind.startswith("daemon-") else outside_effects(trouble.outside, fault))
            for number, fault in enumerate(faults)
        }
        add_faults(self.linux, faults, effects)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with a daemon and with the server outside.

    Attributes:
        signals: to the daemon's process. outside: the server outside. refuse: of `Surroundings`.
    """

    signals: Signals | None
    outside: Outside
    refuse: Callable[[Code, str, Changes], None] | None = None


NO_TROUBLE = Trouble(None, Outside())


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


def _nbd(plan: StackPlan, *, tcp: bool = False, attaches: bool = False) -> ModelledStack:
    row = describe(plan.scenario)
    device, trouble = _nbd_device(plan, row, tcp=tcp, attaches=attaches)
    store = plan.store(row)

    def start() -> None:
        plan.serve(row, device, store, trouble=trouble)
        _start_nbd(plan, row, device, trouble)

    return ModelledStack(device, start)


def _nbd_device(
    plan: StackPlan, row: DaemonRow, *, tcp: bool = False, attaches: bool = False
) -> tuple[NbdDriver, Trouble]:
    """nbd0, set up as the lab does it for the scenario's faults, and what goes wrong with its daemon."""
    linux, depth, kinds = plan.linux, plan.depth(), plan.kinds
    device: NbdDriver
    if plan.has_fault("connection-cut"):
        timeout_ns = NBD_REQUEST_TIMEOUT_S * 1_000_000_000
        device = made = ReconnectedNbdDriver(
            linux, "nbd0", queue_depth=depth, kinds=kinds, tcp=tcp, timeout_ns=timeout_ns
        )
        return device, plan.goes_wrong(row, files=made.ended, more=1)
    if plan.has_fault("daemon-killed", "remote-cut"):
        device = ending = EndingNbdDriver(
            linux, "nbd0", queue_depth=depth, kinds=kinds, tcp=tcp, attaches=attaches
        )
        return device, replace(plan.goes_wrong(row, files=ending.ended), refuse=ending.refuse)
    device = NbdDriver(linux, "nbd0", queue_depth=depth, kinds=kinds, tcp=tcp)
    return device, plan.goes_wrong(row)


def _start_nbd(plan: StackPlan, row: DaemonRow, device: NbdDriver, trouble: Trouble) -> None:
    """What nbd0 has beside its daemon."""
    linux, around = plan.linux, plan.around(device, trouble=trouble)
    if trouble.outside.linked is not None:
        add_link_thread(linux, replace(plan.first_thread(row), name="nbd-remote-keep"), around)
    if isinstance(device, ReconnectedNbdDriver):
        device.add_workers()
        asked, accepted = device.asked, device.accepted
        what, taken = "takes another connection", {asked: 0, accepted: 1}
        add_event_thread(
            linux, plan.first_thread(row), around, asked > 0, taken, what, notices_ns=0, makes_thread=True
        )
        device.add_client()
        plan.add_faults(trouble, {"connection-cut": device.cut})
    elif isinstance(device, EndingNbdDriver):
        device.add_workers()
        killed = signal_effects(trouble.signals).get("daemon-killed")
        own: dict[str, Effect] = {}
        if killed is not None and device.attaches:
            own["daemon-killed"] = {**killed[0], **device.ended}, {}
        plan.add_faults(trouble, own)
    else:
        plan.add_faults(trouble)


def _nbd_tcp(plan: StackPlan) -> ModelledStack:
    return _nbd(plan, tcp=True)


def _nbd_attached(plan: StackPlan) -> ModelledStack:
    """The daemon attaches the device itself."""
    return _nbd(plan, attaches=True)


def _fuse(plan: StackPlan) -> ModelledStack:
    return _loop_on_fuse(plan, describe(plan.scenario), plan.kinds, ends=plan.has_fault("daemon-killed"))


def _loop_on_fuse(
    plan: StackPlan, row: DaemonRow, kinds: tuple[str, ...], which: str = "both", *, ends: bool = False
) -> ModelledStack:
    """loop0 over a file of a FUSE mount."""
    linux = plan.linux
    device = LoopDriver(linux, "loop0", queue_depth=plan.depth(), kinds=kinds)
    store = plan.store(row)
    served: Served
    file: File
    files: Changes = {}
    if row.writeback_cache:
        mount = served = FuseWriteback(linux, "fuse")
        backing = make_backing_device(linux, mount, plan.pool, strictlimit=True, temporary=mount.temporary)
        file = BufferedFile(backing, ("fuse_file_write_iter", "generic_perform_write"), ("fuse_write_begin",))
    else:
        asked = ("write", SWAP_IN) if SWAP_IN in kinds else ("write",)
        served = queue = FuseQueue(linux, "fuse", queue_depth=device.queue_depth, kinds=asked, ends=ends)
        file = FuseFile(queue, device.fail_handled)
        files = queue.files
        if queue.aborted is not None:
            device.can_fail, device.fails = True, queue.aborted > 0
    trouble = NO_TROUBLE if which == "lower" else plan.goes_wrong(row, files=files)

    def start() -> None:
        device.add_worker(file)
        plan.serve(row, served, store, which=which, trouble=trouble)
        if which != "lower":
            plan.add_faults(trouble)

    return ModelledStack(device, start)


def _stacked(plan: StackPlan) -> ModelledStack:
    """nbd0, whose server stores into loop0, the file of which our FUSE daemon serves."""
    upper = describe(plan.scenario)
    device, trouble = _nbd_device(plan, upper)
    below = _loop_on_fuse(plan, OUR_FUSE_DAEMON, ("write",), "lower")
    store = block_device_file(plan.linux, make_backing_device(plan.linux, below.device, plan.pool))

    def start() -> None:
        plan.serve(upper, device, store, which="upper", trouble=trouble)
        below.start()
        _start_nbd(plan, upper, device, trouble)

    return ModelledStack(device, start)


def _ublk(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    ends = plan.has_fault("daemon-killed")
    device = UblkDriver(plan.linux, "ublkb0", queue_depth=plan.depth(), kinds=plan.kinds, ends=ends)
    trouble = plan.goes_wrong(row, files=device.files)
    store = plan.store(row)

    def start() -> None:
        plan.serve(row, device, store, trouble=trouble)
        device.add_abort()
        plan.add_faults(trouble)

    return ModelledStack(device, start)


def _tcmu(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = TcmuDriver(plan.linux, "sda", queue_depth=plan.depth(IN_FLIGHT), kinds=plan.kinds)
    trouble = plan.goes_wrong(row)
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store, trouble=trouble)
        plan.add_faults(trouble)

    return ModelledStack(device, start)


def _iscsid(plan: StackPlan) -> ModelledStack:
    """The initiator's own daemon, and a target outside or in the kernel; the connection may be cut."""
    row = describe(plan.scenario)
    device = IscsiDriver(plan.linux, "sda", queue_depth=plan.depth(CMD_PER_LUN), kinds=plan.kinds)
    trouble = plan.goes_wrong(row)
    store = plan.store(row)
    connected, reachable = device.connected, device.reachable

    def start() -> None:
        device.add_worker()
        if store is None:
            device.add_target_outside(plan.linux.unit_bytes * 150, trouble.outside)
        else:
            plan.serve(row, device, store)
        lost = (connected.is_(0)) & (reachable > 0)
        plan.react(row, device, lost, {connected: 1}, "makes another connection", trouble)
        cut: Effect = {reachable: 0, connected: 0}, {reachable: 1}
        plan.add_faults(trouble, {"connection-cut": cut, "remote-cut": cut})

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

    trouble = plan.goes_wrong(row)

    def start() -> None:
        device.add_disk(plan.linux.unit_bytes * 10)
        when, changes = device.reinstates
        plan.react(row, device, when, changes, "reinstates the paths", trouble)
        plan.add_faults(trouble, {"paths-offline": ({device.online: 0}, {device.online: 1})})

    return ModelledStack(device, start)


def _nfs(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = NfsMount(plan.linux, "nfs")
    trouble = plan.goes_wrong(row)
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store, trouble=trouble)
        plan.add_faults(trouble)

    return ModelledStack(device, start)


def _iscsi(plan: StackPlan) -> ModelledStack:
    row = describe(plan.scenario)
    device = IscsiDriver(plan.linux, "sda", queue_depth=plan.depth(CMD_PER_LUN), kinds=plan.kinds)
    trouble = plan.goes_wrong(row)
    store = plan.store(row)

    def start() -> None:
        device.add_worker()
        plan.serve(row, device, store, trouble=trouble)
        plan.add_faults(trouble)

    return ModelledStack(device, start)


STACKS: Mapping[str, Callable[[StackPlan], ModelledStack]] = MappingProxyType(
    {
        "nbd": _nbd,
        "nbd-tcp": _nbd_tcp,
        "nbd-device": _nbd_attached,
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
