"""How file systems are made in the guest: quickly, and so that the guest's kernel can mount them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# mkfs of each file system: quick, and without discarding what is empty anyway
OPTIONS = {
    "ext4": ("-q", "-F", "-E", "nodiscard,lazy_itable_init=1"),
    "xfs": ("-q", "-K", "-f"),
    "btrfs": ("-q", "-K", "-f"),
}


@dataclass(frozen=True, slots=True)
class XfsFeature:
    """A feature that mkfs.xfs may switch on by itself, and that an older kernel refuses to mount.

    Attributes:
        option, name: how mkfs.xfs has it: -m bigtime=0.
        since: first version both of Linux (fs/xfs/libxfs/xfs_format.h) and of xfsprogs that has it; they are
            numbered alike.
    """

    option: str
    name: str
    since: tuple[int, int]


XFS_FEATURES = (
    XfsFeature("-m", "bigtime", (5, 10)),
    XfsFeature("-m", "inobtcount", (5, 10)),
    XfsFeature("-i", "nrext64", (5, 19)),
    XfsFeature("-i", "exchange", (6, 10)),
    XfsFeature("-n", "parent", (6, 10)),
)


def mkfs_command(
    use: str, device: str, release: str, ask: Callable[..., str], more: Sequence[str] = ()
) -> list[str]:
    """The command that makes the file system.

    Args:
        use: its name.
        device: where.
        release: of the kernel that will mount it.
        more: options besides.
        ask: runs a program and returns what it prints; `mkfs.xfs -V`, where the kernel lacks a feature.
    """
    lacking = [one for one in XFS_FEATURES if use == "xfs" and _version(release) < one.since]
    known = _version(ask("mkfs.xfs", "-V")) if lacking else (0, 0)
    off: dict[str, list[str]] = {}
    for feature in lacking:
        if feature.since <= known:
            off.setdefault(feature.option, []).append(f"{feature.name}=0")
    without = [word for option, names in off.items() for word in (option, ",".join(names))]
    return [f"mkfs.{use}", *OPTIONS[use], *without, *more, device]


def _version(text: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
