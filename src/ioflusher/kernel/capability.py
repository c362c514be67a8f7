"""Capabilities: numbers of include/uapi/linux/capability.h, and the sets of a thread."""

from dataclasses import dataclass

CAP_IPC_LOCK = 14
CAP_SYS_PTRACE = 19
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five capability sets of a thread, each a bit mask (bit n is capability number n).

    The kernel asks the effective one; the ambient one is there since 4.3.
    """

    inheritable: int = 0
    permitted: int = 0
    effective: int = 0
    bounding: int = 0
    ambient: int = 0

    def has(self, capability: int) -> bool:
        """Whether the kernel grants what the capability allows: it is in the effective set."""
        return bool(self.effective >> capability & 1)

    def missing(self, capability: int) -> tuple[str, ...]:
        """Those of the effective, permitted and bounding sets that lack the capability, by name."""
        sets = (("effective", self.effective), ("permitted", self.permitted), ("bounding", self.bounding))
        return tuple(name for name, mask in sets if not mask >> capability & 1)
