"""The rule on what the audit could not judge."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.dirty_limits import dirty_limit_known, share_of
from ioflusher.audit.rules.io_flusher_state import parse_release
from ioflusher.audit.rules.reserve import served_disks
from ioflusher.audit.rules.rule import MOST_NAMED, Found, more
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, View
from ioflusher.support.text import counted


def _unknown_of(daemon: AuditedDaemon) -> list[Evidence]:
    process = daemon.process
    files = (
        ("capability sets", "status", process.capabilities),
        ("locked memory", "status VmLck", process.locked_kib),
        ("resident memory", "status VmRSS", process.resident_kib),
        ("swapped-out memory", "status VmSwap", process.swapped_kib),
        ("OOM score", "oom_score_adj", process.oom_score_adj),
        ("control groups", "cgroup", process.cgroups),
        ("open and mapped files", "fd and maps", process.files),
    )
    return [
        Evidence(f"/proc/{process.pid}/{source}", f"{what}: unknown")
        for what, source, value in files
        if value is None
    ]


def _unknown_of_machine(view: View) -> list[Evidence]:
    memory, system = view.snapshot.memory, view.snapshot.system
    facts = (
        ("uname -r", "no release that begins with two numbers", parse_release(system.release)),
        ("/proc/sys/vm/min_free_kbytes", "unknown", memory.min_free_kib),
        ("/proc/meminfo MemTotal", "unknown", memory.total_kib),
        ("/proc/meminfo MemAvailable", "unknown", memory.available_kib),
        ("/proc/sys/vm/dirty_bytes and dirty_ratio", "unknown", dirty_limit_known(memory) or None),
        *(
            (f"/sys/block/{device.name}/queue", "length unknown", device.queue.nr_requests)
            for device in served_disks(view)
        ),
        *(
            (f"/sys/block/{device.name}/bdi", "share of the dirty limit unknown", share_of(device, 1))
            for device in served_disks(view)
        ),
    )
    return [Evidence(source, said) for source, said, value in facts if value is None]


def unreadable(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """What the audit could not judge, because nobody could read it."""
    as_root = Remedy(
        "Look again as root with all capabilities (CAP_SYS_PTRACE above all), outside of containers.",
        commands=("sudo ioflusher audit",),
    )
    for daemon in view.daemons:
        missing = [
            *(
                Evidence(entry.what, entry.why)
                for entry in view.snapshot.unreadable
                if entry.pid == daemon.process.pid
            ),
            *_unknown_of(daemon),
        ]
        if missing:
            yield Found(
                Severity.WARNING if daemon.stake >= Stake.UNUSED else Severity.NOTE,
                daemon.subject,
                f"{daemon.serves}: {counted(len(missing), 'fact')} about it could not be read",
                (*missing[:MOST_NAMED], *more(len(missing) - MOST_NAMED, "fact")),
                as_root,
            )
    yield from _of_machine(view, as_root)


def _of_machine(view: View, remedy: Remedy) -> Iterator[Found]:
    """What belongs to no daemon: of the machine, and of processes that may be daemons."""
    daemons = {daemon.process.pid for daemon in view.daemons}
    machine = [entry for entry in view.snapshot.unreadable if entry.pid is None]
    others = [entry for entry in view.snapshot.unreadable if entry.pid not in daemons | {None}]
    privileged = view.snapshot.system.privileged
    unknown = _unknown_of_machine(view) if daemons else []
    # a privileged collector misses of other processes only those that ended meanwhile
    shown = [Evidence(entry.what, entry.why) for entry in machine + ([] if privileged else others)] + unknown
    if not shown and privileged:
        return
    without = "" if privileged else "; processes may serve something without being seen"
    yield Found(
        Severity.NOTE if privileged else Severity.WARNING,
        view.machine,
        f"{counted(len(shown), 'fact')} could not be read{without}",
        (
            *([] if privileged else [Evidence("the snapshot", "taken without all rights of root")]),
            *shown[:MOST_NAMED],
            *more(len(shown) - MOST_NAMED, "fact"),
        ),
        remedy,
    )
