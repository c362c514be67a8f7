"""Rules on the limits of a daemon's memory control groups."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import Found, evidence_of_service, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, View
from ioflusher.machine.process import MemoryLimit


def _limited(view: View) -> Iterator[tuple[AuditedDaemon, MemoryLimit]]:
    for daemon in view.daemons:
        if daemon.stake >= Stake.UNUSED and daemon.worker:
            for group in daemon.process.cgroups or ():
                yield daemon, group


def _control_file(group: MemoryLimit, name: str) -> str:
    below = "/sys/fs/cgroup" if group.version == 2 else "/sys/fs/cgroup/memory"
    return f"{below}{group.path.rstrip('/')}/{name}"


def limit_file(group: MemoryLimit) -> str:
    """The file that holds the group's hard limit."""
    return _control_file(group, "memory.max" if group.version == 2 else "memory.limit_in_bytes")


def far_from(group: MemoryLimit, limit: int, thresholds: Thresholds) -> bool:
    """Whether it is known that no more than `used_percent` of a limit is used; of 0 bytes nothing is left."""
    return limit > 0 and group.current is not None and group.current * 100 <= limit * thresholds.used_percent


def memory_max(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons in a control group with a hard memory limit."""
    for daemon, group in _limited(view):
        if group.max is not None:
            name, free = ("memory.max", "max") if group.version == 2 else ("memory.limit_in_bytes", "-1")
            yield _in_group(daemon, group, group.max, name, free, "MemoryMax=infinity", thresholds)


def memory_high(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons in a control group that is slowed down above a mark. Version 1's soft limit slows nobody."""
    for daemon, group in _limited(view):
        if group.high is not None and group.version == 2:
            yield _in_group(
                daemon, group, group.high, "memory.high", "max", "MemoryHigh=infinity", thresholds
            )


def _in_group(
    daemon: AuditedDaemon,
    group: MemoryLimit,
    limit: int,
    name: str,
    free: str,
    setting: str,
    thresholds: Thresholds,
) -> Found:
    file = _control_file(group, name)
    usage = _control_file(group, "memory.current" if group.version == 2 else "memory.usage_in_bytes")
    used = "an unknown part" if group.current is None else f"{group.current} bytes"
    return Found(
        daemon.severity(Severity.NOTE if far_from(group, limit, thresholds) else Severity.WARNING),
        daemon.subject,
        f"{daemon.serves}: its control group {group.path} has {name} {limit} bytes, {used} of it used",
        (Evidence(file, str(limit)), Evidence(usage, used), *evidence_of_service(daemon)),
        Remedy(
            "Let the daemon run without a limit of memory, and limit the programs that use its device. The "
            "command changes the group as it runs; the setting belongs to the unit or slice of that name.",
            commands=(f"echo {free} > {quoted(file)}",),
            unit=(setting,),
        ),
    )
