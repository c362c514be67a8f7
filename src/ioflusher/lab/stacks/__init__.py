"""The stacks: ways from a block device of the guest to a daemon in user space that serves it.

A stack is one file of this package with a class that implements `ioflusher.lab.stacks.base.Stack`, one row
here, and one in `ioflusher.scenario.stacks` that says what has to be known before anything boots.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ioflusher.lab.stacks.base import Stack

# "module:class" below this package, by `device.kind`
_IMPLEMENTATIONS = {
    "nbd": "nbd:NbdStack",
    "nbd-tcp": "nbd:NbdTcpStack",
    "nbd-device": "nbd:NbdDeviceStack",
    "fuse": "fuse:FuseStack",
    "stacked": "stacked:StackedStack",
    "ublk": "ublk:UblkStack",
    "tcmu": "tcmu:TcmuStack",
    "iscsi": "iscsi:IscsiStack",
    "iscsid": "iscsid:IscsidStack",
    "multipath": "multipath:MultipathStack",
    "nfs": "nfs:NfsStack",
}


def load_stack(kind: str) -> "type[Stack]":
    """The class that plays a kind of stack, loaded when it is needed: a guest needs one of them."""
    module, _, name = _IMPLEMENTATIONS[kind].partition(":")
    found: type[Stack] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return found
