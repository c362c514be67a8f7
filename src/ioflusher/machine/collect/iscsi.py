"""iSCSI sessions of this machine's initiators, from /sys/class (drivers/scsi/scsi_transport_iscsi.c)."""

from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.endpoints import IscsiSession
from ioflusher.machine.storage import BlockDevice

SESSIONS = "sys/class/iscsi_session"
CONNECTIONS = "sys/class/iscsi_connection"


def collect_iscsi(tree: Tree, devices: tuple[BlockDevice, ...]) -> tuple[IscsiSession, ...]:
    """The sessions, each with the block devices that it brings; `devices`: all of the machine."""
    behind: dict[str, list[str]] = {}
    for device in devices:
        for part in device.path.split("/"):
            if part.startswith("session") and part[7:].isdigit():
                behind.setdefault(part, []).append(device.name)
                break
    addresses: dict[str, list[str]] = {}
    for name in tree.names(CONNECTIONS):
        session = "session" + name.removeprefix("connection").partition(":")[0]
        addresses.setdefault(session, []).append(_address(tree, f"{CONNECTIONS}/{name}"))
    return tuple(
        IscsiSession(
            name=name,
            target=tree.text(f"{SESSIONS}/{name}/targetname") or "",
            state=tree.text(f"{SESSIONS}/{name}/state") or "",
            addresses=tuple(address for address in addresses.get(name, ()) if address),
            devices=tuple(behind.get(name, ())),
        )
        for name in tree.names(SESSIONS)
    )


def _address(tree: Tree, base: str) -> str:
    """Where the connection leads: what it is connected to now, else what it was set up to connect to."""
    for prefix in ("", "persistent_"):
        host = tree.text(f"{base}/{prefix}address")
        port = tree.text(f"{base}/{prefix}port")
        if host and port and host != "(null)":
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""
