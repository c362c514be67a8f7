"""A look at the whole machine, in a process of its own that ends: the guard itself stays small.

    python -m ioflusher.rescue.guard.scout [FILE]...

prints the served devices, and which of the files lie on one of them, as JSON.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.other_server import OtherServer
from ioflusher.rescue.served import FuseMount, ServedDevice, ServingDaemon, served_devices

_WORDS = ("clients", "missing", "kernel_targets", "mounts", "swaps")


@dataclass(frozen=True, slots=True)
class Scouted:
    """What a scout saw.

    Attributes:
        devices: those that processes serve.
        on_served: of the files that it was asked about those that lie on a served device, with that.
    """

    devices: tuple[ServedDevice, ...]
    on_served: tuple[tuple[str, str], ...]


def load_scouted(text: str | bytes) -> Scouted:
    """What the program printed.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    record = json.loads(text)
    return Scouted(
        tuple(_device(fields) for fields in record["devices"]),
        tuple((file, device) for file, device in record["on_served"]),
    )


def _device(fields: dict[str, Any]) -> ServedDevice:
    return ServedDevice(
        **{
            **fields,
            "kind": DeviceKind(fields["kind"]),
            "daemons": tuple(ServingDaemon(**daemon) for daemon in fields["daemons"]),
            "fuse": tuple(FuseMount(**mount) for mount in fields["fuse"]),
            "other_server": OtherServer(**fields["other_server"]) if fields["other_server"] else None,
            **{name: tuple(fields[name]) for name in _WORDS},
        }
    )


def dump_scouted(scouted: Scouted) -> str:
    """As JSON, for `load_scouted`."""
    devices = [{**asdict(device), "kind": device.kind.value} for device in scouted.devices]
    return json.dumps({"devices": devices, "on_served": scouted.on_served})


def scout(files: tuple[str, ...]) -> Scouted:
    """Look at this machine."""
    from ioflusher.machine.collect.machine import collect_serving
    from ioflusher.machine.graph.analysis import Analysis
    from ioflusher.machine.graph.layers import device_layer

    collected = collect_serving(listeners=True)
    analysis = Analysis(collected.snapshot, collected.services)
    devices = served_devices(analysis)
    on_served = []
    for file in files:
        layer = analysis.layers.of_path(os.path.realpath(file))
        below = analysis.layers.below(layer) if layer is not None else frozenset()
        on_served += [(file, device.name) for device in devices if device_layer(device.name) in below]
    return Scouted(devices, tuple(on_served))


def main() -> None:
    """The program: an ordinary process, whatever its parent is."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    print(dump_scouted(scout(tuple(sys.argv[1:]))))


if __name__ == "__main__":
    main()
