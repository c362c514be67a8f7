"""`ioflusher diagnose`: who waited on whom in a kernel log, and whether it is reclaim recursion."""

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.cluster import dask_client
from ioflusher.cli.exit_status import ExitStatus, verdict
from ioflusher.cli.file_parameters import InputFile
from ioflusher.cli.messages import print_error, remark
from ioflusher.cli.output import format_option, output_option, write_result
from ioflusher.cli.progress import progress_bar
from ioflusher.cli.source import machines_from
from ioflusher.errors import IoflusherError
from ioflusher.kernlog.fleet import (
    LogResult,
    Options,
    diagnose_file,
    diagnose_files,
    diagnose_records,
    diagnose_source,
)
from ioflusher.kernlog.reading.inputs import journal as open_journal
from ioflusher.kernlog.reading.inputs import kernel_ring_buffer
from ioflusher.kernlog.records import DeviceServer
from ioflusher.report.diagnosis_text import render_diagnosis, rows_text
from ioflusher.support.text import printable

if TYPE_CHECKING:
    from concurrent.futures import Executor

# below this a log is read before a bar could be drawn
BAR_FROM = 64 << 20
# seconds that a scheduler has for its first answer
DASK_TIMEOUT = 10


@click.command()
@click.argument("logs", metavar="[LOG|-]...", nargs=-1, type=InputFile())
@click.option("--dmesg", is_flag=True, help="Read this machine's kernel ring buffer.")
@click.option("--journal", is_flag=True, help="Read the kernel's messages in this machine's journal.")
@click.option("--boot", metavar="N", help="With --journal: which boot, as journalctl --boot takes it.")
@click.option("--live", is_flag=True, help="Look into this machine's running kernel (extra drgn, root).")
@click.option(
    "--vmcore",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Look into a machine's memory dump (extra drgn).",
)
@click.option(
    "--debug-info",
    metavar="PATH",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A kernel's debug information: vmlinux, or a directory like /usr/lib/debug.",
)
@click.option(
    "--daemon",
    "daemons",
    metavar="NAME",
    multiple=True,
    help="The task name of a program that serves storage; * at its end is any rest.",
)
@click.option(
    "--snapshot",
    metavar="FILE",
    type=InputFile(),
    help="Who serves what on the logs' machine, as `ioflusher snapshot` recorded it there. "
    "This machine's own kernel is read with what its own processes serve.",
)
@click.option("--all", "everything", is_flag=True, help="Show tasks that wait for work or run, too.")
@format_option("text", "json", "html")
@output_option
# before there were --format html and --output: a page besides what is printed
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Read so many logs at once.")
@click.option("--dask", metavar="ADDRESS", help="Read many logs on the workers of this Dask scheduler.")
@click.option(
    "--explain",
    metavar="[FUNCTION]",
    is_flag=False,
    flag_value="",
    help="Print every edge and every row of the tables that counted; with a kernel function's name instead "
    "of a LOG, what the tables have of it.",
)
def diagnose(
    logs: tuple[Path, ...],
    dmesg: bool,
    journal: bool,
    boot: str | None,
    live: bool,
    vmcore: tuple[Path, ...],
    debug_info: tuple[Path, ...],
    daemons: tuple[str, ...],
    snapshot: Path | None,
    everything: bool,
    form: str,
    output: Path | None,
    html: Path | None,
    jobs: int,
    dask: str | None,
    explain: str | None,
) -> None:
    """Explain a frozen machine from its kernel log.

    LOG is a console capture, syslog, dmesg, journal text, export or JSON, crash's "bt -a", stacks copied
    from /proc, each also compressed; or - for standard input.

    Exit status: 0 no recursion found, 1 recursion found, 2 an input could not be used, or shows a stack
    that could not be read.
    """
    if explain and (explain == "-" or os.path.lexists(explain)):
        logs = (Path(explain), *logs)  # what stands behind the option is a log
        explain = ""
    if explain:
        click.echo(explanation(explain))
        return
    sources = len(logs) + dmesg + journal + live + len(vmcore)
    if not sources:
        raise click.UsageError("give a LOG, - for standard input, --dmesg, --journal, --live or --vmcore")
    if boot is not None and not journal:
        raise click.UsageError("--boot belongs to --journal")
    if not all(name.strip() for name in daemons):
        raise click.UsageError("--daemon needs a name")
    options = Options(daemons, everything, servers_of_machine(snapshot) if snapshot else ())
    here = options
    if not snapshot and (dmesg or journal or live):
        here = replace(options, servers=servers_here())
    results = []
    for result in chain(
        read_kernels(live, vmcore, debug_info, here, options),
        read_own_log(dmesg, journal, boot, here),
        read_logs(tuple(map(str, logs)), options, jobs, dask),
    ):
        results.append(result)
        if form == "text" and output is None:
            show(result, several=sources > 1, explain=explain is not None)
        elif result.trouble and form != "json":
            print_error(result.trouble, result.hint)
    if form != "text" or output is not None:
        write_result(rendered(form, results, explain=explain is not None), output)
    if html:
        write_result(rendered("html", results), html)
    sys.exit(exit_status(results))


