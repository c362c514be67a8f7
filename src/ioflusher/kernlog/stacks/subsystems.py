"""Which subsystem a function or module belongs to: the rows of subsystems.txt."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ioflusher.kernlog.stacks.anatomy import Step
from ioflusher.kernlog.stacks.roles import named_after

SUBSYSTEM_TABLE = "subsystems.txt"


@dataclass(frozen=True, slots=True)
class Subsystem:
    """A line of the table.

    Attributes:
        module: as the kernel prints it, or a part of the tables of functions; `*` at the end is any rest.
        family: the name for all of the subsystem's modules, None where it names nobody.
        completes: whether the subsystem's kernel threads complete the I/O that others wait for.
    """

    module: str
    family: str | None
    completes: bool


@lru_cache(maxsize=1)
def known_subsystems() -> dict[str, Subsystem]:
    """The table, by module."""
    text = Path(__file__).with_name(SUBSYSTEM_TABLE).read_text("utf-8")
    lines = (line.split(None, 3) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    rows = (Subsystem(module, None if name == "-" else name, io == "io") for module, name, io, _ in lines)
    return {row.module: row for row in rows}


@lru_cache(maxsize=4096)
def family(part: str | None) -> str | None:
    """One name for all modules of a subsystem; None for none and for parts that everything passes through."""
    if part is None:
        return None
    table = known_subsystems()
    row = table.get(part) or next(
        (row for row in table.values() if row.module.endswith("*") and part.startswith(row.module[:-1])), None
    )
    return row.family if row else named_after(part) or part


@lru_cache(maxsize=1)
def completing_families() -> frozenset[str]:
    """The families whose kernel threads complete the I/O that others wait for."""
    return frozenset(row.family for row in known_subsystems().values() if row.completes and row.family)


def families(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The families of a run of steps, innermost first, each once."""
    found = (family(step.part) for step in steps)
    return tuple(dict.fromkeys(name for name in found if name))
