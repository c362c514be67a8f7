"""Processes that the mount of /proc hides from this program."""

from ioflusher.kernel.capability import CAP_SYS_PTRACE
from ioflusher.kernel.mountinfo import parse_mount
from ioflusher.kernel.status import parse_status
from ioflusher.machine.collect.proc_files import read_small, read_text
from ioflusher.machine.collect.unreadable_notes import Notes

_MOUNTINFO_BYTES = 1 << 22


def note_hidden(proc: str, notes: Notes) -> None:
    """Note where the option hidepid of `proc` leaves out processes of other users, as it does for most.

    Documentation/filesystems/proc.rst: 1 (noaccess), 2 (invisible) and 4 (ptraceable) hide something.
    """
    try:
        status = read_small(f"{proc}/self/status")
        text = read_text(f"{proc}/self/mountinfo", _MOUNTINFO_BYTES)
    except OSError:
        return  # a recorded tree: who recorded it saw what is there
    try:
        if parse_status(status).capabilities.has(CAP_SYS_PTRACE):
            return
        lines = [line for line in text.split(b"\n") if b" - proc " in line]
        hides = [option for line in lines for option in _options(line, proc)]
    except ValueError as error:
        notes(f"{proc}/self/mountinfo", str(error))
        return
    for option in hides:
        value = option.partition(b"=")[2].decode("ascii", "replace")
        if value not in ("0", "off"):
            notes("processes of other users", f"{proc} is mounted with hidepid={value}; root sees all")


def _options(line: bytes, proc: str) -> list[bytes]:
    mount = parse_mount(line)
    if mount.fstype != b"proc" or mount.point != proc.encode():
        return []
    return [option for option in mount.super_options if option.startswith(b"hidepid=")]
