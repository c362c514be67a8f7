"""`ioflusher watch plot` and `watch dump`: recordings as pictures and as metrics."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.file_parameters import DASH, InputFile
from ioflusher.cli.messages import remark
from ioflusher.cli.output import output_option, write_result
from ioflusher.cli.source import source_name
from ioflusher.errors import IoflusherError
from ioflusher.support.text import counted

if TYPE_CHECKING:
    from ioflusher.watch.record import WatchRecording


def recording_from(file: Path) -> "WatchRecording":
    """The recording in a file, or in standard input, with a record at least; broken lines are told.

    Raises:
        RecordingError: there is none in it.
    """
    from ioflusher.watch.record import RecordingError, parse_recording, read_recording

    name = source_name(file)
    recording = parse_recording(sys.stdin.buffer.read(), name) if file == DASH else read_recording(file)
    if recording.broken:
        remark(f"{name}: {counted(recording.broken, 'broken line')}, left out")
    if not recording.records:
        raise RecordingError(f"{name} has no record behind its heading")
    return recording


@click.command("plot")
@click.argument("file", type=InputFile())
@output_option
def plot_command(file: Path, output: Path | None) -> None:
    """Draw the recording FILE: memory, dirty pages, requests and their age, reclaim and throttling, alarms.

    The name of the output says the form, .svg or .png; SVG to standard output. Needs the extra
    ioflusher[lab].
    """
    from ioflusher.report.figure import SUFFIXES, figure_file
    from ioflusher.report.watch_pictures import over_time

    suffix = output.suffix if output is not None else ".svg"
    if suffix not in SUFFIXES:
        raise IoflusherError(f"cannot draw {output}: expected a name that ends with {' or '.join(SUFFIXES)}")
    recording = recording_from(file)
    write_result(figure_file("watch", lambda: over_time(recording), suffix), output)
    sys.exit(ExitStatus.DONE)


@click.command("dump")
@click.argument("file", type=InputFile())
@click.option("--openmetrics", is_flag=True, required=True, help="As OpenMetrics text with time stamps.")
@output_option
def dump_command(file: Path, openmetrics: bool, output: Path | None) -> None:
    """Print the recording FILE for other programs: `promtool tsdb create-blocks-from openmetrics`.

    Needs the extra ioflusher[export].
    """
    from ioflusher.report.metrics import openmetrics_of

    write_result(openmetrics_of(recording_from(file)), output)
    sys.exit(ExitStatus.DONE)
