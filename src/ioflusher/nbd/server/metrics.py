"""A server's statistics as Prometheus metrics; counted by the connections, added up when somebody asks."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.server.counters import Counters, Statistics

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BYTES = {"bytes_read": "read", "bytes_written": "written"}
_COMMANDS = [field.name for field in fields(Counters) if field.name not in _BYTES and field.name != "errors"]


class ServerCollector:
    """One of prometheus_client's collectors: what `statistics` returns, when it is asked for."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def collect(self) -> "Iterable[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._statistics()
        of_export = ["export"]
        open_ = GaugeMetricFamily("ioflusher_nbd_connections", "Connections now.", labels=of_export)
        done = CounterMetricFamily("ioflusher_nbd_requests", "Requests done.", labels=[*of_export, "command"])
        failed = CounterMetricFamily(
            "ioflusher_nbd_failed_requests", "Requests answered with an error.", labels=of_export
        )
        moved = CounterMetricFamily("ioflusher_nbd_bytes", "Payload.", labels=[*of_export, "direction"])
        for name, counters in now.exports.items():
            open_.add_metric([name], now.connections.get(name, 0))
            failed.add_metric([name], counters.errors)
            for command in _COMMANDS:
                done.add_metric([name, command], getattr(counters, command))
            for field, direction in _BYTES.items():
                moved.add_metric([name, direction], getattr(counters, field))
        yield from (open_, done, failed, moved)
        yield GaugeMetricFamily("ioflusher_nbd_handshakes", "Clients without an export yet.", now.handshakes)
        yield CounterMetricFamily("ioflusher_nbd_clients", "Connections accepted.", now.accepted)
        yield CounterMetricFamily("ioflusher_nbd_refused", "Connections refused: too many.", now.refused)


def serve_metrics(
    statistics: Callable[[], Statistics], host: str, port: int
) -> tuple[int, Callable[[], None]]:
    """Answer HTTP requests for the metrics in a thread of its own; returns the port, and what ends that.

    Raises:
        NbdError: prometheus_client is not installed, or the address cannot be had.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise NbdError(
            "metrics need a package that is not installed: prometheus_client",
            hint="pip install 'ioflusher[export]'",
        ) from error
    registry = CollectorRegistry()
    registry.register(ServerCollector(statistics))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise NbdError(
            f"cannot serve metrics on {host!r} port {port}: {error.strerror}", errno=error.errno
        ) from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, end
