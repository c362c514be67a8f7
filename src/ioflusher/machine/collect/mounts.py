"""Mounts from /proc/PID/mountinfo, of every mount namespace, and swap areas from /proc/swaps."""

import os
import re
import stat
from collections.abc import Mapping, Sequence

from ioflusher.kernel.mountinfo import MountLine, parse_mount, unescape
from ioflusher.kernel.swaps import parse_swap
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.storage import BlockDevice, Mount, Swap
from ioflusher.support.directories import numbers_in
from ioflusher.support.text import text_of

LARGEST_MOUNTINFO = 1 << 26
# What others see besides: a machine with many containers has the same few file systems thousands of times.
LARGEST_FOREIGN_MOUNTS = 20_000
_TRIES = 4

# Options that say what a file system stands on; all others may hold secrets and are dropped.
KEPT_OPTIONS = frozenset(
    (
        *("addr", "port", "mon_addr", "trans", "rfdno", "user_id", "subvol", "logdev", "rtdev"),
        *("lowerdir", "upperdir", "workdir"),
    )
)
_NO_STORAGE = frozenset(
    b"proc sysfs cgroup cgroup2 devpts mqueue securityfs debugfs tracefs configfs bpf pstore nsfs "
    b"binfmt_misc fusectl efivarfs rpc_pipefs hugetlbfs devtmpfs autofs selinuxfs".split()
)
_NAMESPACE = re.compile(r"mnt:\[(\d+)\]")


class Devices:
    """Block devices by every name under which mounts and swap areas know them."""

    def __init__(self, tree: Tree, devices: tuple[BlockDevice, ...]) -> None:
        self._tree = tree
        self._by_path = {f"/dev/{device.name.replace('!', '/')}": device for device in devices}
        for device in devices:
            if device.dm is not None:
                self._by_path.setdefault(f"/dev/mapper/{device.dm.name}", device)

    def at(self, path: str) -> BlockDevice | None:
        """The device that the path names; symbolic links below /dev are followed."""
        found = self._by_path.get(path)
        for _ in range(8):
            if found is not None or not path.startswith("/dev/"):
                break
            target = self._tree.link(path.lstrip("/"))
            if target is None:
                break
            path = target
            found = self._by_path.get(path)
        return found


def collect_mounts(
    tree: Tree, devices: Devices, namespaces: Mapping[int, Sequence[int]] | None = None
) -> tuple[Mount, ...]:
    """All mounts that this process sees, and those with storage behind them that only others see.

    `namespaces`: the mount namespaces with their processes, where that is known already.
    """
    btrfs = _btrfs_members(tree)
    own, first = _own_namespace(tree)
    mounts = [_mount(line, first, btrfs, devices) for line in _lines(tree, own)]
    room = LARGEST_FOREIGN_MOUNTS
    if namespaces is None:
        namespaces = _namespaces(tree) if first is not None else {}
    for namespace, pids in namespaces.items():
        if first is None or namespace == first:
            continue
        # the first one may be gone by now
        every = next((lines for pid in pids[:_TRIES] if (lines := _lines(tree, str(pid)))), [])
        lines = [line for line in every if line.fstype not in _NO_STORAGE]
        if len(lines) > room:
            tree.note(
                "mounts of other namespaces", f"more than {LARGEST_FOREIGN_MOUNTS}: the rest was left out"
            )
        mounts += [_mount(line, namespace, btrfs, devices) for line in lines[:room]]
        room -= len(lines[:room])
        if room <= 0:
            break
    known: dict[int, Mount] = {}
    for mount in mounts:
        known.setdefault(mount.mount_id, mount)
    return tuple(known.values())


def _own_namespace(tree: Tree) -> tuple[str, int | None]:
    """Whose mountinfo is read first, and the inode number of its namespace."""
    who = "self" if tree.exists("proc/self/mountinfo") else "1"
    return who, _namespace(tree, who)


def _namespace(tree: Tree, pid: str) -> int | None:
    try:
        target = os.readlink(tree.place(f"proc/{pid}/ns/mnt"))
    except OSError:
        return None  # whoever collects processes notes what may not be read of them
    match = _NAMESPACE.fullmatch(target)
    return int(match[1]) if match else None


def _namespaces(tree: Tree) -> dict[int, list[int]]:
    """Mount namespaces, each with the processes in it."""
    found: dict[int, list[int]] = {}
    try:
        pids = numbers_in(tree.place("proc"))
    except OSError:
        return found
    for pid in pids:
        namespace = _namespace(tree, str(pid))
        if namespace is not None:
            found.setdefault(namespace, []).append(pid)
    return found


