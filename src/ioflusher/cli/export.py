"""`ioflusher export`: what daemons in the I/O path wait for, as metrics for Prometheus."""

import errno
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.host_port import host_port
from ioflusher.cli.interruption import heed_signals
from ioflusher.cli.messages import remark
from ioflusher.cli.output import write_result
from ioflusher.cli.watching import prepare, swept
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.report.metrics import MetricsCollector

LOOPBACK = "127.0.0.1"
PORT = 9847
# how often request ages are looked at between two scrapes
LOOK_S = 1.0


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or [HOST]:PORT."""
    return host_port(text, host=LOOPBACK, example=f"{LOOPBACK}:{PORT}")


@click.command()
@click.option(
    "--listen",
    type=address,
    metavar="HOST:PORT",
    help=f"Where to serve /metrics; {LOOPBACK}:{PORT} by default, this machine alone.",
)
@click.option(
    "--textfile",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write FILE for node_exporter's textfile collector instead; its name ends with .prom.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=15.0,
    show_default=True,
    help="Seconds between files.",
)
@click.option("--once", is_flag=True, help="Print the metrics of one look, or write the file once, and end.")
@click.option("--no-trace", is_flag=True, help="Do not have the kernel count; sample /proc.")
@click.option("--sweep", is_flag=True, help="Remove from tracefs what a killed one left, and end.")
@click.pass_context
def export(
    context: click.Context,
    listen: tuple[str, int] | None,
    textfile: Path | None,
    interval: float,
    once: bool,
    no_trace: bool,
    sweep: bool,
) -> None:
    """Export what storage daemons wait for to Prometheus.

    Only what node_exporter has not: threads with the IO_FLUSHER state, direct reclaim with I/O allowed, dirty
    throttling, the age of the oldest request, by daemon. Needs the extra ioflusher[export].
    """
    if sweep:
        swept()
        sys.exit(ExitStatus.DONE)
    if listen is not None and textfile is not None:
        raise click.UsageError("--listen and --textfile contradict each other")
    if textfile is not None and textfile.suffix != ".prom":
        raise click.UsageError(f"node_exporter reads names that end with .prom alone, found {textfile}")
    from ioflusher.report.metrics import MetricsCollector

    heed_signals(context)
    for note in prepare():
        remark(note)
    collector = MetricsCollector()
    if once:
        _run(collector, textfile, once=True, interval=interval, trace=not no_trace)
    else:
        if textfile is None:
            _serve(collector, *(listen or (LOOPBACK, PORT)))
        with suppress(KeyboardInterrupt):
            _run(collector, textfile, once=False, interval=interval, trace=not no_trace)
    sys.exit(ExitStatus.DONE)


def _run(
    collector: "MetricsCollector", textfile: Path | None, *, once: bool, interval: float, trace: bool
) -> None:
    """Look again and again; between files as often as request ages need it."""
    from ioflusher.watch.discovery import Discovery
    from ioflusher.watch.sampler import make_sampler
    from ioflusher.watch.watcher import Watcher

    watcher = Watcher(make_sampler(trace=trace), Discovery())
    try:
        watcher.begin()
        collector.take(watcher.look().sample)
        if once:
            write_result(collector.text(), textfile)
            return
        if textfile is not None:
            write_result(collector.text(), textfile)  # what cannot be written at first is a mistake
        written = time.monotonic()
        while True:
            time.sleep(min(LOOK_S, interval))
            collector.take(watcher.look().sample)
            if textfile is not None and time.monotonic() - written >= interval:
                written = time.monotonic()
                _write(collector, textfile)
    finally:
        watcher.close()


def _write(collector: "MetricsCollector", textfile: Path) -> None:
    """The file, whole or not at all. A disk that is full for a while ends nothing."""
    try:
        write_result(collector.text(), textfile)
    except IoflusherError as error:
        remark(str(error))


def _serve(collector: "MetricsCollector", host: str, port: int) -> None:
    """Serve /metrics in a thread.

    Raises:
        IoflusherError: the address cannot be listened at.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise IoflusherError(
            f"cannot listen at {host}:{port}: {error.strerror}",
            errno=error.errno,
            hint="another export may run here; --listen names another address"
            if error.errno == errno.EADDRINUSE
            else None,
        ) from error
    remark(f"serving http://{host}:{server.server_port}/metrics")
