"""What of this machine a guest sees: directory walks into the nodes of a read-only image."""

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.erofs import ImageNode

# Not shown: what the guest has itself, what only takes time to walk, and where people keep their own things.
# Programs installed below a home directory are shared by name (the running Python is, always).
HIDDEN = frozenset(
    os.fsencode(path)
    for path in (
        *("/proc", "/sys", "/dev", "/run", "/tmp", "/boot", "/lost+found", "/media", "/mnt"),
        *("/home", "/root", "/srv", "/work"),
        *("/var/cache", "/var/tmp", "/var/log", "/var/lib/apt", "/var/lib/docker", "/var/lib/containers"),
        *("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info", "/usr/include"),
        *("/usr/share/icons", "/usr/share/fonts", "/usr/share/help", "/usr/share/gnome", "/usr/src"),
        # kits for programmers of tens of thousands of files each, on CI machines above all
        *("/usr/lib/google-cloud-sdk", "/usr/local/lib/android", "/usr/share/dotnet"),
    )
)
# There, empty, because a guest mounts something on it or programs expect it.
EMPTY = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/root",
    "/home",
    "/mnt",
    "/var/tmp",
    "/var/cache",
    "/var/log",
)
# where a guest's programs are looked for
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SKIPPED_NAMES = frozenset((b".git", b".mypy_cache", b".ruff_cache", b".pytest_cache"))


@dataclass(frozen=True, slots=True)
class Graft:
    """A directory of this machine that shall stand at another place in the guest."""

    guest: str
    host: Path


def _directory(mode: int = 0o755) -> ImageNode:
    return ImageNode(mode=stat.S_IFDIR | mode)


def _node(path: bytes, info: os.stat_result) -> ImageNode | None:
    kind = stat.S_IFMT(info.st_mode)
    node = ImageNode(
        mode=info.st_mode, mtime_ns=max(0, info.st_mtime_ns), uid=info.st_uid, gid=info.st_gid, source=path
    )
    if kind == stat.S_IFREG:
        node.size = info.st_size
    elif kind == stat.S_IFLNK:
        node.target = os.readlink(path)
    elif kind != stat.S_IFDIR:
        return None  # device nodes, sockets and pipes mean nothing in another machine
    return node


def _fill(top: ImageNode, path: bytes, hidden: frozenset[bytes]) -> None:
    """Walk a directory of this machine into the node; what cannot be listed stays empty."""
    pending = [(top, path)]
    while pending:
        parent, directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.path in hidden or entry.name in _SKIPPED_NAMES:
                continue
            try:
                node = _node(entry.path, entry.stat(follow_symlinks=False))
            except OSError:
                continue  # it went away between the listing and the look
            if node is None:
                continue
            parent.children[entry.name] = node
            if stat.S_ISDIR(node.mode):
                pending.append((node, entry.path))


def _reach(root: ImageNode, path: str) -> ImageNode:
    """The directory at the path, made with all its parents where it is missing.

    Symbolic links on the way are followed inside the tree (`/lib` is one into `/usr` on most machines).
    """
    node = root
    parts = [os.fsencode(part) for part in Path(path).parts[1:]]
    followed = 0
    walked: list[ImageNode] = [root]
    while parts:
        name = parts.pop(0)
        if name == b"..":
            walked = walked[:-1] or [root]
            node = walked[-1]
            continue
        child = node.children.get(name)
        if child is not None and stat.S_ISLNK(child.mode):
            followed += 1
            if followed > 40:
                raise OSError(f"too many symbolic links on the way to {path}")
            target = Path(os.fsdecode(child.target))
            if target.is_absolute():
                node, walked = root, [root]
            parts = [os.fsencode(p) for p in target.parts if p != "/"] + parts
            continue
        if child is None or not stat.S_ISDIR(child.mode):
            child = node.children[name] = _directory()
        node = child
        walked.append(node)
    return node


def default_shares() -> tuple[Path, ...]:
    """What every guest sees besides the system's directories: this Python and this package."""
    package = Path(__file__).resolve().parents[1]
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), package}
    executable = Path(sys.executable).resolve()
    prefixes.add(executable.parents[1])
    return tuple(sorted(prefixes))


def is_shown(path: Path, shares: Iterable[Path] = ()) -> bool:
    """Whether guests see this file of this machine, with these shares: both it and what it is a link to."""
    shares = tuple(shares)
    return all(
        not any(place.is_relative_to(os.fsdecode(hidden)) for hidden in HIDDEN)
        or any(place.is_relative_to(share) for share in shares)
        for place in (path, path.resolve())
    )


def _foreign_packages() -> frozenset[bytes]:
    """The base interpreter's installed packages, which a virtual environment does not import."""
    if sys.prefix == sys.base_prefix:
        return frozenset()
    base = Path(sys.base_prefix) / "lib" / f"python3.{sys.version_info.minor}"
    return frozenset(os.fsencode(base / name) for name in ("site-packages", "test"))


def scan(shares: Iterable[Path], grafts: Iterable[Graft] = (), *, root: Path = Path("/")) -> ImageNode:
    """The tree that a guest sees: this machine's system directories, the shares, and the grafts.

    `shares` are directories and files that appear under their own path; `grafts` are directories under
    another one.
    """
    top = _directory()
    _fill(top, os.fsencode(root), HIDDEN)
    for path in EMPTY:
        _reach(top, path)
    _reach(top, "/tmp").mode = stat.S_IFDIR | 0o1777
    walked: list[Path] = []
    for share in sorted(Path(os.path.abspath(s)) for s in shares):
        if share.is_file():
            node = _node(os.fsencode(share), share.lstat())
            if node is not None:
                _reach(top, str(share.parent)).children[os.fsencode(share.name)] = node
            continue
        place = _reach(top, str(share))
        # a parent sorts before what lies below it, and has brought it already
        if share.is_dir() and not any(share.is_relative_to(done) for done in walked):
            _fill(place, os.fsencode(share), _foreign_packages())
            walked.append(share)
    for graft in grafts:
        place = _reach(top, graft.guest)
        place.children.clear()
        _fill(place, os.fsencode(graft.host), frozenset())
    return top
