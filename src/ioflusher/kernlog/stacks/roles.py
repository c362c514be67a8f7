"""What each kernel function does in a stack: the table's types and how a frame finds its row.

The rows stand in the four tables beside this file that `TABLES` names; the code that
walks stacks knows roles and tags only, so a kernel engineer adds a line there and reads nothing else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import chain
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.kernlog.reading.frames import plain_name
from ioflusher.kernlog.stacks.things import Tag, Thing, Verb, parse_tag

TABLES = ("functions.txt", "functions_io.txt", "functions_held.txt", "functions_unnamed.txt")
WORD_TABLE = "words.txt"


class Role(Enum):
    """The part that a kernel function plays in a stack."""

    SYSCALL = "syscall"  # the way in from user space
    PAGE_FAULT = "page-fault"  # the way in by touching memory
    WORKER = "worker"  # a kernel thread's first frames
    ALLOCATION = "allocation"  # asks for memory
    PLAIN_PATH = "plain-path"  # reads, writes, looks up: holds nothing that a file system's reclaim needs
    DIRECT_RECLAIM = "direct-reclaim"  # the allocation begins to reclaim, in its own thread
    KSWAPD = "kswapd"  # the kernel's reclaim thread
    FORCED_RECLAIM = "forced-reclaim"  # reclaim that somebody asked for, such as drop_caches
    RECLAIM = "reclaim"  # pages are looked for and freed
    SHRINKER = "shrinker"  # kernel objects are freed by their owners
    RECLAIM_QUEUE = "reclaim-queue"  # reclaimers queue here, one behind another
    SHRINKER_LOCK = "shrinker-lock"  # waits for shrinkers that run
    RECLAIM_THROTTLE = "reclaim-throttle"  # reclaim sleeps on purpose
    HIGH_THROTTLE = "high-throttle"  # a task over its memory cgroup's memory.high sleeps
    DIRTY_THROTTLE = "dirty-throttle"  # a writer sleeps until fewer pages are dirty
    DIRECT_COMPACTION = "direct-compaction"  # an allocation moves pages itself, to make a larger run
    COMPACTION = "compaction"
    OOM = "oom"
    OOM_WAIT = "oom-wait"  # waits until somebody has been killed
    PAGE_OUT = "page-out"  # reclaim writes a page
    SWAP_OUT = "swap-out"
    SWAP_IN = "swap-in"
    WRITEBACK = "writeback"  # the flusher
    WRITEBACK_WAIT = "writeback-wait"  # waits for a page under writeback
    PAGE_WAIT = "page-wait"  # waits for one of a page's bits: the caller tells which
    IO_WAIT = "io-wait"
    MEMPOOL_WAIT = "mempool-wait"  # waits for reserved memory that finished I/O gives back
    TAG_WAIT = "tag-wait"  # waits for a free request of a device
    BLOCK = "block"
    FILE_SYSTEM = "file-system"
    FS_WAIT = "fs-wait"  # a file system waits for its own progress: journal, transaction, cluster lock
    FREEZE_WAIT = "freeze-wait"  # waits until a frozen file system is thawed
    USER_FS = "user-fs"  # a file system that a user-space daemon answers
    USER_FS_DAEMON = "user-fs-daemon"  # that daemon's side
    NETWORK_FS = "network-fs"
    NFS_SERVER = "nfs-server"
    NETWORK = "network"
    DRIVER = "driver"  # a driver that is no storage, such as graphics
    LOCK = "lock"
    SPIN = "spin"
    PAGE_LOCK = "page-lock"
    INODE_WAIT = "inode-wait"
    COMPLETION = "completion"
    WORK_WAIT = "work-wait"
    THREAD_WAIT = "thread-wait"  # waits until kthreadd has made a kernel thread
    RCU_WAIT = "rcu-wait"
    WAIT_BIT = "wait-bit"
    SCHEDULE = "schedule"
    PREEMPTED = "preempted"
    IDLE = "idle"


class RoleTableError(IoflusherError):
    """A line of the table of functions is not what its head describes."""


@dataclass(frozen=True, slots=True)
class RoleRow:
    """One line of the table.

    Attributes:
        pattern: a symbol, a prefix with `*` at its end, or an ending with `*` before it, which belongs to no
            subsystem.
        role: what such a function does in a stack; None where the row only has tags, which are then added to
            those of the row with a role.
        part: the subsystem, named as its module is; None where it belongs to none in particular.
        kernels: versions that have the function, such as "5.16-"; None where not known.
        reason: what the function does, in a few words.
        tags: what it waits for, holds and brings about.
    """

    pattern: str
    role: Role | None
    part: str | None
    kernels: str | None
    reason: str
    tags: tuple[Tag, ...] = ()


def parse_table(text: str, name: str) -> tuple[RoleRow, ...]:
    """The rows of a table's text; `name` is what messages call it.

    Raises:
        RoleTableError: a line lacks a column or names an unknown role or tag.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split(None, 4)
        if len(columns) != 5:
            raise RoleTableError(f"{name}:{number}: expected 5 columns, found {len(columns)}")
        pattern, deeds, part, kernels, reason = columns
        try:
            known, row_tags = _parse_deeds(deeds)
        except ValueError:
            raise RoleTableError(
                f"{name}:{number}: expected a role of Role and tags like holds:page, found {deeds!r}"
            ) from None
        if known is None and not row_tags:
            raise RoleTableError(f"{name}:{number}: expected a role or a tag, found neither")
        rows.append(RoleRow(pattern, known, _unless_dash(part), _unless_dash(kernels), reason, row_tags))
    return tuple(rows)


