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
from ioflusher.cli.progress import progress_bar
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from rich.text import Text

    from ioflusher.audit.config import Config
    from ioflusher.audit.fleet import Judged

SEVERITIES = ("note", "warning", "error")
# fewer files are read before a pool of processes has started
POOL_FROM = 8
MOST_WIDTH = 110


@click.command()
@click.option("--snapshot", "snapshots", metavar="FILE", multiple=True, help="Judge a recorded machine.")
@click.argument("more", metavar="[FILE]...", nargs=-1)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Rules off, accepted findings, thresholds; default: $XDG_CONFIG_HOME/ioflusher/audit.toml where it "
    "is, else /etc/ioflusher/audit.toml.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    default="note",
    show_default=True,
    help="End with status 1 only for findings of this severity or above.",
)
@click.option("--jobs", type=click.IntRange(1, 1024), help="Judge so many files at once; default: all cores.")
@click.option("--list-rules", is_flag=True, help="Print one line for each rule.")
@click.option("--explain", metavar="RULE", help="Print why a rule is there, what it reads, and the remedy.")
def audit(
    snapshots: tuple[str, ...],
    more: tuple[str, ...],
    config_path: Path | None,
    form: str,
    as_json: bool,
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
        say_rules(explain)
        return
    if more and not snapshots:
        raise click.UsageError(
            "files are named with --snapshot FILE [FILE]...; without, this machine is judged"
        )
    from ioflusher.audit.config import default_path, read_config

    config = read_config(config_path or default_path())
    results = judge_files((*snapshots, *more), config, jobs) if snapshots else [judge_this_machine(config)]
    show(results, "json" if as_json else form)
    sys.exit(exit_status(results, fail_on))


def judge_this_machine(config: "Config") -> "Judged":
    """Collect and judge."""
    from ioflusher.audit.fleet import Judged
    from ioflusher.audit.run import audit as run_audit
    from ioflusher.machine.collect.machine import collect_serving

    collected = collect_serving()
    return Judged(None, run_audit(collected.snapshot, config, services=collected.services))


def judge_files(names: tuple[str, ...], config: "Config", jobs: int | None) -> "list[Judged]":
    """Judge recorded machines, many at once where there are many.

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

        if workers == 1 or len(names) < POOL_FROM:
            return list(audit_files(names, config, progress=progress))
        import networkx  # noqa: F401  loaded once, before the pool's processes are made, not in each of them

        try:
            with ProcessPoolExecutor(workers) as executor:
                return list(audit_files(names, config, executor, progress))
        except BrokenProcessPool as error:
            raise IoflusherError(
                "a process that judged snapshots was killed",
                hint="memory may have been short: try --jobs 1",
            ) from error


def show(results: "list[Judged]", form: str) -> None:
    """Print the report in the form that was asked for."""
    if form == "json":
        from ioflusher.report.audit_json import audit_record

        click.echo(json.dumps(audit_record(results)))
    elif form == "sarif":
        from ioflusher.report.audit_sarif import sarif_log

        click.echo(json.dumps(sarif_log(results), indent=1))
    else:
        from ioflusher.report.audit_text import render_audit

        print_lines(lambda width: render_audit(results, width))


def print_lines(render: "Callable[[int], Iterable[Text]]") -> None:
    """Print rich text; lines longer than the terminal stay whole, so that a command can be copied."""
    from ioflusher.cli.console import output_console

    console = output_console()
    for line in render(min(console.width, MOST_WIDTH)):
        console.print(line, soft_wrap=True)


def say_rules(name: str | None) -> None:
    """Print one rule, or a line for each.

    Raises:
        IoflusherError: where there is no such rule.
    """
    from ioflusher.audit.table import BY_NAME, RULES
    from ioflusher.report.audit_text import render_rule, render_rules

    if name is None:
        print_lines(lambda width: render_rules(RULES))
    elif name in BY_NAME:
        print_lines(lambda width: render_rule(BY_NAME[name], width))
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
