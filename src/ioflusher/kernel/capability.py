"""Capabilities of a thread: numbers of include/uapi/linux/capability.h and the sets of /proc/PID/status."""

import re
from dataclasses import dataclass

CAP_IPC_LOCK = 14
CAP_SYS_PTRACE = 19
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24

# Lines of /proc/PID/status, fs/proc/array.c task_cap(); CapAmb since 4.3.
_LINE = re.compile(rb"^Cap(Inh|Prm|Eff|Bnd|Amb):\s*(\S*)", re.MULTILINE)
_SETS = {
    b"Inh": "inheritable",
    b"Prm": "permitted",
    b"Eff": "effective",
    b"Bnd": "bounding",
    b"Amb": "ambient",
}


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five capability sets of a thread, each a bit mask (bit n is capability number n)."""

    inheritable: int = 0
    permitted: int = 0
    effective: int = 0
    bounding: int = 0
    ambient: int = 0

    def missing(self, capability: int) -> tuple[str, ...]:
        """Those of the effective, permitted and bounding sets that lack the capability, by name."""
        sets = (("effective", self.effective), ("permitted", self.permitted), ("bounding", self.bounding))
        return tuple(name for name, mask in sets if not mask >> capability & 1)


def parse_capabilities(status: bytes) -> CapabilitySets:
    """The capability sets in the text of /proc/PID/status; a set that the text lacks is empty.

    Raises:
        ValueError: where a set is not a hexadecimal number.
    """
    return CapabilitySets(**{_SETS[name]: int(value, 16) for name, value in _LINE.findall(status)})
