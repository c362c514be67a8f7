"""Rules on the services themselves: a daemon that is gone, and what could not be read."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.limits import Limits
from ioflusher.audit.rules.common import MOST_NAMED, Found, counted, more, quoted
from ioflusher.audit.rules.limits import served_disks
from ioflusher.audit.rules.state import parse_release
from ioflusher.audit.view import Daemon, Stake, Target, View
from ioflusher.machine.serving.service import Role, TargetKind

_RESTART = {
    Role.ISCSI_INITIATOR: "systemctl restart iscsid",
    Role.ISCSI_TARGET: "systemctl restart tgt",
    Role.MULTIPATH: "systemctl restart multipathd",
    Role.TCMU_HANDLER: "systemctl restart tcmu-runner",
}


def daemon_gone(view: View, limits: Limits) -> Iterator[Found]:
    """Targets whose daemon is known to be needed and runs no more."""
    for target in view.targets:
        service = target.service
        if service.kernel or (service.pid is not None and view.runs(service.pid)):
            continue
        seen = "no process is known" if service.pid is None else f"process {service.pid} does not run"
        blind = not view.snapshot.system.privileged and service.pid is None
        yield Found(
            Severity.NOTE if blind else Severity.ERROR.lowered(target.steps),
            Subject(SubjectKind.DEVICE, target.name),
            f"the {service.role.value} of {target.name} is missing: {seen}"
            + (", but not everything could be read" if blind else ""),
            (Evidence(f"{service.role.value} of {target.name}", service.evidence),),
            _bring_back(target),
        )


def _bring_back(target: Target) -> Remedy:
    role, name = target.service.role, target.name
    if role in (Role.NBD_CLIENT, Role.NBD_SERVER):
        return Remedy(
            "Start the server again, if its client connects by itself. Else take the device down: what waits "
            "for it then gets an error instead of waiting for ever.",
            commands=(f"ioflusher nbd detach {quoted(name)}",),
        )
    if role is Role.UBLK_SERVER:
        number = target.service.target.removeprefix("ublkb")
        return Remedy(
            "Let a new server take the device over, where it was made for that; else delete it.",
            commands=(f"ublk recover -n {quoted(number)}",),
        )
    if target.service.kind is TargetKind.MOUNT:
        return Remedy(
            "Unmount it, and mount it again with its daemon.", commands=(f"umount --lazy {quoted(name)}",)
        )
    command = _RESTART.get(role)
    return Remedy(
        "Start its daemon again.",
        commands=(command,) if command else (),
        unit=("Restart=on-failure",),
    )


def _unknown_of(daemon: Daemon) -> list[Evidence]:
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
        ("/proc/sys/vm/dirty_bytes and dirty_ratio", "unknown", memory.dirty_bytes or memory.dirty_ratio),
        *(
            (f"/sys/block/{device.name}/queue", "length unknown", device.queue.nr_requests)
            for device in served_disks(view)
        ),
    )
    return [Evidence(source, said) for source, said, value in facts if value is None]


def unreadable(view: View, limits: Limits) -> Iterator[Found]:
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
