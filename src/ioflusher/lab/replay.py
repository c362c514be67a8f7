"""A kept experiment played again: with which kernel, what differs here, and whether it came out alike."""

import re
from dataclasses import dataclass

from ioflusher.errors import IoflusherError
from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import find_kernel
from ioflusher.lab.outcome import Experiment, Half, Plan, Run, half_words
from ioflusher.lab.qemu import Accelerator
from ioflusher.scenario.file import builtin_scenarios, parse_scenario


def kernel_like(release: str) -> str:
    """The release of the kernel to play with: the very one, else the newest of its series that there is.

    Raises:
        LabError: there is none.
    """
    series = re.match(r"\d+\.\d+", release)
    for wanted in (release, series[0] if series else release):
        try:
            return find_kernel(wanted).release
        except IoflusherError as error:
            trouble = error
    raise LabError(
        f"neither the kernel {release} nor one like it is to be had: {trouble}",
        hint="give one with --kernel; what differs will be said",
    )


def accelerator_like(plan: Plan) -> Accelerator | None:
    """How to play it: emulated as it was; KVM only where that works here, so None."""
    return Accelerator.TCG if plan.accelerator == "emulated" else None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was when the experiment was kept.

    Attributes:
        what: "kernel", "accelerator", a program's or a package's name.
        kept, here: what it was and what it is; None for what is not there, or was not kept.
    """

    what: str
    kept: str | None
    here: str | None


def differences(kept: Experiment, here: Plan) -> tuple[Difference, ...]:
    """What is different here, besides what was not kept at all."""
    then = kept.plan
    pairs: list[tuple[str, str | None, str | None]] = [
        ("kernel", then.kernel, here.kernel),
        ("accelerator", then.accelerator, here.accelerator),
    ]
    if then.versions:
        names = (*here.versions, *(name for name in then.versions if name not in here.versions))
        pairs += [(name, then.versions.get(name), here.versions.get(name)) for name in names]
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def is_no_longer_builtin(plan: Plan) -> bool:
    """Whether the package has a scenario of that name now that is another one."""
    text = builtin_scenarios().get(plan.scenario)
    return text is not None and parse_scenario(text, origin=plan.scenario) != plan.definition


@dataclass(frozen=True, slots=True)
class HalfComparison:
    """What became of one half, then and now.

    Attributes:
        io_flusher: whether the daemon carries the state in it.
        kept, here: the halves, in the order of their runs.
    """

    io_flusher: bool
    kept: tuple[Half, ...]
    here: tuple[Half, ...]

    @property
    def alike(self) -> bool:
        """Whether it came out here in no way in which it had not come out then."""
        return {half_words(half) for half in self.here} <= {half_words(half) for half in self.kept}


def compare(kept: Experiment, here: Experiment) -> tuple[HalfComparison, ...]:
    """Each half that was played both times; those of a run that did not come to its end count too."""
    pairs = []
    for io_flusher in (False, True):
        then, now = (
            tuple(half for run in _runs(one) for half in run.halves if half.io_flusher is io_flusher)
            for one in (kept, here)
        )
        if then and now:
            pairs.append(HalfComparison(io_flusher, then, now))
    return tuple(pairs)


def _runs(experiment: Experiment) -> tuple[Run, ...]:
    return experiment.runs + ((experiment.unfinished,) if experiment.unfinished else ())


def came_out_alike(comparisons: tuple[HalfComparison, ...]) -> bool:
    """Whether every half did; not where none was played both times."""
    return bool(comparisons) and all(one.alike for one in comparisons)
