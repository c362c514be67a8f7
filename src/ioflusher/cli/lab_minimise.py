"""`ioflusher lab minimise`: a smaller scenario that still shows the contrast."""

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import accelerator_option, kernel_option, progress_line, since_option
from ioflusher.cli.lab_scenario import read_scenario, scenario_argument
from ioflusher.cli.messages import print_error, remark
from ioflusher.cli.output import output_option, write_result
from ioflusher.support.text import printable

if TYPE_CHECKING:
    from ioflusher.lab.minimise.play import Answered


@click.command("minimise")
@scenario_argument
@click.option(
    "--runs", type=click.IntRange(1, 100), default=2, show_default=True, help="Runs that must show it."
)
@click.option(
    "--deadline", metavar="SECONDS", type=click.FloatRange(min=0), help="Begin nothing new after so long."
)
@click.option("--again", is_flag=True, help="Measure everything anew: what is kept does not count.")
@since_option
@click.option("--sequential", is_flag=True, help="Play the halves of each run one after the other.")
@click.option("--json", "as_json", is_flag=True, help="Print the tries and what was found as JSON.")
@output_option
@kernel_option
@accelerator_option
def minimise_command(
    scenario: str,
    runs: int,
    deadline: float | None,
    again: bool,
    since: datetime | None,
    sequential: bool,
    as_json: bool,
    output: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Make SCENARIO smaller as long as it shows the contrast.

    Takes settings, faults, pressure and hardening away and halves sizes; what every run still shows frozen
    without the state and alive with it is gone on from. Prints the smallest scenario as TOML, with what each
    key turned out to be needed for. Every run is kept, and what is kept is not played again: after Ctrl-C,
    which prints the smallest one so far, the same command goes on.

    Exit status: 0 the smallest that was found, 1 SCENARIO does not show the contrast itself, 2 the work could
    not be done, 130 Ctrl-C.
    """
    from ioflusher.lab.minimise.play import NoContrastError, SearchEnd, minimise
    from ioflusher.lab.minimise.text import minimal_toml
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import check_programs, daemon_files
    from ioflusher.lab.store import ExperimentStore
    from ioflusher.scenario.writer import check_writer

    if again and since:
        raise click.UsageError("--again and --since contradict each other")
    check_writer()
    base = read_scenario(scenario)
    check_programs(base)
    store = ExperimentStore()
    store.check()
    began = time.time() if again else since.timestamp() if since else 0.0
    end = None if deadline is None else time.monotonic() + deadline
    tries: list[Answered] = []
    chosen = Accelerator(accelerator) if accelerator else None
    with (
        progress_line() as progress,
        Lab(kernel, accelerator=chosen, progress=progress, shares=daemon_files(base), scenario=base) as lab,
    ):
        release = lab.kernel.release

        def tell(answered: "Answered") -> None:
            tries.append(answered)
            with progress.hidden():
                remark(_line(answered))

        try:
            search, stop = minimise(
                lab,
                base,
                store,
                runs=runs,
                since=began,
                deadline=end,
                sequential=sequential,
                on_begin=lambda number, step: progress(f"try {number}, {step.words}"),
                on_try=tell,
                on_error=lambda error: print_error(f"this run is not kept: {error}", error.hint),
            )
        except NoContrastError as error:
            print_error(str(error), error.hint)
            sys.exit(ExitStatus.FOUND)
    text = minimal_toml(search, kernel=release, runs=runs, tries=len(tries), ending=stop.value)
    if as_json:
        text = json.dumps(_record(tries, text, stop.value)) + "\n"
    write_result(text, output)
    if stop is SearchEnd.INTERRUPTED:
        print_error("interrupted; the same command goes on")
        sys.exit(ExitStatus.INTERRUPTED)


def _line(answered: "Answered") -> str:
    """A try in a line."""
    verdict = "shows the contrast" if answered.tried.shows else f"does not: {answered.tried.words}"
    kept = "" if answered.played else " (kept runs)"
    return printable(f"try {answered.number}, {answered.step.words}: {verdict}{kept}")


def _record(tries: "list[Answered]", text: str, ending: str) -> dict[str, object]:
    return {
        "ending": ending,
        "tries": [
            {
                "number": one.number,
                "what": one.step.words,
                "shows": one.tried.shows,
                "seen": one.tried.words,
                "played": one.played,
            }
            for one in tries
        ],
        "scenario": text,
    }
