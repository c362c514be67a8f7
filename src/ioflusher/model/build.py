"""From a scenario to the system that it is."""

from ioflusher.kernel.task_flags import Version
from ioflusher.model.block import BIO_POOL_SIZE, BioPool, DiskDriver
from ioflusher.model.daemon import ServingThread, Surroundings, Verb, add_daemon
from ioflusher.model.linux import Linux
from ioflusher.model.memory import make_zone
from ioflusher.model.nbd import NbdDriver
from ioflusher.model.reclaim import add_kswapd
from ioflusher.model.scale import FULL, Scale
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import TransitionSystem
from ioflusher.model.workload import add_reader, add_toucher, add_writer
from ioflusher.model.writeback import DirtyDomain, add_flusher, make_backing_device
from ioflusher.scenario.records import Scenario

# what a guest's kernel, its programs and their files have of its memory: of 400 MiB, 265 were left on 6.12
TAKEN = 135 << 20
LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"


def build(scenario: Scenario, *, io_flusher: bool, version: Version, scale: Scale = FULL) -> TransitionSystem:
    """The system of one half of a scenario."""
    linux = Linux(version, scale.unit_bytes)
    sysctl = scenario.kernel.sysctl
    swap = scenario.device.use == "swap"
    min_free = int(sysctl.get("vm.min_free_kbytes", 0)) * 1024 or 3 << 20
    read = scenario.pressure.size if scenario.pressure.kind == "reader" else 0
    size = scenario.machine.memory - TAKEN
    if scale.memory_units:
        size = min(size, scale.memory_units * scale.unit_bytes)
    make_zone(linux, size=size, clean=read, min_free=min_free)
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE, what="elements of the bio pool"))
    thresh = linux.units(int(sysctl.get("vm.dirty_bytes", 0)) or scenario.machine.memory // 5)
    background = linux.units(int(sysctl.get("vm.dirty_background_bytes", 0)) or scenario.machine.memory // 10)
    if background >= thresh:
        background = thresh // 2
    linux.domain = DirtyDomain(thresh, background)
    depth = scale.queue_depth or scenario.device.queue_depth or 128
    device = NbdDriver(linux, "nbd0", queue_depth=depth, kinds=("swap",) if swap else ("write",))
    store = None
    if scenario.daemon.store != "remote":
        disk = DiskDriver(
            linux, "vda", request_ns=linux.unit_bytes * 10, queue_depth=scale.queue_depth or 256
        )
        store = make_backing_device(linux, disk, pool)
        disk.add_server()
    memory = linux.variable(
        "daemon_memory", 0, linux.zone.free.high, what="memory of the daemon", unit="memory"
    )
    verbs: tuple[Verb, ...] = ("send", "wait") if store is None else ("store",)
    work = linux.units(scenario.workload.size)
    if scale.work_units:
        work = min(work, scale.work_units)
    if swap:
        # on where it is built in (6.1, and built in by Debian) and nobody wrote 0
        lru_gen = linux.version >= (6, 1) and scenario.kernel.write.get(LRU_GEN, "1") != "0"
        swappiness = int(sysctl.get("vm.swappiness", 60))
        SwapArea(linux, device, pool, size=scenario.device.size, swappiness=swappiness, lru_gen=lru_gen)
    else:
        add_writer(linux, make_backing_device(linux, device, pool), work)
    # each looks at the dirty pages of all, so all have to be there
    for backing in linux.domain.backing:
        add_flusher(linux, backing, pool)
    add_kswapd(linux)
    thread = ServingThread(
        "nbd-daemon", verbs, io_flusher, bool(scenario.hardening.realtime), scenario.hardening.lock_memory
    )
    add_daemon(linux, thread, Surroundings(device, store, memory, {}, remote_ns=linux.unit_bytes * 150))
    if swap:
        chunk = linux.units(scenario.workload.chunk)
        add_toucher(linux, work, chunk_units=chunk, pause_ns=scenario.workload.pause_ms * 1_000_000)
    if scenario.pressure.kind == "reader":
        add_reader(linux, linux.units(scenario.pressure.size), unit_ns=linux.unit_bytes * 8)
    return linux.system(scenario.name)
