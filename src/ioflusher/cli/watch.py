"""`ioflusher watch`: live, and what was recorded: near misses and stalls of the daemons in the I/O path."""

import gc
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import verdict
from ioflusher.cli.file_parameters import InputFile
from ioflusher.cli.interruption import heed_signals
from ioflusher.cli.messages import remark
from ioflusher.cli.watch_files import dump_command, plot_command, recording_from
from ioflusher.cli.watching import prepare

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ioflusher.watch.record import Heading, ToldAlarm, WatchRecord, WatchRecorder

MOST_TOLD = 8  # alarms on the screen


@click.group(invoke_without_command=True)
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One refresh, an interval after the beginning; then end.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N refreshes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each refresh.")
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep every refresh in FILE; a recording that is there goes on.",
)
@click.option(
    "--stalled",
    type=click.FloatRange(0.5, 3600),
    default=5.0,
    show_default=True,
    help="Seconds after which a request whose daemon is held up is a stall.",
)
@click.option("--no-trace", is_flag=True, help="Do not have the kernel count; sample /proc.")
@click.pass_context
def watch(
    context: click.Context,
    interval: float,
    once: bool,
    count: int | None,
    as_json: bool,
    record: Path | None,
    stalled: float,
    no_trace: bool,
) -> None:
    """Show live what storage daemons wait for, and warn.

    Of near misses: a daemon in direct reclaim with I/O allowed, or in dirty throttling. And of stalls: a
    request that has waited too long meanwhile.

    The kernel counts, by histograms in a tracefs instance that ends with this program; that takes root.
    Without it /proc is sampled, which sees less, and the screen says so. Ctrl-C ends.

    Exit status: 1 if there was an alarm, else 2 if the recording lacks a refresh.
    """
    if context.invoked_subcommand is not None:
        return
    from ioflusher.watch.record import WatchRecorder, own_heading

    heed_signals(context)
    recorder = WatchRecorder(record) if record is not None else None
    heading = own_heading()
    try:
        looks = _looks(interval, 1 if once else count, stalled, trace=not no_trace)
        alarmed = _show(heading, _recorded(looks, recorder), as_json=as_json)
    finally:
        if recorder is not None:
            recorder.close()
            if recorder.lost:
                remark(
                    f"{recorder.lost} refreshes are not in {record}: {recorder.failed or 'it is too slow'}"
                )
    sys.exit(verdict(found=alarmed, failed=recorder is not None and recorder.lost > 0))


def _looks(interval: float, count: int | None, stalled_s: float, *, trace: bool) -> "Iterator[WatchRecord]":
    """Refreshes of this machine, each an interval after the one before, or at once under pressure."""
    from ioflusher.kernel.pressure import PressureTriggers
    from ioflusher.watch.discovery import Discovery
    from ioflusher.watch.sampler import make_sampler
    from ioflusher.watch.watcher import TRIGGERS, Watcher

    for note in prepare():
        remark(note)
    watcher = Watcher(make_sampler(trace=trace), Discovery(), stalled_s=stalled_s)
    trigger = PressureTriggers(TRIGGERS)
    try:
        watcher.begin()
        watcher.look()  # counts are compared with these
        gc.collect()
        gc.freeze()
        due = time.monotonic() + interval
        done = 0
        while count is None or done < count:
            # under pressure at once, but not more than twice as often
            if trigger.wait(due - time.monotonic()):
                time.sleep(max(0.0, min(due - time.monotonic(), interval / 2)))
            yield watcher.look()
            done += 1
            due = max(due, time.monotonic() - interval) + interval
    finally:
        trigger.close()
        watcher.close()


def _recorded(looks: "Iterable[WatchRecord]", recorder: "WatchRecorder | None") -> "Iterator[WatchRecord]":
    for record in looks:
        if recorder is not None:
            recorder.write(record)
        yield record


def _show(heading: "Heading", looks: "Iterable[WatchRecord]", *, as_json: bool) -> bool:
    """Every look, in one of three forms; whether there was an alarm."""
    if as_json:
        return _print_json(looks)
    from ioflusher.cli.console import output_console

    console = output_console()
    alarmed = False
    told: list[tuple[float, ToldAlarm]] = []
    with _screen(console) as show:
        for record in looks:
            alarmed = alarmed or bool(record.alarms)
            told = _newest(told, record)
            from ioflusher.report.watch_screen import screen

            height = console.height if sys.stdout.isatty() else None
            show(screen(heading, record, told, height=height))
    return alarmed


def _newest(told: "list[tuple[float, ToldAlarm]]", record: "WatchRecord") -> "list[tuple[float, ToldAlarm]]":
    """The alarms to show: one of the same thread and kind only once, as it was told last."""
    new = [(record.sample.time, alarm) for alarm in record.alarms]
    keys = {_same(alarm) for _, alarm in new}
    # a stall is told first, and shown on top
    return [*(each for each in told if _same(each[1]) not in keys), *reversed(new)][-MOST_TOLD:]


def _same(told: "ToldAlarm") -> tuple[object, ...]:
    alarm = told.alarm
    return alarm.kind, alarm.wait, alarm.pid, alarm.started, alarm.tid, alarm.device


def _print_json(looks: "Iterable[WatchRecord]") -> bool:
    from ioflusher.watch.record import encode

    alarmed = False
    for record in looks:
        alarmed = alarmed or bool(record.alarms)
        sys.stdout.buffer.write(encode(record) + b"\n")
        sys.stdout.flush()
    return alarmed


@contextmanager
def _screen(console: "Console") -> "Iterator[Callable[[RenderableType], None]]":
    """What shows a screen: in place on a terminal, where the last one stays, else one after the other."""
    if not sys.stdout.isatty():
        # both, or rich takes the size of a dumb terminal
        console.width, console.height = 200, 50
        yield console.print
        return
    from rich.live import Live

    last: RenderableType | None = None
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:

            def show(shown: "RenderableType") -> None:
                nonlocal last
                last = shown
                live.update(shown, refresh=True)

            yield show
    finally:
        if last is not None:  # what was in place is gone, and an alarm with its stack is worth keeping
            console.print(last)


@watch.command("replay")
@click.argument("file", type=InputFile())
@click.option(
    "--speed", type=click.FloatRange(0.01), help="How much faster than it was. [default: 1 on a terminal]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are.")
def replay_command(file: Path, speed: float | None, as_json: bool) -> None:
    """Show the recording FILE again.

    On a terminal at the speed at which it was recorded, elsewhere one screen for each alarm and for the end.

    Exit status: 1 if there is an alarm in it.
    """
    recording = recording_from(file)
    paced = speed or (1.0 if sys.stdout.isatty() else None)
    records: Iterable[WatchRecord] = recording.records
    if not as_json and paced is None:
        records = [each for each in records if each.alarms or each is recording.records[-1]]
    with suppress(KeyboardInterrupt):
        _show(recording.heading, _paced(records, None if as_json else paced), as_json=as_json)
    sys.exit(verdict(found=any(record.alarms for record in recording.records), failed=False))


def _paced(records: "Iterable[WatchRecord]", speed: float | None) -> "Iterator[WatchRecord]":
    before: float | None = None
    for record in records:
        if before is not None and speed is not None:
            # a recording that went on after a reboot has a gap of any length
            time.sleep(min(5.0, max(0.0, record.sample.monotonic - before)) / speed)
        before = record.sample.monotonic
        yield record


watch.add_command(plot_command)
watch.add_command(dump_command)
