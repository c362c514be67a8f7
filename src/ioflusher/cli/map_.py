"""`ioflusher map`: what waits for what, from swap and mounts to daemons, and where that is a circle."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import verdict
from ioflusher.cli.messages import complain
from ioflusher.cli.output import format_option, output_option, write_result
from ioflusher.cli.source import machines_from, snapshot_option
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.machine.graph.nodes import Graph
    from ioflusher.machine.hypothetical import Addition
    from ioflusher.machine.snapshot import Snapshot

# formats of which one file holds one machine
SINGLE = ("dot", "svg", "mermaid")


@click.command("map")
@click.argument("what", metavar="[DEVICE|MOUNTPOINT|PID]", required=False)
@snapshot_option
@format_option("text", "dot", "svg", "mermaid", "html", "json")
@output_option
@click.option(
    "--would-add",
    "commands",
    metavar="COMMAND",
    multiple=True,
    help="Predict what COMMAND (mount, swapon, losetup, attach ...) would add, without running it; may be "
    "given several times, in order.",
)
@click.option("--cycles", "cycles_only", is_flag=True, help="Show the cycles alone.")
@click.option("--all", "everything", is_flag=True, help="Show what nothing stands behind, too.")
def map_(
    what: str | None,
    snapshots: tuple[Path, ...],
    form: str,
    output: Path | None,
    commands: tuple[str, ...],
    cycles_only: bool,
    everything: bool,
) -> None:
    """Show what waits for what, and where that is a circle.

    Swap and mounts, file systems, block devices, the processes that serve them, and what those stand on in
    turn. Cycles are daemons that can wait for themselves.

    DEVICE, MOUNTPOINT or PID: only what has to do with it.

    With --would-add 'mount /dev/nbd0 /srv' and the like: the machine as it would be after that command.

    Exit status: 0 no cycle, 1 a cycle (with --would-add: a cycle that is not there yet), 2 the work could not
    be done.
    """
    if form in SINGLE and len(snapshots) > 1:
        raise click.UsageError(f"--format {form} takes one machine; text, html and json take several")
    from ioflusher.machine.hypothetical import parse_command

    # the text has its own way to leave the rest out
    additions = [parse_command(command) for command in commands]
    maps, failed = graphs(snapshots, what, cycles_only and form != "text", additions)
    if form == "text":
        write_text(maps, output, cycles_only=cycles_only, everything=everything)
    else:
        write_result(rendered(form, maps, everything, several=len(snapshots) > 1), output)
    cycles = [cycle for _, graph in maps for cycle in graph.cycles]
    found = any(cycle.hypothetical for cycle in cycles) if additions else bool(cycles)
    sys.exit(verdict(found=found, failed=failed))


def graphs(
    files: Sequence[Path], what: str | None, cycles_only: bool, additions: "Sequence[Addition]"
) -> "tuple[list[tuple[Snapshot, Graph]], bool]":
    """Each machine with its graph, or the part of it that was asked for; and whether any could not be used.

    With `additions` as it would be.

    Raises:
        IoflusherError: there is one machine, and it could not be used.
    """
    from ioflusher.machine.graph.prediction import predict
    from ioflusher.machine.graph.select import only_cycles, select

    if what is not None and not files and what.startswith("/dev/"):
        what = os.path.realpath(what)  # names such as /dev/disk/by-id/... and /dev/mapper/... are links
    maps = []
    failed = False
    sources: list[list[Path]] = [[file] for file in files] or [[]]
    for source in sources:
        try:
            (analysis,) = machines_from(source, listeners=bool(additions))
            graph = analysis.graph
            if additions:
                prediction = predict(analysis, additions)
                analysis, graph = prediction.analysis, prediction.graph
            if what is not None:
                graph = select(graph, analysis.layers, what)
        except IoflusherError as error:
            if len(files) < 2:
                raise
            failed = True
            complain(error)
        else:
            maps.append((analysis.snapshot, only_cycles(graph) if cycles_only else graph))
    return maps, failed


def rendered(form: str, maps: "list[tuple[Snapshot, Graph]]", everything: bool, *, several: bool) -> str:
    """The text of a file of this format."""
    if form == "json":
        from ioflusher.report.map_json import map_record

        records = [map_record(snapshot, graph) for snapshot, graph in maps]
        return json.dumps({"machines": records} if several else records[0]) + "\n"
    if form == "html":
        from ioflusher.report.map_html import render_html

        return render_html(maps, everything=everything)
    from ioflusher.report.map_dot import render_dot, render_svg
    from ioflusher.report.map_mermaid import render_mermaid
    from ioflusher.report.map_view import picture
    from ioflusher.report.map_words import headline
    from ioflusher.support.text import printable

    ((snapshot, graph),) = maps
    unread = f"; {len(snapshot.unreadable)} things could not be read" if snapshot.unreadable else ""
    title = f"{printable(snapshot.system.hostname)}: {headline(graph)}{unread}"
    render = {"dot": render_dot, "svg": render_svg, "mermaid": render_mermaid}[form]
    return render(picture(graph, everything=everything), title)


def write_text(
    maps: "list[tuple[Snapshot, Graph]]", output: Path | None, *, cycles_only: bool, everything: bool
) -> None:
    """Print the trees, with colours where they are wanted; or write them."""
    from ioflusher.cli.console import output_console
    from ioflusher.report.map_text import ASCII, UNICODE, render_text

    plain = output is None and "utf" not in (sys.stdout.encoding or "").lower()
    lines = [
        line
        for snapshot, graph in maps
        for line in render_text(
            snapshot,
            graph,
            everything=everything,
            only_cycles=cycles_only,
            signs=ASCII if plain else UNICODE,
        )
    ]
    console = output_console()
    if output is not None or plain or console.color_system is None:
        text = "".join(f"{line.plain}\n" for line in lines)
        write_result(text.encode("ascii", "backslashreplace").decode("ascii") if plain else text, output)
        return
    for line in lines:
        console.print(line, soft_wrap=True)
