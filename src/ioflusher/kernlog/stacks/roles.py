"""What each kernel function does in a stack: the table's types and how a frame finds its row.

The rows stand in functions.txt and functions_io.txt beside this file; the code that walks stacks
knows roles only, so a kernel engineer adds a line there and reads nothing else.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.kernlog.frames import plain_name

TABLES = ("functions.txt", "functions_io.txt")


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
        pattern: a symbol, or a prefix with `*` at its end.
        role: what such a function does in a stack.
        part: the subsystem, named as its module is; None where it belongs to none in particular.
        kernels: versions that have the function, such as "5.16-"; None where not known.
        reason: what the function does, in a few words.
    """

    pattern: str
    role: Role
    part: str | None
    kernels: str | None
    reason: str


def parse_table(text: str, name: str) -> tuple[RoleRow, ...]:
    """The rows of a table's text; `name` is what messages call it.

    Raises:
        RoleTableError: a line lacks a column or names an unknown role.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split(None, 4)
        if len(columns) != 5:
            raise RoleTableError(f"{name}:{number}: expected 5 columns, found {len(columns)}")
        pattern, role, part, kernels, reason = columns
        try:
            known = Role(role)
        except ValueError:
            raise RoleTableError(f"{name}:{number}: expected a role of Role, found {role!r}") from None
        rows.append(RoleRow(pattern, known, _unless_dash(part), _unless_dash(kernels), reason))
    return tuple(rows)


def _unless_dash(column: str) -> str | None:
    return None if column == "-" else column


@lru_cache(maxsize=1)
def all_rows() -> tuple[RoleRow, ...]:
    """Every row of the package's own tables, in their order."""
    texts = ((name, Path(__file__).with_name(name).read_text("utf-8")) for name in TABLES)
    return tuple(row for name, text in texts for row in parse_table(text, name))


@lru_cache(maxsize=1)
def _index() -> dict[str, RoleRow]:
    return {row.pattern: row for row in all_rows()}


@lru_cache(maxsize=65536)
def role_of(function: str) -> RoleRow | None:
    """The row that fits a function, or None where no row does.

    Compiler suffixes are ignored. A whole name wins over a prefix, a longer prefix over a shorter one.
    """
    index = _index()
    name = plain_name(function)
    row = index.get(name)
    end = len(name)
    while row is None and end > 0:
        row = index.get(name[:end] + "*")
        end -= 1
    return row
