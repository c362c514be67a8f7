"""The names of alone.toml: functions, programs, threads and modules, each where nothing else tells."""

import tomllib
from pathlib import Path

from tests.kernlog.stacks import DEFINED, frames, log

ALONE: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "alone.toml").read_text("utf-8"))
CASES = [
    (section, told, name)
    for section, rows in ALONE.items()
    for told, names in rows.items()
    for name in names.split()
]
_ASKS = DEFINED["SWAP"] + " __kmalloc "
_SENDS = DEFINED["SWAP"] + DEFINED["SEND"]
_CALL = " do_syscall_64 entry_SYSCALL_64_after_hwframe"
_WORKER = DEFINED["WORKER"]
# whose threads say in their stacks alone that they are Ceph's, ...
_OWN_MODULES = {
    "z_": "zfs",
    "sp": "zfs",
    "ar": "zfs",
    "ce": "libceph",
    "dl": "dlm",
    "hu": "usbcore",
    "kh": "usbcore",
}
_SLEEPS = "schedule io_schedule submit_bio"


def alone(section: str, name: str) -> bytes:
    """The log of a task in whose stack that name is the only one that tells."""
    match section:
        case "gives":
            return log("app", _ASKS + name + _CALL)
        case "waits" | "is":
            return log("app", f"{DEFINED['SLEEP']} {name}{_CALL}")
        case "locks":
            return log("app", f"{DEFINED['SLEEP']} mutex_lock {name}{_CALL}")
        case "worker":
            return log("kworker/0:1", _ASKS + name + _WORKER)
        case "program":
            return log(name, _SENDS + _CALL)
        case "thread":
            return log(name, _ASKS + "frob_run")
        case "cut":
            return log(name, f"{_ASKS}frob_run[{_OWN_MODULES[name[:2]]}]")
        case "work":
            return frames(f"{_ASKS}loop_queue_rq {name}")
        case "module":
            return log("kworker/0:1", f"{_ASKS}frob_run[{name}]{_WORKER}")
        case "begins":
            return frames(f"{_SLEEPS} {name} {_SLEEPS}")
        case "ends":
            stack = b"".join(
                b"[    1.000000]" + line + b"\n" for line in frames(f"{name} {_SLEEPS}").splitlines()
            )
            return b"\nand this is where the other one waits:\n".join((stack, stack))
        case "elsewhere":
            return log(name, _SLEEPS) + log("msgr-worker-1", _SENDS + _CALL)
    raise KeyError(section)
