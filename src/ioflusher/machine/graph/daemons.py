"""The other half of the graph: who serves what, and what those processes stand on in turn."""

from collections import defaultdict, deque
from collections.abc import Iterable

from ioflusher.machine.graph.draft import Draft, layer_id
from ioflusher.machine.graph.layers import Layer, Layers, device_layer, file_system_layer
from ioflusher.machine.graph.nodes import Need, Node, NodeKind, Reason
from ioflusher.machine.graph.peers import Peers
from ioflusher.machine.graph.storage import SWAPPED, writable_targets
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.candidates import CandidateGroup, candidate_groups
from ioflusher.machine.serving.service import StorageService, TargetKind
from ioflusher.machine.storage import DeviceKind

RECLAIM = "reclaim"
MOST_NAMED = 3

_REASONS = {
    FileKind.EXECUTABLE: Reason.EXECUTABLE,
    FileKind.LIBRARY: Reason.LIBRARY,
    FileKind.MAPPED: Reason.MAPPED,
    FileKind.LOG: Reason.LOG,
    FileKind.WRITTEN: Reason.WRITTEN,
    FileKind.READ: Reason.READ,
    FileKind.DEVICE: Reason.OPEN_DEVICE,
}
# What is mapped is not read again once its pages are locked in memory.
_MAPPED = frozenset((FileKind.EXECUTABLE, FileKind.LIBRARY, FileKind.MAPPED))


def served_nodes(services: Iterable[StorageService]) -> frozenset[str]:
    """The nodes for which a server on this machine is known, be it the kernel, or nobody any more."""
    return frozenset(_target_id(service) for service in services if service.essential)


def _target_id(service: StorageService) -> str:
    return f"dev:{service.target}" if service.kind is TargetKind.DEVICE else f"fs:{service.target}"


