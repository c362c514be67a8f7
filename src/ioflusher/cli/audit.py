"""`ioflusher audit`: which daemons of a machine can wait for themselves, and what to do about it."""

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus, verdict
from ioflusher.cli.file_parameters import InputFile
from ioflusher.cli.output import format_option, output_option, write_result
from ioflusher.cli.progress import progress_bar
from ioflusher.cli.source import (
    STANDARD_INPUT,
    read_source,
    read_standard_input,
    snapshot_option,
    source_name,
)
from ioflusher.errors import IoflusherError
from ioflusher.support.text import text_of

if TYPE_CHECKING:
    from rich.text import Text

    from ioflusher.audit.config import Config
    from ioflusher.audit.fleet import Judged

SEVERITIES = ("note", "warning", "error")
# fewer files are read before a pool of processes has started
POOL_FROM = 8
MOST_WIDTH = 110
# what rich takes for a pipe
WIDTH_OF_A_FILE = 80


def names_of_rules(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For a shell to complete."""
    from ioflusher.audit.table import BY_NAME

    return [name for name in BY_NAME if name.startswith(incomplete)]


@click.command()
@snapshot_option
@click.argument("more", metavar="[FILE]...", nargs=-1, type=InputFile())
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=InputFile(),
    help="Rules off, accepted findings, thresholds; default: $XDG_CONFIG_HOME/ioflusher/audit.toml where it "
    "is, else /etc/ioflusher/audit.toml.",
)
@format_option("text", "json", "sarif")
@output_option
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    default="note",
    show_default=True,
    help="End with status 1 only for findings of this severity or above.",
)
@click.option("--jobs", type=click.IntRange(1, 1024), help="Judge so many files at once; default: all cores.")
@click.option("--list-rules", is_flag=True, help="Print one line for each rule.")
@click.option(
    "--explain",
    metavar="RULE",
    help="Print why a rule is there, what it reads, and the remedy.",
    shell_complete=names_of_rules,
)
def audit(
    snapshots: tuple[Path, ...],
    more: tuple[Path, ...],
    config_path: Path | None,
    form: str,
    output: Path | None,
    fail_on: str,
    jobs: int | None,
    list_rules: bool,
    explain: str | None,
) -> None:
    """Find storage daemons that can wait for themselves.

    Looks at this machine, and says what to do. With --snapshot FILE [FILE]... machines recorded by
    `ioflusher snapshot`: several are a fleet. Run it as root to see everything.

    Exit status: 0 clean, 1 findings, 2 the work could not be done (with findings elsewhere: 1).
    """
    if explain is not None or list_rules:
        say_rules(explain, output)
        return
    if more and not snapshots:
        raise click.UsageError(
            "files are named with --snapshot FILE [FILE]...; without, this machine is judged"
        )
    config = configuration(config_path)
    results = judge_files((*snapshots, *more), config, jobs) if snapshots else [judge_this_machine(config)]
    show(results, form, output)
    sys.exit(exit_status(results, fail_on))


def configuration(path: Path | None) -> "Config":
    """What the file says, or the file that is there by default.

    Raises:
        IoflusherError: it cannot be used.
    """
    from ioflusher.audit.config import default_path, parse_config, read_config
    from ioflusher.support.toml import LARGEST_BYTES

    if path != STANDARD_INPUT:
        return read_config(path or default_path())
    data = read_standard_input(LARGEST_BYTES)
    if len(data) > LARGEST_BYTES:
        raise IoflusherError("standard input: longer than a configuration may be")
    return parse_config(text_of(data), "standard input")


def judge_this_machine(config: "Config") -> "Judged":
    """Collect and judge."""
    from ioflusher.audit.fleet import Judged
    from ioflusher.audit.run import audit as run_audit
    from ioflusher.machine.collect.machine import collect_serving

    collected = collect_serving()
    return Judged(None, run_audit(collected.snapshot, config, services=collected.services))


def judge_files(files: tuple[Path, ...], config: "Config", jobs: int | None) -> "list[Judged]":
    """Judge recorded machines in their order; standard input here, files many at once where there are many.

    Raises:
        IoflusherError: where a process of the pool was killed.
    """
    judged = judge_named_files([str(file) for file in files if file != STANDARD_INPUT], config, jobs)
    if STANDARD_INPUT in files:
        judged.insert(files.index(STANDARD_INPUT), judge_standard_input(config))
    return judged


def judge_standard_input(config: "Config") -> "Judged":
    """Judge the snapshot in standard input. What is wrong with it is in the result."""
    from ioflusher.audit.fleet import Judged
    from ioflusher.audit.run import audit as run_audit
    from ioflusher.machine.errors import SnapshotError

    name = source_name(STANDARD_INPUT)
    try:
        return Judged(name, run_audit(read_source(STANDARD_INPUT), config))
    except SnapshotError as error:
        return Judged(name, None, str(error), error.hint)


def judge_named_files(names: list[str], config: "Config", jobs: int | None) -> "list[Judged]":
    """Judge files.

    Raises:
        IoflusherError: where a process of the pool was killed.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from ioflusher.audit.fleet import audit_files

    workers = min(len(names), jobs or len(os.sched_getaffinity(0)))
    with progress_bar("judging", show=len(names) >= POOL_FROM) as show_progress:
        judged = itertools.count(1)

        def progress() -> None:
            show_progress(next(judged), len(names))

        if workers <= 1 or len(names) < POOL_FROM:
            return list(audit_files(names, config, progress=progress))
        try:
            with ProcessPoolExecutor(workers) as executor:
                return list(audit_files(names, config, executor, progress))
        except BrokenProcessPool as error:
            raise IoflusherError(
                "a process that judged snapshots was killed",
                hint="memory may have been short: try --jobs 1",
            ) from error


def show(results: "list[Judged]", form: str, output: Path | None) -> None:
    """Print the report in the form that was asked for, or write it."""
    if form == "json":
        from ioflusher.report.audit_json import audit_record

        write_result(json.dumps(audit_record(results)) + "\n", output)
    elif form == "sarif":
        from ioflusher.report.audit_sarif import sarif_log

        write_result(json.dumps(sarif_log(results), indent=1) + "\n", output)
    else:
        from ioflusher.report.audit_text import render_audit

        print_lines(lambda width: render_audit(results, width), output)


def print_lines(render: "Callable[[int], Iterable[Text]]", output: Path | None = None) -> None:
    """Print or write rich text; lines longer than the terminal stay whole: a command can be copied."""
    if output is not None:
        write_result("".join(f"{line.plain}\n" for line in render(WIDTH_OF_A_FILE)), output)
        return
    from ioflusher.cli.console import output_console

    console = output_console()
    for line in render(min(console.width, MOST_WIDTH)):
        console.print(line, soft_wrap=True)


def say_rules(name: str | None, output: Path | None) -> None:
    """Print one rule, or a line for each.

    Raises:
        IoflusherError: where there is no such rule.
    """
    from ioflusher.audit.table import BY_NAME, RULES
    from ioflusher.report.audit_text import render_rule, render_rules

    if name is None:
        print_lines(lambda width: render_rules(RULES), output)
    elif name in BY_NAME:
        print_lines(lambda width: render_rule(BY_NAME[name], width), output)
    else:
        raise IoflusherError(f"no rule {name!r:.60}", hint="see `ioflusher audit --list-rules`")


def exit_status(results: "list[Judged]", fail_on: str) -> ExitStatus:
    """Findings count from the severity `fail_on` on."""
    from ioflusher.audit.fleet import worst

    highest = worst(results)
    return verdict(
        found=highest is not None and highest.rank >= SEVERITIES.index(fail_on),
        failed=any(result.report is None for result in results),
    )