def servers_of_machine(snapshot: Path | None) -> tuple[DeviceServer, ...]:
    """Who serves what on a recorded machine; on this one for None.

    Raises:
        SnapshotError: the file is no snapshot, or this machine has no /proc.
    """
    from ioflusher.kernlog.servers import servers_of

    (analysis,) = machines_from([snapshot] if snapshot else [])
    return servers_of(analysis)


def servers_here() -> tuple[DeviceServer, ...]:
    """The same of this machine; nobody, and a remark, where that cannot be read."""
    try:
        return servers_of_machine(None)
    except IoflusherError as error:
        remark(f"who serves what on this machine is not known: {error}")
        return ()


def read_kernels(
    live: bool, dumps: tuple[Path, ...], debug_info: tuple[Path, ...], here: Options, options: Options
) -> Iterator[LogResult]:
    """The results of looking into kernels themselves: this machine's, with the options `here`, and dumps."""
    if not live and not dumps:
        return
    from ioflusher.kernlog.memory.kernel import kernel_records, open_kernel

    for dump in (*([None] if live else []), *dumps):
        kernel = partial(open_kernel, dump, debug_info)
        records = partial(kernel_records, kernel)
        yield diagnose_records(str(dump or "the running kernel"), records, options if dump else here)


def read_own_log(dmesg: bool, journal: bool, boot: str | None, options: Options) -> Iterator[LogResult]:
    """The results of this machine's own logs."""
    if dmesg:
        # opened here and now: the ring buffer is overwritten while we work
        data = kernel_ring_buffer()
        yield diagnose_source("dmesg", lambda: contextlib.nullcontext(io.BytesIO(data)), options)
    if journal:
        yield diagnose_source("journal", lambda: open_journal(boot), options)


def read_logs(logs: tuple[str, ...], options: Options, jobs: int, dask: str | None) -> Iterator[LogResult]:
    """The results of the logs that were given, one after another."""
    if dask is not None or (len(logs) > 1 and jobs > 1):
        with pool(jobs, dask) as executor:
            yield from diagnose_files(logs, options, executor)
        return
    for name in logs:
        size = os.stat(name).st_size if name != "-" and os.path.isfile(name) else 0
        with progress_bar("reading", show=size >= BAR_FROM) as show_progress:
            result = diagnose_file(name, options, partial(show_progress, there_are=size))
        yield result


@contextlib.contextmanager
def pool(jobs: int, dask: str | None) -> Iterator["Executor"]:
    """Processes of this machine, or a cluster's workers, which have to see the logs under the same names.

    Raises:
        IoflusherError: the extra is missing, or no scheduler answers.
    """
    if dask is None:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(jobs) as executor:
            yield executor
        return
    with dask_client(dask, DASK_TIMEOUT) as client, client.get_executor() as executor:
        yield executor


def show(result: LogResult, several: bool, explain: bool) -> None:
    """Print one log's result; trouble goes to standard error."""
    for line in lines_of(result, several, explain):
        click.echo(line)
    if result.trouble:
        print_error(result.trouble, result.hint)


def lines_of(result: LogResult, several: bool, explain: bool = False) -> Iterable[str]:
    """What is to be said of one log; nothing where it could not be used at all."""
    if result.trouble is None or result.diagnosis.reports or result.diagnosis.episodes:
        yield from render_diagnosis(result.diagnosis, result.name if several else None, explain=explain)


def exit_status(results: list[LogResult]) -> ExitStatus:
    """What is looked for is a recursion."""
    return verdict(
        found=any(result.diagnosis.recursion for result in results),
        failed=any(result.trouble for result in results),
    )


def rendered(form: str, results: list[LogResult], explain: bool = False) -> str:
    """All results as the text of a file."""
    if form == "json":
        import json

        from ioflusher.report.diagnosis_json import diagnosis_record

        return json.dumps(diagnosis_record(results)) + "\n"
    if form == "html":
        from ioflusher.report.diagnosis_html import render_html

        return render_html(tuple(results))
    return "".join(f"{line}\n" for result in results for line in lines_of(result, len(results) > 1, explain))


def explanation(function: str) -> str:
    """What the tables of kernel functions say of one: its role, then what it waits for, holds, completes."""
    rows = rows_text(function) or ["not in the tables; a stack's other functions decide"]
    return "\n".join(f"{printable(function)}: {row}" for row in rows)
