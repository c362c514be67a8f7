"""`ioflusher lab replay`: the very experiment of a kept run, played again and compared."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import accelerator_option, kernel_option, run_argument, run_name
from ioflusher.cli.lab_run import exit_early, play, report_option
from ioflusher.cli.messages import remark

if TYPE_CHECKING:
    from ioflusher.lab.outcome import Experiment, OneHalf, Plan
    from ioflusher.lab.replay import Difference


@click.command("replay")
@run_argument
@click.option("--runs", type=click.IntRange(1, 1000), help="How often; default: as often as it was planned.")
@click.option("--only", type=click.Choice(["with", "without"]), help="Play one half alone.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@report_option
@kernel_option
@accelerator_option
def replay_command(
    run: tuple[int, int | None],
    runs: int | None,
    only: "OneHalf | None",
    as_json: bool,
    report: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Play the experiment of a kept RUN again.

    The scenario, the kernel, the machine and the accelerator are those that were kept, whatever the scenario
    of that name has become since. What cannot be the same here is said: another point release of the kernel,
    another version of a program. RUN is a number from `ioflusher lab runs`; 17.3 is the third run of 17.

    Exit status: 0 it came out as it did then, 1 it did not, 2 the work could not be done, 130 Ctrl-C.
    """
    from ioflusher.lab.errors import LabError
    from ioflusher.lab.replay import accelerator_like, is_no_longer_builtin, kernel_like
    from ioflusher.lab.store import ExperimentStore

    kept = ExperimentStore().load(*run)
    plan = kept.plan
    if only and plan.only not in (None, only):
        raise LabError(
            f"{run_name(run)} has no half {only} the state to compare with", hint="leave --only away"
        )
    if is_no_longer_builtin(plan):
        remark(f"the scenario {plan.scenario} has changed since; the one that was kept is played")
    like = accelerator_like(plan)
    comparing = _Comparing(run_name(run), kept)
    here = play(
        plan.definition,
        runs=runs or plan.runs,
        only=only or plan.only,
        as_json=as_json,
        report=report,
        kernel=kernel or kernel_like(plan.kernel),
        accelerator=accelerator or (like and like.value),
        sequel=comparing,
    )
    exit_early(here)
    sys.exit(ExitStatus.DONE if comparing.alike(here) else ExitStatus.FOUND)


class _Comparing:
    """A `Sequel`: compares what is played with what was kept."""

    def __init__(self, name: str, kept: "Experiment") -> None:
        self._name = name
        self._kept = kept
        self._differences: tuple[Difference, ...] = ()

    def begins(self, plan: "Plan") -> None:
        """Say what differs here."""
        from ioflusher.lab.replay import differences
        from ioflusher.report.experiment_replay import difference_line

        self._differences = differences(self._kept, plan)
        for difference in self._differences:
            remark(f"not as in {self._name}: {difference_line(difference)}")
        if not self._kept.plan.versions:
            remark(f"{self._name} was kept without the versions of programs: what differs there is not known")

    def record(self, experiment: "Experiment") -> dict[str, Any]:
        """The comparison as JSON."""
        from ioflusher.lab.replay import compare
        from ioflusher.report.experiment_replay import replay_record

        number = self._name.removeprefix("run ")
        return {"replay": replay_record(number, self._differences, compare(self._kept, experiment))}

    def lines(self, experiment: "Experiment") -> Iterable[str]:
        """The comparison in words."""
        from ioflusher.lab.replay import compare
        from ioflusher.report.experiment_replay import replay_lines

        return replay_lines(self._name, self._differences, compare(self._kept, experiment))

    def alike(self, experiment: "Experiment") -> bool:
        """Whether it came out as it did then."""
        from ioflusher.lab.replay import came_out_alike, compare

        return came_out_alike(compare(self._kept, experiment))
