"""The modelled kernel while it is put together: its version, its variables, and what lies where.

Each subsystem adds its variables and registers itself here, so that functions of one find the other as kernel
functions do: reclaim finds the swap device, balance_dirty_pages() finds the dirty pages of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ioflusher.kernel.task_flags import Version
from ioflusher.model.code import Code, Ways
from ioflusher.model.transitions import Expression, Level, Program, TransitionSystem, Variable, number

if TYPE_CHECKING:
    from ioflusher.model.block import BlockDriver
    from ioflusher.model.memcg import MemoryGroup
    from ioflusher.model.memory import MemoryZone
    from ioflusher.model.swap import SwapArea
    from ioflusher.model.writeback import DirtyDomain


class Shrinker(Protocol):
    """struct shrinker of a file system (super_block.s_shrink); it is asked with __GFP_FS alone."""

    def can_free(self) -> Expression:
        """Whether a scan comes to something."""

    def scan(self, code: Code, ways: Ways) -> None:
        """Write further ways of shrink_node()."""


@dataclass(slots=True)
class Linux:
    """A kernel with what is registered in it.

    Attributes:
        version: its first two numbers.
        unit_bytes: bytes of a unit of memory; a run takes SWAP_CLUSTER_MAX pages, an exploration far more.
        zone: the memory.
        domain: the dirty pages of all backing devices and their limits.
        devices: block devices, by name.
        swap: the swap area, if there is one.
        shrinkers: of caches that reclaim makes smaller.
        groups: memory control groups by their names.
        realtime: whether any task is a real-time task, which may use what lies below the min watermark.
        kills: whether there is an OOM killer.
        in_full: whether it is of full size; a small one leaves out what each device has written, which would
            make a state of its own of every order of steps.
        plugs: whether tasks plug what they submit (`ioflusher.model.plug`).
        flushes_at_sleep: whether a task that goes to sleep hands over what it has plugged, as all do.
        daemon_memory: what daemons hold. oom_score_adj: of the daemon.
    """

    version: Version
    unit_bytes: int
    zone: "MemoryZone" = field(init=False)
    domain: "DirtyDomain" = field(init=False)
    devices: "dict[str, BlockDriver]" = field(default_factory=dict)
    swap: "SwapArea | None" = None
    shrinkers: list[Shrinker] = field(default_factory=list)
    groups: "dict[str, MemoryGroup]" = field(default_factory=dict)
    realtime: bool = False
    kills: bool = False
    in_full: bool = False
    plugs: bool = False
    flushes_at_sleep: bool = True
    daemon_memory: Variable | None = None
    oom_score_adj: int = 0
    _variables: list[Variable] = field(default_factory=list)
    _programs: list[Program] = field(default_factory=list)

    def units(self, size: int) -> int:
        """Bytes as units of memory, rounded, at least one for anything."""
        return max(1, round(size / self.unit_bytes)) if size else 0

    def variable(
        self, name: str, initial: int, high: int, *, low: int = 0, what: str = "", unit: str = ""
    ) -> Variable:
        """A new variable of the system; see `ioflusher.model.transitions.Variable`."""
        made = Variable(name, initial, high, low=low, what=what, unit=unit)
        self._variables.append(made)
        return made

    def next_pid(self) -> int:
        """The number of the program that is added next."""
        return len(self._programs) + 1

    def add(
        self,
        code: Code,
        name: str,
        *,
        works: bool = False,
        alike: str = "",
        daemon: bool = False,
        hardware: bool = False,
    ) -> None:
        """Add a task with this program; see `ioflusher.model.transitions.Program`."""
        pid = self.next_pid()
        self._programs.append(
            code.program(name, pid, works=works, alike=alike, daemon=daemon, hardware=hardware)
        )

    def system(self, name: str, notes: tuple[str, ...] = ()) -> TransitionSystem:
        """All that was put together."""
        version = ".".join(map(str, self.version[:2]))
        in_flight = tuple((device.name, device.in_flight) for device in self.devices.values())
        return TransitionSystem(
            name,
            tuple(self._variables),
            tuple(self._programs),
            in_flight,
            self.unit_bytes,
            version,
            notes,
            tuple(self._levels()),
        )

    def _levels(self) -> Iterator[Level]:
        """Watermarks, and the limits of dirty memory where there can be any."""
        zone, domain = self.zone, self.domain
        for name, units in (("min", zone.wmark_min), ("low", zone.wmark_low), ("high", zone.wmark_high)):
            yield Level(name, number(units), "free memory", zone.free)
        if domain.backing:
            thresh, bg_thresh = domain.limits(self)
            for name, limit in (
                ("background", bg_thresh),
                ("free run", (thresh + bg_thresh) // 2),
                ("limit", thresh),
            ):
                yield Level(name, limit, "dirty memory, under writeback included", domain.dirty)
