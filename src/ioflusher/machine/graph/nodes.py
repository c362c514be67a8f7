"""The storage graph's records: what waits for what on one machine, and in which cycles.

An edge runs from what waits to what it waits for: from a mount to its device, from a device to the daemon
that serves it, from a daemon to the files that it needs.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.machine.process import Process
from ioflusher.machine.serving.service import Candidate


class NodeKind(Enum):
    """What a node stands for."""

    SWAP = "swap area"
    MOUNT = "mount"
    FILE_SYSTEM = "file system"
    DEVICE = "block device"
    CANDIDATES = "one of several processes"  # of which one serves, and it is not known which
    PROCESS = "process"
    KERNEL_SERVER = "kernel server"
    REMOTE = "remote machine"
    SOCKET = "socket of many processes"
    RECLAIM = "memory reclaim"  # an allocation that makes room by writing out other pages
    SWAPPED = "swapped-out memory"  # pages that must be read back before they can be used
    UNKNOWN = "unknown"  # something is there, and the snapshot does not say what


class Reason(Enum):
    """Why one node waits for another."""

    MOUNT = "mount of"
    BIND = "mount of a part of"
    SWAP = "swap on"
    LIES_ON = "lies on"
    MEMBER = "has among its devices"
    PARTITION = "partition of"
    DM = "mapped to"
    RAID = "array member"
    BCACHE = "backing or cache device"
    SLAVE = "stands on"
    LOOP = "backing file"
    ZRAM = "backing device"
    UPPER = "upper or work directory"
    LOWER = "lower directory"
    SERVED = "served by"
    CANDIDATE = "may be"
    EXECUTABLE = "executable"
    LIBRARY = "library"
    MAPPED = "mapped file"
    LOG = "log"
    WRITTEN = "file open for writing"
    READ = "file open for reading"
    OPEN_DEVICE = "open device"
    PEER = "local peer"
    LOGGER = "logger or message bus"
    REMOTE = "remote server"
    RECLAIM = "memory reclaim"
    SWAPPED = "swapped-out memory"


class Need(Enum):
    """When the wait can come."""

    WORK = "at work"  # while it does its ordinary work
    RECOVERY = "in recovery"  # when a connection or path was lost
    START = "at start"  # only when it is started: no wait of a running program, and part of no cycle


@dataclass(frozen=True, slots=True)
class Node:
    """One thing that waits or is waited for.

    Attributes:
        id: unique in the graph: "swap:/dev/nbd0", "mount:29", "fs:43:0", "dev:nbd0", "pid:812",
            "kernel:...", "remote:10.0.0.1:3260", "reclaim", "swapped", "unknown:...".
        kind: what it stands for.
        name: as people call it: a path, a device's name, a process's; text of the machine.
        detail: more words: a type, a size, a role; text of the machine.
        number: "major:minor" of a device or file system.
        process: the process that it stands for.
        hypothetical: whether it is not there yet, and would be after a command (`prediction.predict`).
    """

    id: str
    kind: NodeKind
    name: str
    detail: str = ""
    number: str | None = None
    process: Process | None = None
    hypothetical: bool = False

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return None if self.process is None else self.process.pid


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` waits for `target`.

    Attributes:
        source, target: identifiers of nodes.
        reason: why.
        evidence: the fact that says so, in one sentence; text of the machine.
        need: when the wait can come.
        certain: False where it is one of several possibilities.
        candidate: of an edge from several candidates to one of them: its rank, and what speaks for it.
    """

    source: str
    target: str
    reason: Reason
    evidence: str
    need: Need = Need.WORK
    certain: bool = True
    candidate: Candidate | None = None

    @property
    def waits(self) -> bool:
        """Whether a running machine can wait here."""
        return self.need is not Need.START


@dataclass(frozen=True, slots=True)
class Cycle:
    """Nodes that can all wait for one another, a daemon and what it serves among them.

    Attributes:
        nodes: identifiers of all of them (a strongly connected component of the edges that wait), in the
            graph's order.
        witness: one way round, each edge's target the next one's source; it begins at what a daemon serves.
            Of the ways at work and certain, if there are any, the shortest.
        shortest: whether no shorter way round was left unlooked for; False in components of huge graphs.
        daemons: identifiers of the processes among them that serve another of them.
        hypothetical: whether it is not there yet, and would be after a command.
    """

    nodes: tuple[str, ...]
    witness: tuple[Edge, ...]
    shortest: bool
    daemons: tuple[str, ...]
    hypothetical: bool = False

    @property
    def recovery(self) -> bool:
        """Whether the way round is closed only when a connection or path was lost."""
        return any(edge.need is Need.RECOVERY for edge in self.witness)

    @property
    def certain(self) -> bool:
        """Whether each step of the way round is certain."""
        return all(edge.certain for edge in self.witness)


@dataclass(frozen=True, slots=True)
class Graph:
    """The storage graph of one machine.

    Attributes:
        nodes: swap and mounts first, then file systems, devices, daemons, and what they stand on.
        edges: at most one of a reason between two nodes.
        cycles: the largest first; no node is in two of them.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cycles: tuple[Cycle, ...] = ()