def _lines(tree: Tree, pid: str) -> list[MountLine]:
    path = f"proc/{pid}/mountinfo"
    lines = []
    for line in (tree.data(path, LARGEST_MOUNTINFO) or b"").split(b"\n"):
        if line:
            try:
                lines.append(parse_mount(line))
            except ValueError as error:
                tree.note(f"/{path}", str(error))
    return lines


def _mount(
    line: MountLine, namespace: int | None, btrfs: dict[str, tuple[str, ...]], devices: Devices
) -> Mount:
    source = text_of(line.source)
    options = _options(line)
    return Mount(
        mount_id=line.mount_id,
        parent_id=line.parent_id,
        number=line.number,
        root=text_of(line.root),
        point=text_of(line.point),
        fstype=text_of(line.fstype),
        source=source,
        options=options,
        namespace=namespace,
        devices=_members(line.fstype, source, dict(options), btrfs, devices),
    )


def _options(line: MountLine) -> tuple[tuple[str, str], ...]:
    """ "ro" or "rw" as both the mount and the file system have it, and what is in KEPT_OPTIONS."""
    read_only = b"ro" in line.options or b"ro" in line.super_options
    kept: dict[str, str] = {"ro" if read_only else "rw": ""}
    for option in line.super_options:
        name, equals, value = option.partition(b"=")
        key = text_of(name)
        if not equals:
            continue
        if key == "lowerdir+":  # since 6.7 overlay writes each layer by itself
            layer = text_of(unescape(value)).replace(":", "\\:")
            kept["lowerdir"] = f"{kept['lowerdir']}:{layer}" if "lowerdir" in kept else layer
        elif key in KEPT_OPTIONS:
            kept[key] = text_of(unescape(value))
    return tuple(kept.items())


def _btrfs_members(tree: Tree) -> dict[str, tuple[str, ...]]:
    """For each device of a btrfs file system on several, all of them: /sys/fs/btrfs/UUID/devices."""
    members: dict[str, tuple[str, ...]] = {}
    for uuid in tree.names("sys/fs/btrfs"):
        names = tuple(tree.names(f"sys/fs/btrfs/{uuid}/devices")) if "-" in uuid else ()
        if len(names) > 1:
            members |= dict.fromkeys(names, names)
    return members


def _members(
    fstype: bytes, source: str, options: dict[str, str], btrfs: dict[str, tuple[str, ...]], devices: Devices
) -> tuple[str, ...]:
    """Names of the block devices of a file system on several; empty for one on one device."""
    if fstype == b"btrfs":
        device = devices.at(source)
        return btrfs.get(device.name, ()) if device is not None else ()
    if fstype == b"bcachefs" and ":" in source:
        paths = source.split(":")
    elif fstype == b"xfs" and ("logdev" in options or "rtdev" in options):
        paths = [source, *(options[key] for key in ("logdev", "rtdev") if key in options)]
    else:
        return ()
    return tuple(device.name for device in map(devices.at, paths) if device is not None)


def collect_swaps(tree: Tree, devices: Devices, mounts: tuple[Mount, ...]) -> tuple[Swap, ...]:
    """The swap areas, in the kernel's order."""
    swaps = []
    for line in (tree.data("proc/swaps") or b"").split(b"\n")[1:]:
        if not line:
            continue
        try:
            area = parse_swap(line)
        except ValueError as error:
            tree.note("/proc/swaps", str(error))
            continue
        path = text_of(area.path)
        number = _number_of_file(path, mounts) if area.is_file else _number_of_device(tree, path, devices)
        if number is None:
            tree.note(f"device number of the swap area {path}", "no device or mount of that name")
        swaps.append(
            Swap(path, area.is_file, number, area.size_kib << 10, area.used_kib << 10, area.priority)
        )
    return tuple(swaps)


def _number_of_device(tree: Tree, path: str, devices: Devices) -> str | None:
    device = devices.at(path)
    if device is not None:
        return device.number
    if not path.startswith("/dev/"):
        return None  # a look at it may wait for a daemon that no longer answers
    try:
        info = os.stat(tree.place(path))
    except OSError:
        return None
    return f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}" if stat.S_ISBLK(info.st_mode) else None


def _number_of_file(path: str, mounts: tuple[Mount, ...]) -> str | None:
    """The file system that the path lies on: the deepest mount point above it, the latest of several."""
    first = mounts[0].namespace if mounts else None
    best: Mount | None = None
    for mount in mounts:
        above = mount.point == "/" or path.startswith(mount.point + "/")
        if above and mount.namespace == first and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.number if best is not None else None
