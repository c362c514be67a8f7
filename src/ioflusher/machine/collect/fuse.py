"""Connections of FUSE, from the file system fusectl (fs/fuse/control.c)."""

from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.endpoints import FuseConnection
from ioflusher.machine.storage import Mount

FUSE = "sys/fs/fuse/connections"


def collect_fuse(tree: Tree, mounts: tuple[Mount, ...]) -> tuple[FuseConnection, ...]:
    """The connections, with the requests that wait; nothing where fusectl is not mounted."""
    if not tree.exists(FUSE):
        return ()
    numbers = [int(name) for name in tree.names(FUSE) if name.isdigit()]
    if not numbers and any(mount.fstype.split(".")[0] in ("fuse", "fuseblk") for mount in mounts):
        tree.note(f"/{FUSE}", "empty although FUSE is mounted: is fusectl mounted there?")
    return tuple(
        FuseConnection(number, tree.number(f"{FUSE}/{number}/waiting")) for number in sorted(numbers)
    )
