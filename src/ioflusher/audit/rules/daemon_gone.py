"""The rule on devices and mounts whose daemon is gone."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.rule import Found, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import Target, View
from ioflusher.machine.serving.service import StorageRole, TargetKind

_RESTART = {
    StorageRole.ISCSI_INITIATOR: "systemctl restart iscsid",
    StorageRole.ISCSI_TARGET: "systemctl restart tgt",
    StorageRole.MULTIPATH: "systemctl restart multipathd",
    StorageRole.TCMU_HANDLER: "systemctl restart tcmu-runner",
}


def daemon_gone(view: View, thresholds: Thresholds) -> Iterator[Found]:
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
    if role in (StorageRole.NBD_CLIENT, StorageRole.NBD_SERVER):
        return Remedy(
            "Start the server again, if its client connects by itself. Else take the device down: what waits "
            "for it then gets an error instead of waiting for ever.",
            commands=(f"ioflusher nbd detach {quoted(name)}",),
        )
    if role is StorageRole.UBLK_SERVER:
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
