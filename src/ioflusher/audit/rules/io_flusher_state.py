"""Rules on the IO_FLUSHER state: which threads carry it, and whether they could."""

import re
from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import (
    MOST_NAMED,
    Found,
    evidence_of_service,
    of_threads,
    unit_install,
)
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, View
from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_LOCAL_THROTTLE, PF_MEMALLOC_NOFS
from ioflusher.machine.serving.service import StorageRole
from ioflusher.support.text import counted

# prctl(PR_SET_IO_FLUSHER): commit 8d19f1c8e193, Linux 5.6
FIRST_RELEASE = (5, 6)


def _judged(view: View) -> Iterator[AuditedDaemon]:
    """The daemons to whom the state means something: pages may wait to be written to what they serve."""
    return (daemon for daemon in view.daemons if daemon.stake >= Stake.FUSE)


def _only_fuse(daemon: AuditedDaemon) -> bool:
    return all(target.service.role is StorageRole.FUSE_SERVER for target in daemon.targets)


def bits_of(thread: Thread, daemon: AuditedDaemon) -> int:
    """How many of the state's two bits count: 2 is whole.

    NOFS with LOCAL_THROTTLE is a state of its own, made for FUSE daemons: whole for these, half for others.
    """
    if thread.io_flusher:
        return 2
    fuse_state = PF_MEMALLOC_NOFS | PF_LOCAL_THROTTLE
    if thread.flags & fuse_state == fuse_state and _only_fuse(daemon):
        return 2
    return int(thread.half_set)


def _threads(daemon: AuditedDaemon, bits: int) -> tuple[Thread, ...]:
    return tuple(thread for thread in daemon.threads if bits_of(thread, daemon) == bits)


def lacks_capability(daemon: AuditedDaemon) -> bool:
    """Whether it is known that the kernel would refuse it the state."""
    sets = daemon.process.capabilities
    return sets is not None and not sets.has(CAP_SYS_RESOURCE)


def left_alone(daemon: AuditedDaemon) -> tuple[Thread, ...]:
    """The threads without the state that `ioflusher set` does not stop: it ends with status 1 for them.

    Those in ioctl(NBD_DO_IT), and the kernel's workers, which make no system call themselves.
    """
    return tuple(
        thread
        for thread in daemon.process.living
        if (thread.kernel_worker and not thread.io_flusher)
        or (thread.tid in daemon.in_nbd_do_it and bits_of(thread, daemon) != 2)
    )


def can_take_state(daemon: AuditedDaemon) -> bool:
    """Whether `ioflusher set` puts the state on all of it as it runs."""
    return daemon.worker and not lacks_capability(daemon) and not left_alone(daemon)


def _set_state(daemon: AuditedDaemon) -> Remedy:
    pid = daemon.process.pid
    if lacks_capability(daemon):
        return Remedy(
            "It lacks CAP_SYS_RESOURCE, so the state cannot be put on it as it runs (see cannot-set): start "
            "it anew under `ioflusher run`, a service by the drop-in.",
            lasting=(unit_install(daemon),),
        )
    if not can_take_state(daemon):
        return _start_anew(daemon)
    return Remedy(
        "Put the state on every thread that runs; then have the daemon started in it.",
        commands=(f"ioflusher set {pid}",),
        lasting=(unit_install(daemon),),
    )


def _start_anew(daemon: AuditedDaemon) -> Remedy:
    """For a daemon with threads that cannot be stopped to take the state."""
    pid, apart = daemon.process.pid, left_alone(daemon)
    why = "; ".join(
        f"thread {thread.tid} is a worker of the kernel (io_uring, vhost), which makes no system call"
        if thread.kernel_worker
        else f"thread {thread.tid} waits in ioctl(NBD_DO_IT): interrupted, the kernel disconnects the device"
        for thread in apart[:MOST_NAMED]
    )
    others = len([thread for thread in daemon.threads if thread not in apart])
    rest = ""
    if not daemon.worker:
        rest = " Only a client that connects again by itself (nbd-client -persist) needs it."
    elif others:
        rest = f" Until then `ioflusher set {pid}` covers {counted(others, 'thread')}, ending with status 1."
    return Remedy(
        "`ioflusher set` cannot put the state on all of it: "
        f"{why or 'its thread waits in ioctl(NBD_DO_IT)'}. Start the daemon anew under `ioflusher run -- "
        f"COMMAND`, a service by the drop-in.{rest}",
        lasting=(unit_install(daemon),),
    )


