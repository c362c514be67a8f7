"""`ioflusher map`: what waits for what, from swap and mounts to daemons, and where that is a circle."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ioflusher.cli.exit_status import verdict
from ioflusher.cli.source import machines_from, snapshot_option
from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.graph.select import only_cycles, select
from ioflusher.machine.snapshot import Snapshot

FORMATS = ("text", "dot", "svg", "mermaid", "html", "json")
# of these one file holds one machine
SINGLE = ("dot", "svg", "mermaid")


@click.command("map")
@click.argument("what", metavar="[DEVICE|MOUNTPOINT|PID]", required=False)
@snapshot_option
@click.option("--format", "kind", type=click.Choice(FORMATS), help="How to print it; text by default.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write it to FILE."
)
@click.option("--cycles", "cycles_only", is_flag=True, help="Show the cycles alone.")
@click.option("--all", "everything", is_flag=True, help="Show what nothing stands behind, too.")
def map_(
    what: str | None,
    snapshots: tuple[Path, ...],
    kind: str | None,
    as_json: bool,
    output: Path | None,
    cycles_only: bool,
    everything: bool,
) -> None:
    """Show what waits for what, and where that is a circle.

    Swap and mounts, file systems, block devices, the processes that serve them, and what those stand on in
    turn. Cycles are daemons that can wait for themselves.

    DEVICE, MOUNTPOINT or PID: only what has to do with it.

    Exit status: 0 no cycle, 1 a cycle, 2 the work could not be done.
    """
    kind = kind or ("json" if as_json else "text")
    if as_json and kind != "json":
        raise click.UsageError("--json and --format contradict each other")
    if kind in SINGLE and len(snapshots) > 1:
        raise click.UsageError(f"--format {kind} takes one machine; text, html and json take several")
    # the text has its own way to leave the rest out
    maps = list(graphs(snapshots, what, cycles_only and kind != "text"))
    if kind == "text":
        write_text(maps, output, cycles_only=cycles_only, everything=everything)
    else:
        write(rendered(kind, maps, everything), output)
    sys.exit(verdict(found=any(graph.cycles for _, graph in maps), failed=False))


def graphs(files: Sequence[Path], what: str | None, cycles_only: bool) -> Iterator[tuple[Snapshot, Graph]]:
    """Each machine with its graph, or the part of it that was asked for."""
    if what is not None and not files and what.startswith("/dev/"):
        what = os.path.realpath(what)  # names such as /dev/disk/by-id/... and /dev/mapper/... are links
    for analysis in machines_from(files):
        graph = analysis.graph
        if what is not None:
            graph = select(graph, analysis.layers, what)
        yield analysis.snapshot, only_cycles(graph) if cycles_only else graph


def rendered(kind: str, maps: list[tuple[Snapshot, Graph]], everything: bool) -> str:
    """The text of a file of this format."""
    if kind == "json":
        from ioflusher.report.map_json import map_record

        records = [map_record(snapshot, graph) for snapshot, graph in maps]
        return json.dumps(records[0] if len(records) == 1 else {"machines": records}) + "\n"
    if kind == "html":
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
    render = {"dot": render_dot, "svg": render_svg, "mermaid": render_mermaid}[kind]
    return render(picture(graph, everything=everything), title)


def write_text(
    maps: list[tuple[Snapshot, Graph]], output: Path | None, *, cycles_only: bool, everything: bool
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
        write(text.encode("ascii", "backslashreplace").decode("ascii") if plain else text, output)
        return
    for line in lines:
        console.print(line, soft_wrap=True)


def write(text: str, output: Path | None) -> None:
    """Write the text to the file, or to standard output.

    Raises:
        IoflusherError: the file cannot be written.
    """
    if output is None:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
        return
    try:
        output.write_text(text, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise IoflusherError(f"cannot write {output}: {error.strerror}", errno=error.errno) from error
