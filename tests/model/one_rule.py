"""What tests of single rules of the model share: a kernel with a zone, and what a step says and changes."""

from ioflusher.kernel.task_flags import Version
from ioflusher.model.block import BIO_POOL_SIZE, SWAP_IN, BioPool, DiskDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.memory import make_zone
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import SCALAR_NAMES, Changes, Expression, Number, Step, number
from ioflusher.model.writeback import DirtyDomain, DirtyLimit

UNIT = 128 << 10
CLEAN, SWAP, NOTHING = "a clean page is freed", "into the swap cache", "nothing to reclaim"
CACHED = "a page of the swap cache is freed"


def value(of: Number, **variables: int) -> int:
    """An expression's value."""
    return int(eval(number(of).text, {**SCALAR_NAMES, **variables}))


def kernel(version: Version = (6, 12), *, min_free: int = 16, size: int = 400, clean: int = 100) -> Linux:
    """One with a zone of so many units."""
    linux = Linux(version, UNIT)
    make_zone(linux, size=size * UNIT, clean=clean * UNIT, min_free=min_free * UNIT)
    linux.domain = DirtyDomain(DirtyLimit(64, 0), DirtyLimit(32, 0))
    return linux


def bio_pool(linux: Linux) -> BioPool:
    """That of a kernel, full."""
    return BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))


def with_swap(linux: Linux, *, swappiness: int = 60, lru_gen: bool = False, reads: bool = False) -> SwapArea:
    """A swap area of a hundred units."""
    kinds = ("swap", SWAP_IN) if reads else ("swap",)
    device = DiskDriver(linux, "disk", request_ns=1, kinds=kinds)
    pool = bio_pool(linux)
    return SwapArea(linux, device, pool, size=100 * UNIT, swappiness=swappiness, lru_gen=lru_gen)


def ways_of(code: Code) -> dict[str, list[Expression | None]]:
    """The conditions of the first point of a program, by label or what is waited for."""
    program = code.program("one", 1)
    found: dict[str, list[Expression | None]] = {}
    for step in program.steps_at()[0]:
        found.setdefault(step.label or step.waits_for, []).append(step.when)
    return found


def first_steps(code: Code, **values: int) -> dict[str, Step]:
    """What a task can do at first, by label."""
    steps = code.program("one", 1).steps_at()[0]
    return {step.label: step for step in steps if step.when is None or value(step.when, **values)}


def changed(step: Step, **values: int) -> dict[str, int]:
    """What a step changes, from these values on."""
    return after(dict(step.changes), **values)


def after(changes: Changes, **values: int) -> dict[str, int]:
    """What these changes make of the values."""
    return {variable.name: value(to, **values) for variable, to in changes.items()}


def labelled(code: Code, label: str) -> Step:
    """The only step of a program with a label."""
    (step,) = (step for step in code.program("one", 1).steps if step.label == label)
    return step