class Daemons:
    """Adds the processes that serve, those that they wait for, and what all of them stand on."""

    def __init__(self, draft: Draft, layers: Layers, services: tuple[StorageService, ...]) -> None:
        self._draft = draft
        self._layers = layers
        self._services = services
        self._processes = {process.pid: process for process in layers.snapshot.processes}
        self._tcmu = {tcmu.uio: tcmu.name for tcmu in layers.snapshot.tcmu}
        self._roles: defaultdict[int, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._own: defaultdict[int, set[str]] = defaultdict(set)
        self._group_of = {
            (group.role, *target): group for group in candidate_groups(services) for target in group.targets
        }
        for service in services:
            if service.pid is not None:
                role = service.role.value
                if service.candidate is not None:
                    role = f"{service.candidate.confidence.value} {role}"
                self._roles[service.pid][role].append(self._called(service))
                self._own[service.pid].add(_target_id(service))

    def add(self) -> None:
        """Adds all of it to the draft."""
        for service in self._services:
            self._serve(service)
        peers = Peers(self._layers.snapshot)
        waiting = deque(dict.fromkeys(s.pid for s in self._services if s.pid is not None and not s.kernel))
        seen = set(waiting)
        reclaiming = False
        while waiting:
            pid = waiting.popleft()
            new = [peer for peer in peers.add(self._draft, pid, self._process) if peer not in seen]
            waiting += dict.fromkeys(new)
            seen.update(new)
            process = self._processes.get(pid)
            if process is not None and process.living:
                self._files(process)
                reclaiming |= self._memory(process)
        if reclaiming:
            for target, evidence in writable_targets(self._layers, served_nodes(self._services)):
                self._draft.edge(RECLAIM, target, Reason.RECLAIM, evidence)
        self._nbd_without_server()

    def _called(self, service: StorageService) -> str:
        """What it serves, as people call it."""
        mounts = self._layers.mounts.get(service.target) if service.kind is TargetKind.MOUNT else None
        return mounts[0].point if mounts else service.target

    def _serve(self, service: StorageService) -> None:
        role = service.role.value
        if service.kind is TargetKind.DEVICE:
            target = self._device(service.target)
        else:
            target = self._draft.layer(file_system_layer(service.target))
        if service.kernel:
            node = Node(f"kernel:{role}", NodeKind.KERNEL_SERVER, f"the kernel's {role}", "no process")
            who = self._draft.add(node)
        elif service.pid is None:
            who = self._draft.unknown(
                f"server:{target}", f"no {role}", f"nobody serves {self._called(service)}"
            )
        else:
            who = self._process(service.pid)
        need = Need.WORK if service.essential else Need.RECOVERY
        group = self._group_of.get((service.role, service.kind, service.target))
        if group is not None and service.candidate is not None:
            several = self._several(group)
            evidence = f"{role}: {_named(self._name(pid) for pid in group.pids)}"
            self._draft.edge(target, several, Reason.SERVED, evidence, need, certain=False)
            evidence = f"{service.evidence}; {service.candidate.reason}"
            self._draft.edge(
                several, who, Reason.CANDIDATE, evidence, need, certain=False, candidate=service.candidate
            )
            return
        self._draft.edge(target, who, Reason.SERVED, f"{role}: {service.evidence}", need, service.certain)

    def _several(self, group: CandidateGroup) -> str:
        """The node that stands for one of several candidates, whatever they may serve."""
        words = f"{group.role.value} of {_named(name for _, name in group.targets)}"
        return self._draft.add(
            Node(
                f"candidates:{group.role.value}:{','.join(map(str, group.pids))}",
                NodeKind.CANDIDATES,
                f"one of {len(group.pids)} processes",
                words,
            )
        )

    def _name(self, pid: int) -> str:
        process = self._processes.get(pid)
        return f"{pid} ({process.comm})" if process is not None else str(pid)

    def _device(self, name: str) -> str:
        """A device's node; what a tcmu handler serves to others is no disk here, and known by its uio."""
        if name not in self._layers.devices and name in self._tcmu:
            return self._draft.add(Node(f"dev:{name}", NodeKind.DEVICE, name, self._tcmu[name]))
        return self._draft.layer(device_layer(name))

    def _process(self, pid: int) -> str:
        process = self._processes.get(pid)
        if process is None:
            return self._draft.unknown(f"pid:{pid}", f"process {pid}", "not in the snapshot")
        node = f"pid:{pid}"
        if node in self._draft:
            return node
        roles: dict[str, list[str]] = self._roles.get(pid, defaultdict(list))
        detail = ", ".join(f"{role} of {_named(dict.fromkeys(found))}" for role, found in roles.items())
        detail = detail or "a peer of a daemon"
        return self._draft.add(Node(node, NodeKind.PROCESS, process.comm, detail, process=process))

    def _files(self, process: Process) -> None:
        """What it reads, runs and writes, one edge a kind and file system."""
        files = process.files
        if files is None:
            unread = self._draft.unknown(
                f"files:{process.pid}",
                f"files of {process.comm}",
                f"those of process {process.pid} were not read",
            )
            self._draft.edge(
                f"pid:{process.pid}", unread, Reason.READ, "its files were not read", certain=False
            )
            files = (FileUse(process.exe, FileKind.EXECUTABLE, ""),) if process.exe else ()
        groups: defaultdict[tuple[FileKind, str], list[str]] = defaultdict(list)
        for file in files:
            target = self._place(file, process)
            # the device that it serves it holds open to control it
            if not (file.kind is FileKind.DEVICE and target in self._own.get(process.pid, ())):
                groups[file.kind, target].append(file.path)
        locked = process.memory_locked
        for (kind, target), paths in groups.items():
            need = Need.START if locked and kind in _MAPPED else Need.WORK
            evidence = f"{kind.value}: {_named(dict.fromkeys(paths))}"
            if need is Need.START:
                evidence += "; its pages are locked in memory"
            self._draft.edge(f"pid:{process.pid}", target, _REASONS[kind], evidence, need)

    def _place(self, file: FileUse, process: Process) -> str:
        """The node of the file system that the file lies on, or of the device that it is.

        By the mount that it was opened through, by its device number, else by its path: st_dev of btrfs and
        overlay is a number that no mount shows.
        """
        layer: Layer | None = self._layers.of_file(file)
        if layer is None and file.kind is not FileKind.DEVICE:
            layer = self._layers.of_path(file.path, process.mount_namespace)
        if layer is not None:
            return self._draft.layer(layer)
        what = "block device" if file.kind is FileKind.DEVICE else "file system"
        why = "no mount or device of that number or path"
        return self._draft.unknown(f"number:{file.device}", f"{what} {file.device}".rstrip(), why)

    def _memory(self, process: Process) -> bool:
        """What its memory makes it wait for; returns whether its allocations may start reclaim's writes."""
        node = f"pid:{process.pid}"
        if SWAPPED in self._draft and not process.memory_locked and not process.never_swapped:
            known = process.locked_kib is not None
            now = f"{process.swapped_kib} KiB of it are in swap now" if process.swapped_kib else ""
            not_locked = f"VmLck is {process.locked_kib} KiB" if known else "VmLck is unknown"
            evidence = f"its memory is not locked ({not_locked}){'; ' if now else ''}{now}"
            self._draft.edge(node, SWAPPED, Reason.SWAPPED, evidence, certain=known)
        if process.covered:
            return False
        bare = [t for t in process.living if not t.kernel_worker and not t.io_flusher]
        threads = len([t for t in process.living if not t.kernel_worker])
        self._draft.add(Node(RECLAIM, NodeKind.RECLAIM, "memory reclaim", "writes other pages out"))
        evidence = f"{len(bare)} of {threads} threads do not carry the IO_FLUSHER state: " + _named(
            f"{thread.tid} ({thread.comm}, flags {thread.flags:#010x})" for thread in bare
        )
        self._draft.edge(node, RECLAIM, Reason.RECLAIM, evidence)
        return True

    def _nbd_without_server(self) -> None:
        """Devices set up over netlink with a server on another machine: the kernel alone has the sockets."""
        snapshot = self._layers.snapshot
        served = {service.target for service in self._services if service.kind is TargetKind.DEVICE}
        peers = _named(remote.peer for remote in snapshot.remotes if not remote.end.pids)
        why = f"the kernel alone holds sockets to {peers}" if peers else "no socket of it was seen"
        for device in snapshot.devices:
            if device.kind is DeviceKind.NBD and device.size and device.name not in served:
                source = layer_id(device_layer(device.name))
                target = self._draft.unknown(f"server:{source}", f"server of {device.name}", why)
                self._draft.edge(source, target, Reason.SERVED, why, certain=False)


def _named(words: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    every = list(words)
    more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return ", ".join(every[:MOST_NAMED]) + more
