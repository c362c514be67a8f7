"""What the daemons do that scenarios use, thread by thread, for the model. A daemon is a row.

The row is found by the stack and by the program that `daemon.command` names. What a thread does between
taking a request and replying was read from the program's source or seen in the lab (`ioflusher lab profile`);
memory counts where it is as much as the request itself, which is what the model has units for.
"""

import re
from dataclasses import dataclass, replace

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.records import Scenario, ThreadTable


@dataclass(frozen=True, slots=True)
class DaemonRow:
    """A daemon.

    Attributes:
        program: its name in `daemon.command`; empty for ours, where a scenario has no command.
        kinds: the stacks that it serves.
        threads: its threads, in the order in which they are started.
        writeback_cache: whether a FUSE daemon asks for the kernel's write-back cache.
        count_option: of its command, says how many there are of the last of its threads.
        forks: whether another process than the first one serves; signals are sent to the first.
    """

    program: str
    kinds: tuple[str, ...]
    threads: tuple[ThreadTable, ...]
    writeback_cache: bool = False
    count_option: str = ""
    forks: bool = False


NBD = ("nbd", "nbd-tcp", "nbd-device", "stacked")


def _main(name: str) -> ThreadTable:
    """A first thread that waits for others and serves nothing."""
    return ThreadTable(name, takes="nothing")


# ours (ioflusher.lab.daemons) allocate their buffers beforehand
OUR_FUSE_DAEMON = DaemonRow(
    "", ("fuse",), (_main("fuse-main"), ThreadTable("fuse-daemon", ("store",), count=4))
)

DAEMONS: tuple[DaemonRow, ...] = (
    # ours: a thread for each connection
    DaemonRow("", NBD, (_main("nbd-main"), ThreadTable("nbd-daemon", ("store",)))),
    OUR_FUSE_DAEMON,
    DaemonRow("", ("ublk",), (_main("ublk-main"), ThreadTable("ublk-daemon", ("store",)))),
    # server/connections.c: DEFAULT_PARALLEL_REQUESTS, 16 threads a connection where --threads does not say
    # otherwise, each with a buffer that it keeps; the first one only waits for them
    DaemonRow(
        "nbdkit",
        NBD,
        (_main("nbdkit-main"), ThreadTable("nbdkit", ("allocate", "store"), count=16)),
        count_option="--threads",
    ),
    # nbd-server.c: a process for each client, whose pool takes requests off its first one: max_threads of
    # nbd-server(5), 4 by default
    DaemonRow(
        "nbd-server",
        NBD,
        (
            _main("nbd-server-main"),
            ThreadTable("nbd-server", ("allocate",)),
            ThreadTable("pool", ("store",), takes="nbd-server", count=4),
        ),
        forks=True,
    ),
    # nbd/server.c, util/thread-pool.c: the main loop receives, workers write; up to 64 are started where
    # requests wait (THREAD_POOL_MAX_THREADS_DEFAULT), here 4
    DaemonRow(
        "qemu-nbd",
        NBD,
        (
            ThreadTable("qemu-nbd", ("allocate",)),
            ThreadTable("worker", ("store",), takes="qemu-nbd", count=4),
        ),
    ),
    # libfuse, lib/fuse_loop_mt.c: FUSE_LOOP_MT_DEF_MAX_THREADS, up to 10 threads, each with a buffer that it
    # keeps; libfuse 3.10 has no such bound
    DaemonRow("bindfs", ("fuse",), (_main("bindfs-main"), ThreadTable("bindfs", ("store",), count=10))),
    # sshfs.c: data is copied into a message, which the server writes
    DaemonRow(
        "sshfs",
        ("fuse",),
        (
            _main("sshfs-main"),
            ThreadTable("sshfs", ("allocate", "send"), count=10),
            ThreadTable("sftp-server", ("store",), takes="sshfs"),
        ),
    ),
    # main.c: one thread, and the write-back cache unless it is told otherwise
    DaemonRow(
        "fuse-overlayfs", ("fuse",), (ThreadTable("fuse-overlayfs", ("store",)),), writeback_cache=True
    ),
    # usr/tgtd.c receives and replies, usr/bs.c has threads that write: nr_iothreads of a unit, 16 by default
    DaemonRow(
        "tgtd",
        ("iscsi",),
        (
            ThreadTable("tgtd", ("allocate",)),
            ThreadTable("tgtd-worker", ("store",), takes="tgtd", count=16),
        ),
        count_option="--nr_iothreads",
    ),
    # main.c, libtcmu-aio: a thread for each unit takes commands off the ring; for a file it also writes
    DaemonRow("tcmu-runner", ("tcmu",), (_main("tcmu-main"), ThreadTable("tcmu-runner", ("store",)))),
    # drivers/target/iscsi/iscsi_target.c: a kernel thread a connection receives, allocates and writes;
    # iscsid, which the command is, makes connections, with memory that is locked
    DaemonRow(
        "iscsid",
        ("iscsid",),
        (
            ThreadTable("iscsid", takes="events", state="own", locked=True),
            ThreadTable("iscsi_trx", ("allocate", "store"), state="never"),
        ),
    ),
    # ntirpc starts a thread where a request finds none, up to 200 (RPC_Ioq_ThrdMax), FSAL_VFS writes; a
    # request has up to 1 MiB, so that 8 are at work with the 8 MiB of dirty pages of our scenario
    DaemonRow(
        "ganesha.nfsd",
        ("nfs",),
        (_main("ganesha-main"), ThreadTable("ganesha.nfsd", ("allocate", "store"), count=8)),
    ),
    # multipathd/main.c: checkerloop() looks at the paths, with memory that is locked
    DaemonRow(
        "multipathd",
        ("multipath",),
        (_main("multipathd"), ThreadTable("checkerloop", takes="events", locked=True)),
    ),
)


def describe(scenario: Scenario) -> DaemonRow:
    """The daemon of a scenario: its own description, or the row of the program that it names.

    Raises:
        ScenarioError: the program has no row, and the scenario does not describe its threads.
    """
    kind, words = scenario.device.kind, " ".join(scenario.daemon.command)
    rows = [row for row in DAEMONS if kind in row.kinds]
    named = set(re.findall(r"[\w.+-]+", words))
    row = next((row for row in rows if (row.program in named) or not (row.program or words)), None)
    if scenario.daemon.thread:
        cached = row is not None and row.writeback_cache
        return DaemonRow(row.program if row else "", (kind,), scenario.daemon.thread, cached)
    if row is None:
        known = ", ".join(repr(each.program) for each in rows if each.program)
        found = scenario.daemon.command[0]
        raise ScenarioError(
            f"{scenario.name}: daemon.command: expected a daemon that is described for device.kind {kind!r} "
            f"({known or 'none is'}), found {found!r}",
            hint="describe its threads, each as [[daemon.thread]]",
        )
    return _counted(row, words)


def _counted(row: DaemonRow, words: str) -> DaemonRow:
    """The row with as many threads as the command asks for."""
    found = re.search(rf"{row.count_option}[= ](\d+)", words) if row.count_option else None
    if not found:
        return row
    *others, last = row.threads
    return replace(row, threads=(*others, replace(last, count=int(found[1]))))