def uncovered(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons of which no thread carries the state."""
    for daemon in _judged(view):
        bare = _threads(daemon, 0)
        if bare and not _threads(daemon, 2):
            yield Found(
                daemon.severity(Severity.ERROR),
                daemon.subject,
                f"{daemon.serves}: none of {counted(len(daemon.threads), 'thread')} carries the state",
                (*of_threads(daemon, bare), *evidence_of_service(daemon)),
                _set_state(daemon),
            )


def partly_covered(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons of which some threads carry the state and others do not."""
    for daemon in _judged(view):
        bare, whole = _threads(daemon, 0), _threads(daemon, 2)
        if bare and whole:
            number = len(daemon.threads)
            # a thread in NBD_DO_IT does no I/O
            idle = all(thread.tid in daemon.in_nbd_do_it for thread in bare)
            yield Found(
                daemon.severity(Severity.NOTE if idle else Severity.ERROR),
                daemon.subject,
                f"{daemon.serves}: {len(bare)} of {counted(number, 'thread')} do not carry the state"
                + (", and only wait in ioctl(NBD_DO_IT)" if idle else ""),
                (*of_threads(daemon, bare), *evidence_of_service(daemon)),
                _set_state(daemon),
            )


def half_set(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Threads with one of the two bits."""
    for daemon in _judged(view):
        half = _threads(daemon, 1)
        if half:
            # the kernel itself sets NOIO for the time of some calls; LOCAL_THROTTLE it does not
            lasting = any(thread.flags & PF_IO_FLUSHER == PF_LOCAL_THROTTLE for thread in half)
            yield Found(
                daemon.severity(Severity.ERROR if lasting else Severity.WARNING),
                daemon.subject,
                f"{daemon.serves}: {counted(len(half), 'thread')} with one of the state's two bits",
                (*of_threads(daemon, half), *evidence_of_service(daemon)),
                _set_state(daemon),
            )


def worker_uncovered(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Workers of io_uring, in a covered daemon, that were born before its state was set."""
    for daemon in _judged(view):
        bare = tuple(thread for thread in daemon.process.living if thread.kernel_worker)
        bare = tuple(thread for thread in bare if not thread.io_flusher)
        if bare and daemon.process.covered:
            yield Found(
                Severity.NOTE,
                daemon.subject,
                f"{daemon.serves}: {counted(len(bare), 'worker')} of the kernel without the state",
                (*of_threads(daemon, bare), *evidence_of_service(daemon)),
                Remedy(
                    "Have the daemon started in the state, so that its first request already is made in it.",
                    lasting=(unit_install(daemon),),
                ),
            )


def cannot_set(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons without the state and without the capability to take it."""
    for daemon in _judged(view):
        sets = daemon.process.capabilities
        whole = all(bits_of(thread, daemon) == 2 for thread in daemon.threads)
        if sets is None or whole or not lacks_capability(daemon):
            continue
        masks = (("CapEff", sets.effective), ("CapPrm", sets.permitted), ("CapBnd", sets.bounding))
        missing = [name for name, mask in masks if not mask >> CAP_SYS_RESOURCE & 1]
        pid = daemon.process.pid
        yield Found(
            daemon.severity(Severity.WARNING),
            daemon.subject,
            f"{daemon.serves}: lacks CAP_SYS_RESOURCE in {', '.join(missing)}",
            (
                *(Evidence(f"/proc/{pid}/status {name}", f"{mask:016x}") for name, mask in masks),
                *evidence_of_service(daemon),
            ),
            Remedy(
                "Start it under `ioflusher run`, which takes the state while it has the capability and then "
                "gives it up; or give the daemon the capability, and have it make the call itself.",
                lasting=(unit_install(daemon),),
                unit=(
                    "AmbientCapabilities=CAP_SYS_RESOURCE",
                    *(("CapabilityBoundingSet=CAP_SYS_RESOURCE",) if "CapBnd" in missing else ()),
                ),
            ),
        )


def parse_release(release: str) -> tuple[int, int] | None:
    """Major and minor number of a kernel release, None where it does not begin with them."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", release)
    return (int(match[1]), int(match[2])) if match else None


def kernel_too_old(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """A kernel from before the call, on a machine with daemons."""
    version = parse_release(view.snapshot.system.release)
    daemons = tuple(_judged(view))
    if version is None or version >= FIRST_RELEASE or not daemons:
        return
    # distributions bring calls back to older kernels: where anybody carries the state, the call is there
    if any(thread.io_flusher for process in view.snapshot.processes for thread in process.threads):
        return
    yield Found(
        min((daemon.severity(Severity.ERROR) for daemon in daemons), key=lambda severity: -severity.rank),
        view.machine,
        f"Linux {view.snapshot.system.release} is older than 5.6 and serves "
        f"{counted(len(daemons), 'daemon')} in the I/O path",
        (Evidence("uname -r", view.snapshot.system.release),),
        Remedy(
            "Install a kernel of release 5.6 or later. Some distributions brought the call back to older "
            "ones: the command shows it, by status 0.",
            commands=("ioflusher run -- true",),
        ),
    )
