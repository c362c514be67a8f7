"""`ioflusher model run`: plays a scenario in the model and prints what came of it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.file_parameters import DASH, OutputFile
from ioflusher.cli.lab_scenario import scenario_argument
from ioflusher.cli.messages import remark
from ioflusher.cli.model_options import (
    chosen_halves,
    diagram_option,
    halves_options,
    kernel_option,
    read_modelled,
    seed_option,
)
from ioflusher.cli.output import write_result

if TYPE_CHECKING:
    from ioflusher.model.halves import ModelHalf


@click.command("run")
@scenario_argument
@kernel_option
@halves_options
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option(
    "--log",
    metavar="FILE",
    type=OutputFile(),
    help="Write what the kernel's log of the half that froze would say, for `ioflusher diagnose`.",
)
@diagram_option
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for a page that steps through the end, and pictures of memory and queues; needs the "
    "extra ioflusher[lab].",
)
def run_command(
    scenario: str,
    kernel: tuple[int, int] | None,
    without_state: bool,
    with_state: bool,
    seed: int,
    as_json: bool,
    log: Path | None,
    diagram: Path | None,
    report: Path | None,
) -> None:
    """Play SCENARIO in the model: without and with the IO_FLUSHER state.

    SCENARIO is a name from `ioflusher lab list`, a TOML file or - for standard input. Time is virtual, and
    the same seed gives the same run to the last step.

    Exit status: 0 frozen without and alive with, or as the scenario expects of this kernel (with --without or
    --with, that half); 1 anything else, 2 the model has not what the scenario is about.
    """
    from ioflusher.model.halves import play_half, play_halves
    from ioflusher.report.model_words import verdict

    found, version = read_modelled(scenario, kernel)
    chosen = chosen_halves(without_state=without_state, with_state=with_state)
    halves: tuple[ModelHalf, ...]
    if len(chosen) == 2:
        halves = play_halves(found, version=version, seed=seed)
    else:
        halves = (play_half(found, io_flusher=chosen[0], version=version, seed=seed),)
    if as_json:
        from ioflusher.report.model_json import model_record

        click.echo(json.dumps(model_record(found, version, halves, seed)))
    else:
        from ioflusher.report.model_text import render_model

        for line in render_model(found, version, halves, seed):
            click.echo(line)
    if log is not None:
        _write_log(halves, log)
    if diagram is not None:
        _draw(halves, diagram)
    if report is not None:
        from ioflusher.report.model_report import write_model_report

        path = write_model_report(found, version, halves, report)
        click.echo(f"report: {path}", err=as_json)
    good, _ = verdict(found, version, halves)
    sys.exit(ExitStatus.DONE if good else ExitStatus.FOUND)


def _draw(halves: "tuple[ModelHalf, ...]", file: Path) -> None:
    """Draw the end of the half that froze, else that of the last one."""
    from ioflusher.report.model_diagram import FORMS, run_diagram

    shown = next((half for half in halves if half.frozen), halves[-1])
    write_result(FORMS[file.suffix](run_diagram(shown)), file)


def _write_log(halves: "tuple[ModelHalf, ...]", log: Path) -> None:
    from ioflusher.model.halves import daemons_of
    from ioflusher.report.model_log import hung_task_log
    from ioflusher.report.model_words import hardware_pids

    frozen = next((half for half in halves if half.frozen), None)
    if frozen is None:
        remark(f"{log} is not written: no half froze, so that no task is hung")
        return
    text = hung_task_log(frozen.result, frozen.system.version, hardware=hardware_pids(frozen))
    write_result(text, None if log == DASH else log)
    if log != DASH:
        named = "".join(f"--daemon {name} " for name in daemons_of(frozen))
        remark(f"the log is read by: ioflusher diagnose {named}{log}")
