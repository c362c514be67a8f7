"""Which block device or file system lies on which: the layers between a file or swap and its disk."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from ioflusher.machine.process import FileKind, FileUse
from ioflusher.machine.serving.service import StorageService, TargetKind
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, Mount, Swap

# /proc and /sys write it behind the name of a file that was unlinked.
_DELETED = " (deleted)"
# PATH_MAX, include/uapi/linux/limits.h, with room for how bytes that are not UTF-8 are written here
_LONGEST_PATH = 4 * 4096


class LayerKind(Enum):
    """What a layer is."""

    DEVICE = "device"
    FILE_SYSTEM = "file system"


@dataclass(frozen=True, slots=True)
class Layer:
    """A block device, by its name, or a file system, by its number "major:minor"."""

    kind: LayerKind
    name: str


def device_layer(name: str) -> Layer:
    """The layer of a block device."""
    return Layer(LayerKind.DEVICE, name)


def file_system_layer(number: str) -> Layer:
    """The layer of a mounted file system."""
    return Layer(LayerKind.FILE_SYSTEM, number)


class Layers:
    """The layers of one machine, and how they lie on each other. Cyclic tables do no harm."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.devices: dict[str, BlockDevice] = {device.name: device for device in snapshot.devices}
        self.by_number: dict[str, BlockDevice] = {device.number: device for device in snapshot.devices}
        self.mounts_by_id: dict[int, Mount] = {mount.mount_id: mount for mount in snapshot.mounts}
        self.mounts: dict[str, list[Mount]] = defaultdict(list)
        for mount in snapshot.mounts:
            self.mounts[mount.number].append(mount)
        self._mapped = {device.dm.name: device for device in snapshot.devices if device.dm}

    @cached_property
    def _points(self) -> dict[tuple[int | None, str], Mount]:
        """The mount that a path meets at each mount point, by name space.

        A mount is met where its parent is met: one at /a/b is hidden by a later one at /a. Where the parent
        is not in the snapshot (file systems without storage are left out of other name spaces), it counts.
        """
        places: dict[tuple[int | None, str], list[Mount]] = defaultdict(list)
        for mount in sorted(self.snapshot.mounts, key=lambda mount: len(mount.point)):
            places[mount.namespace, mount.point].append(mount)
        points: dict[tuple[int | None, str], Mount] = {}
        for place, mounts in places.items():
            met = self._topmost(mounts, points)
            if met is not None:
                points[place] = met
        return points

    def _topmost(self, mounts: list[Mount], points: dict[tuple[int | None, str], Mount]) -> Mount | None:
        """Of the mounts at one point, the one on top; None where a mount at a shorter path hides them all."""
        over = {mount.parent_id: mount for mount in mounts if mount.parent_id != mount.mount_id}
        here = {mount.mount_id for mount in mounts}
        met: Mount | None = None
        for mount in mounts:
            lowest = mount.parent_id not in here or mount.parent_id == mount.mount_id
            if lowest and self._is_met(mount, points):
                met = mount
        for _ in mounts:
            if met is None or met.mount_id not in over:
                break
            met = over[met.mount_id]
        return met

    def _is_met(self, mount: Mount, points: dict[tuple[int | None, str], Mount]) -> bool:
        parent = self.mounts_by_id.get(mount.parent_id)
        if parent is None or parent.namespace != mount.namespace:
            return True
        above = _longest(mount.point.rpartition("/")[0] or "/", mount.namespace, points)
        return above is None or above.mount_id == parent.mount_id

    @cached_property
    def _first_namespace(self) -> int | None:
        """The mount name space of process 1, else that of the first mount."""
        for process in self.snapshot.processes[:1]:
            if process.pid == 1 and process.mount_namespace is not None:
                return process.mount_namespace
        return self.snapshot.mounts[0].namespace if self.snapshot.mounts else None

    @cached_property
    def _below(self) -> dict[Layer, frozenset[Layer]]:
        """What each layer lies on directly."""
        below: dict[Layer, frozenset[Layer]] = {}
        for device in self.snapshot.devices:
            names = (*device.slaves, *([device.parent] if device.parent else []))
            layers = {device_layer(name) for name in names if name in self.devices}
            if device.backing_file and device.backing_file != "none":
                layers |= {layer for layer in (self.of_path(device.backing_file),) if layer}
            below[device_layer(device.name)] = frozenset(layers)
        for number, mounts in self.mounts.items():
            layers = set()
            for mount in mounts:
                layers |= self._below_mount(mount)
            below[file_system_layer(number)] = frozenset(layers - {file_system_layer(number)})
        return below

    @cached_property
    def _above(self) -> dict[Layer, frozenset[Layer]]:
        """What lies on each layer directly."""
        above: dict[Layer, set[Layer]] = defaultdict(set)
        for upper, lowers in self._below.items():
            for lower in lowers:
                above[lower].add(upper)
        return {layer: frozenset(uppers) for layer, uppers in above.items()}

    def _below_mount(self, mount: Mount) -> set[Layer]:
        layers = {device_layer(name) for name in mount.devices if name in self.devices}
        device = self.by_number.get(mount.number) or self.device_of_path(mount.source)
        if device is not None:
            layers.add(device_layer(device.name))
        layers |= {layer for _, _, layer in self.of_overlay(mount) if layer is not None}
        return layers

    def of_overlay(self, mount: Mount) -> Iterator[tuple[str, str, Layer | None]]:
        """An overlay's directories: option, path, and the file system that it lies on, None for unknown.

        The paths are those that it was mounted with: often the host's, not those of the container that it
        is the root of.
        """
        if mount.fstype != "overlay":
            return
        for option in ("upperdir", "workdir", "lowerdir"):
            value = mount.option(option) or ""
            # only lowerdir is a list; a colon that belongs to a name is written \: there
            parts = re.split(r"(?<!\\):", value) if option == "lowerdir" else [value]
            for path in (part.replace("\\:", ":") for part in parts if part):
                met = (self.mount_of(path), self.mount_of(path, mount.namespace))
                below = next((m.number for m in met if m is not None and m.number != mount.number), None)
                yield option, path, None if below is None else file_system_layer(below)

    def device_of_path(self, path: str) -> BlockDevice | None:
        """The block device that a name below /dev means, None where it is not one that is known."""
        if not path.startswith("/dev/"):
            return None
        if path.startswith("/dev/mapper/"):
            return self._mapped.get(path.removeprefix("/dev/mapper/"))
        return self.devices.get(path.removeprefix("/dev/").replace("/", "!"))

    def of_path(self, path: str, namespace: int | None = None) -> Layer | None:
        """The device that a path names, or the file system that it lies on; None for unknown."""
        path = path.removesuffix(_DELETED)
        if path.startswith("/dev/"):
            device = self.device_of_path(path)
            if device is not None:
                return device_layer(device.name)
        mount = self.mount_of(path, namespace)
        return file_system_layer(mount.number) if mount is not None else None

    def mount_of(self, path: str, namespace: int | None = None) -> Mount | None:
        """The mount that a path lies on: the longest mount point above it in that name space."""
        return _longest(path, self._first_namespace if namespace is None else namespace, self._points)

    def of_file(self, file: FileUse) -> Layer | None:
        """The device that an open file is, or the file system that it lies on; None for unknown."""
        if file.kind is FileKind.DEVICE:
            device = self.by_number.get(file.device)
            return device_layer(device.name) if device is not None else None
        # btrfs and overlay show other numbers in stat than in mountinfo
        mount = self.mounts_by_id.get(file.mount_id) if file.mount_id is not None else None
        if mount is not None:
            return file_system_layer(mount.number)
        if file.device in self.mounts:
            return file_system_layer(file.device)
        device = self.by_number.get(file.device)
        return device_layer(device.name) if device is not None else None

    def of_swap(self, swap: Swap) -> Layer | None:
        """What a swap area lies on; None for unknown."""
        if swap.is_file:
            if swap.number in self.mounts:
                return file_system_layer(swap.number or "")
            return self.of_path(swap.path)
        device = self.by_number.get(swap.number or "") or self.device_of_path(swap.path)
        return device_layer(device.name) if device is not None else None

    def of_service(self, service: StorageService) -> Layer:
        """What a service serves."""
        if service.kind is TargetKind.DEVICE:
            return device_layer(service.target)
        return file_system_layer(service.target)

    def below(self, layer: Layer) -> frozenset[Layer]:
        """The layer itself and all that it lies on, down to the disks."""
        return _reached(layer, self._below)

    def above(self, layer: Layer) -> frozenset[Layer]:
        """The layer itself and all that lies on it."""
        return _reached(layer, self._above)

    def swaps_on(self, layers: Iterable[Layer]) -> tuple[Swap, ...]:
        """The swap areas that lie on one of the layers directly."""
        wanted = frozenset(layers)
        return tuple(swap for swap in self.snapshot.swaps if self.of_swap(swap) in wanted)


def _longest(path: str, namespace: int | None, points: dict[tuple[int | None, str], Mount]) -> Mount | None:
    """What is mounted at the path itself or at the nearest directory above it."""
    if len(path) > _LONGEST_PATH:
        return None
    while path.startswith("/"):
        mount = points.get((namespace, path))
        if mount is not None or path == "/":
            return mount
        path = path.rpartition("/")[0] or "/"
    return None


def _reached(start: Layer, steps: dict[Layer, frozenset[Layer]]) -> frozenset[Layer]:
    seen = {start}
    waiting = [start]
    while waiting:
        for layer in steps.get(waiting.pop(), ()):
            if layer not in seen:
                seen.add(layer)
                waiting.append(layer)
    return frozenset(seen)
