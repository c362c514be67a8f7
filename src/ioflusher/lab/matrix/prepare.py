"""From cells to what can be played here: the kernel and the programs that each of them needs."""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.lab.capacity import Capacity, half_bytes, this_machine, why_in_turn
from ioflusher.lab.errors import LabError
from ioflusher.lab.initramfs import load_order
from ioflusher.lab.kernels import Kernel, find_kernel
from ioflusher.lab.matrix.cells import Cell
from ioflusher.lab.matrix.work import Trial
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.repeat import plan_for
from ioflusher.lab.session import Lab, Progress, known_accelerator, silent
from ioflusher.lab.setup import check_programs, needed_programs
from ioflusher.lab.trials import trial_key_of
from ioflusher.lab.versions import versions
from ioflusher.scenario.records import Scenario


@dataclass(frozen=True, slots=True)
class PreparedCell:
    """A cell and what its runs measure.

    Attributes:
        cell: of the plan.
        trial: None where it cannot be played.
        trouble: why it cannot: it fits no scenario, or its kernel or a program is missing here.
    """

    cell: Cell
    trial: Trial | None
    trouble: str = ""

    @property
    def fits(self) -> bool:
        """Whether it is a scenario at all."""
        return self.cell.scenario is not None


def prepare_cells(
    cells: Iterable[Cell],
    *,
    kernel: str | None = None,
    accelerator: Accelerator | None = None,
    download: bool = True,
    sequential: bool = False,
    progress: Progress = silent,
) -> tuple[PreparedCell, ...]:
    """Find each cell's kernel and accelerator, and see that the programs of its scenario are here.

    Args:
        kernel: for cells that ask for none; None: the one that the scenario needs, or the default.
        accelerator: None: KVM where a guest lives on it.
        download: whether a kernel may be downloaded.
        sequential: play the halves of a run one after the other also where both fit this machine at once.
        progress: is told what goes on.
    """
    machines: dict[str | None, tuple[Kernel, Accelerator] | LabError] = {}
    capacity = this_machine()
    known_versions = _VersionsOnce()
    prepared = []
    for cell in cells:
        if cell.scenario is None:
            prepared.append(PreparedCell(cell, None, cell.misfit))
            continue
        wanted = cell.kernel or kernel or cell.scenario.machine.kernel or None
        if wanted not in machines:
            machines[wanted] = _machine(wanted, accelerator, download, progress)
        machine = machines[wanted]
        try:
            if isinstance(machine, LabError):
                raise machine
            check_programs(cell.scenario)
            check_modules(machine[0], cell.scenario)
        except LabError as error:
            prepared.append(PreparedCell(cell, None, with_hint(error)))
            continue
        found, chosen = machine
        at_once = not sequential and why_in_turn(cell.scenario, capacity) is None
        programs = known_versions(cell.scenario)
        plan = plan_for(cell.scenario, found.release, chosen, programs, at_once=at_once)
        boot = wanted if wanted and "/" in wanted else found.release
        prepared.append(PreparedCell(cell, Trial(trial_key_of(plan), cell.name, plan, boot, chosen)))
    return tuple(prepared)


def check_modules(kernel: Kernel, scenario: Scenario) -> None:
    """See that the kernel has the modules that the scenario loads, as far as its lists can be read here.

    Raises:
        LabError: it lacks one; a stack may be younger than the kernel.
    """
    try:
        dependencies = (kernel.modules / "modules.dep").read_text()
        builtin = (kernel.modules / "modules.builtin").read_text()
    except OSError:
        return
    names = [module.partition(" ")[0] for module in scenario.modules]  # what follows are options
    try:
        load_order(dependencies, builtin, names)
    except LabError as error:
        raise LabError(f"{error} ({kernel.release})") from error


class _VersionsOnce:
    """`versions`, which asks other programs, once for all scenarios that run the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], dict[str, str]] = {}

    def __call__(self, scenario: Scenario) -> dict[str, str]:
        key = (tuple(needed_programs(scenario)), scenario.daemon.command)
        if key not in self._known:
            self._known[key] = versions(scenario)
        return self._known[key]


def _machine(
    wanted: str | None, accelerator: Accelerator | None, download: bool, progress: Progress
) -> tuple[Kernel, Accelerator] | LabError:
    """A kernel and how it is executed; the error where there is none."""
    progress(f"finding kernel {wanted}" if wanted else "finding a kernel")
    try:
        kernel = find_kernel(wanted, download=download)
        if accelerator is not None:
            return kernel, accelerator
        known = known_accelerator(kernel)
        if known is not None:
            return kernel, known
        with Lab(wanted, progress=progress) as lab:
            return kernel, lab.accelerator
    except LabError as error:
        return error


def with_hint(error: LabError) -> str:
    """An error with what can be done about it, as one text."""
    return f"{error} ({error.hint})" if error.hint else str(error)


def default_jobs(trials: Iterable[Trial], capacity: Capacity) -> int:
    """How many runs fit this machine at once; one is always played."""
    most = capacity.cpus
    for trial in trials:
        guests = 2 if trial.plan.at_once else 1
        scenario = trial.plan.definition
        most = min(most, capacity.cpus // (guests * scenario.machine.cpus))
        if capacity.memory_bytes is not None:
            most = min(most, capacity.memory_bytes // (guests * half_bytes(scenario)))
    return max(1, most)