@lru_cache(maxsize=1024)  # a thousand rows have a hundred of them
def _parse_deeds(deeds: str) -> tuple[Role | None, tuple[Tag, ...]]:
    role, *tags = deeds.split(",")
    return None if role == "-" else Role(role), tuple(parse_tag(tag) for tag in tags)


def _unless_dash(column: str) -> str | None:
    return None if column == "-" else column


@lru_cache(maxsize=1)
def all_rows() -> tuple[RoleRow, ...]:
    """Every row of the package's own tables, in their order."""
    texts = ((name, Path(__file__).with_name(name).read_text("utf-8")) for name in TABLES)
    return tuple(row for name, text in texts for row in parse_table(text, name))


@lru_cache(maxsize=1)
def _index() -> tuple[dict[str, RoleRow], dict[str, RoleRow]]:
    """The rows with a role and those with tags alone, by pattern."""
    rows = all_rows()
    return {r.pattern: r for r in rows if r.role}, {r.pattern: r for r in rows if r.role is None}


@lru_cache(maxsize=65536)
def role_of(function: str) -> RoleRow | None:
    """The row that fits a function, or None where no row does.

    Compiler suffixes are ignored. A whole name wins over a prefix, a longer prefix over a shorter one, and
    any of them over an ending, which tells what a function is for in whatever subsystem its name begins with.
    """
    name = plain_name(function)
    rows = _index()[0]
    ends = _endings(rows, name) if named_after(function) else ()
    return next(chain(_fitting(rows, name), ends), None)


@lru_cache(maxsize=65536)
def tagged_rows(function: str) -> tuple[RoleRow, ...]:
    """The rows whose tags hold for a function: its own, and every row of tags alone that fits."""
    name = plain_name(function)
    own = role_of(function)
    tags_alone = _index()[1]
    rows = (*_fitting(tags_alone, name), *_endings(tags_alone, name))
    return (*((own,) if own and own.tags else ()), *rows)


# "__frob_", and of z_erofs_ what stands behind the letter
_PREFIX = re.compile(r"^_*(?:[a-z]_+)?")


@lru_cache(maxsize=1)
def general_words() -> frozenset[str]:
    """The first words of functions that stand for no subsystem."""
    lines = Path(__file__).with_name(WORD_TABLE).read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@lru_cache(maxsize=65536)
def named_after(function: str) -> str | None:
    """The subsystem that a function's name begins with: "frob" of frob_evict_inode(); None for none."""
    word, underscore, _ = _PREFIX.sub("", plain_name(function)).partition("_")
    return word if underscore and len(word) > 1 and word not in general_words() else None


def does(function: str, verb: Verb, thing: Thing) -> bool:
    """Whether the tables say that a function waits for, takes, holds, frees or completes a thing."""
    return any(tag.verb is verb and tag.thing is thing for row in tagged_rows(function) for tag in row.tags)


def _endings(index: dict[str, RoleRow], name: str) -> Iterator[RoleRow]:
    """The rows for ever shorter ends of a name."""
    found = (index.get("*" + name[i:]) for i in range(len(name)))
    return (row for row in found if row)


def _fitting(index: dict[str, RoleRow], name: str) -> Iterator[RoleRow]:
    """The rows for a whole name, then for ever shorter beginnings of it."""
    if name in index:
        yield index[name]
    for end in range(len(name), 0, -1):
        if (row := index.get(name[:end] + "*")) is not None:
            yield row
