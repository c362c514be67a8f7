"""Samples as metrics, by the conventions of Prometheus. Needs the extra `ioflusher[export]`.

Only what node_exporter has not: it has memory, pressure and disks. Labels are bounded: a daemon is told by
its name and what it serves, not by its number, so that restarts make no new series; threads are added up.
`serves` names no more than a few targets, however many there are (`AuditedDaemon.serves`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from threading import Lock

from ioflusher.errors import IoflusherError
from ioflusher.watch.record import WatchRecording
from ioflusher.watch.sample import SEEN_WAITS, CountedBy, DaemonSample, MachineSample
from ioflusher.watch.summary import summary

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
except ImportError as missing:  # pragma: no cover
    raise IoflusherError(
        "metrics are made with a package that is not installed: prometheus_client",
        hint="pip install 'ioflusher[export]'",
    ) from missing

# of one daemon: a target may have a thousand disks
MOST_DEVICES = 8
DAEMON = ("daemon", "serves")
RECLAIM = (*DAEMON, "io", "cgroup")


@dataclass(frozen=True, slots=True)
class DaemonLabels:
    """How a daemon is told from others in metrics."""

    daemon: str
    serves: str

    @property
    def values(self) -> list[str]:
        """For DAEMON."""
        return [self.daemon, self.serves]


def labels(daemon: DaemonSample) -> DaemonLabels:
    """Its name, and what it serves."""
    return DaemonLabels(daemon.comm, daemon.serves)


class Totals:
    """Counters that go on when a daemon is restarted, or several have the same labels."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._before: dict[tuple[object, ...], float] = {}

    def take(self, sample: MachineSample) -> None:
        """Add what happened since the sample before."""
        now: dict[tuple[object, ...], float] = {}
        for daemon in sample.daemons:
            who = labels(daemon)
            # a series that began with the first entry would have no increase
            for io, cgroup in product(("false", "true"), repeat=2):
                self._sums["reclaim", *who.values, io, cgroup] += 0.0
            for thread in daemon.threads:
                one = (daemon.pid, daemon.started, thread.tid)
                for count in thread.reclaim:
                    what = ("reclaim", *who.values, _word(count.io), _word(count.cgroup))
                    key = (*one, *what)
                    now[key] = now.get(key, 0) + count.entered
                for name, value in (
                    ("reclaim_s", thread.reclaim_s),
                    ("pauses", thread.dirty_pauses),
                    ("paused_s", thread.dirty_paused_s),
                ):
                    if value is not None:
                        now[(*one, name, *who.values)] = value
        for key, value in now.items():
            what = tuple(str(part) for part in key[3:])
            # one that is smaller than before began anew
            self._sums[what] += value - min(value, self._before.get(key, 0))
        self._before = now

    def of(self, name: str) -> Iterator[tuple[list[str], float]]:
        """Each series of a counter: its labels' values and its value."""
        for key, value in self._sums.items():
            if key[0] == name:
                yield list(key[1:]), value


def families(sample: MachineSample, totals: Totals, *, at: float | None = None) -> Iterator[Metric]:
    """All metrics of a sample, the counters as they are in `totals`; `at`: their time stamp."""
    counted = GaugeMetricFamily(
        "ioflusher_counted_by_kernel",
        "Whether reclaim and throttling are counted by the kernel (1) or only sampled (0).",
    )
    counted.add_metric([], float(sample.counted_by is CountedBy.KERNEL), timestamp=at)
    yield counted
    looked = GaugeMetricFamily(
        "ioflusher_last_look_timestamp_seconds", "When the machine was last looked at."
    )
    looked.add_metric([], sample.time, timestamp=at)
    yield looked
    lost = CounterMetricFamily("ioflusher_lost_events", "Events that the kernel could not count.")
    lost.add_metric([], sample.lost, timestamp=at)
    yield lost
    yield from _counters(totals, at)
    yield from _daemons(sample, at)
    yield from _requests(sample, at)


def _counters(totals: Totals, at: float | None) -> Iterator[Metric]:
    for name, metric, words, names in (
        (
            "reclaim",
            "ioflusher_direct_reclaim_entries",
            "Times that threads of a daemon entered direct reclaim; io says whether I/O was allowed.",
            RECLAIM,
        ),
        (
            "reclaim_s",
            "ioflusher_direct_reclaim_seconds",
            "Seconds that threads of a daemon spent in direct reclaim.",
            DAEMON,
        ),
        (
            "pauses",
            "ioflusher_dirty_throttling_pauses",
            "Pauses of threads of a daemon in balance_dirty_pages().",
            DAEMON,
        ),
        (
            "paused_s",
            "ioflusher_dirty_throttling_seconds",
            "Seconds that threads of a daemon were paused in balance_dirty_pages().",
            DAEMON,
        ),
    ):
        family = CounterMetricFamily(metric, words, labels=list(names))
        for values, value in totals.of(name):
            family.add_metric(values, value, timestamp=at)
        yield family


def _daemons(sample: MachineSample, at: float | None) -> Iterator[Metric]:
    threads = GaugeMetricFamily(
        "ioflusher_daemon_threads",
        "Threads of a daemon that need the IO_FLUSHER state; covered says whether they carry it.",
        labels=[*DAEMON, "covered"],
    )
    waiting = GaugeMetricFamily(
        "ioflusher_daemon_waiting_threads",
        "Threads of a daemon that are in direct reclaim, or in dirty throttling, now.",
        labels=[*DAEMON, "wait"],
    )
    locked = GaugeMetricFamily(
        "ioflusher_daemon_locked_bytes", "Locked memory of a daemon.", labels=[*DAEMON]
    )
    swapped = GaugeMetricFamily(
        "ioflusher_daemon_swapped_bytes", "Memory of a daemon in swap.", labels=[*DAEMON]
    )
    for who, daemons in _alike(sample.daemons).items():
        sums = [summary(daemon, sample) for daemon in daemons]
        covered = sum(each.covered for each in sums)
        threads.add_metric([*who.values, "true"], covered, timestamp=at)
        threads.add_metric(
            [*who.values, "false"], sum(each.to_cover for each in sums) - covered, timestamp=at
        )
        for wait in SEEN_WAITS:
            number = sum(many for each in sums for kind, many, _ in each.waits if kind is wait)
            waiting.add_metric([*who.values, wait.value.replace(" ", "_")], number, timestamp=at)
        for family, sizes in (
            (locked, [daemon.locked_kib for daemon in daemons]),
            (swapped, [daemon.swapped_kib for daemon in daemons]),
        ):
            known = [size for size in sizes if size is not None]
            if known:
                family.add_metric(who.values, sum(known) * 1024, timestamp=at)
    yield from (threads, waiting, locked, swapped)


def _requests(sample: MachineSample, at: float | None) -> Iterator[Metric]:
    # node_disk_io_now has the number in flight
    oldest = GaugeMetricFamily(
        "ioflusher_oldest_request_seconds",
        "Age of the oldest request in flight of a device that a daemon serves, at least; 0 without one.",
        labels=[*DAEMON, "device"],
    )
    for who, daemons in _alike(sample.daemons).items():
        known = {device.name: device for daemon in daemons for device in summary(daemon, sample).devices}
        for device in list(known.values())[:MOST_DEVICES]:
            if device.oldest_s is not None:
                oldest.add_metric([*who.values, device.name], device.oldest_s, timestamp=at)
    yield oldest


def _alike(daemons: Iterable[DaemonSample]) -> dict[DaemonLabels, list[DaemonSample]]:
    found: defaultdict[DaemonLabels, list[DaemonSample]] = defaultdict(list)
    for daemon in daemons:
        found[labels(daemon)].append(daemon)
    return dict(found)


def _word(value: bool) -> str:
    return "true" if value else "false"


class MetricsCollector:
    """The newest sample as metrics; taken by one thread, asked for by others. One of prometheus_client's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._totals = Totals()
        self._sample: MachineSample | None = None

    def take(self, sample: MachineSample) -> None:
        """This is the newest."""
        with self._lock:
            self._totals.take(sample)
            self._sample = sample

    def collect(self) -> Iterable[Metric]:
        """Its metrics; none before the first."""
        with self._lock:
            return [] if self._sample is None else list(families(self._sample, self._totals))

    def text(self) -> str:
        """As Prometheus' text format has them."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()


def openmetrics_of(recording: WatchRecording) -> str:
    """A recording as OpenMetrics text, every sample with its time."""
    totals = Totals()
    merged: dict[str, Metric] = {}
    for record in recording.records:
        totals.take(record.sample)
        for family in families(record.sample, totals, at=record.sample.time):
            if family.name in merged:
                merged[family.name].samples += family.samples
            else:
                merged[family.name] = family
    for family in merged.values():
        # the samples of one series one after the other, as the format has it
        family.samples.sort(key=lambda sample: (sample.name, sorted(sample.labels.items())))
    text: bytes = openmetrics_text(_Fixed(tuple(merged.values())))  # type: ignore[no-untyped-call]
    return text.decode()


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What the exposition asks for metrics."""

    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.metrics
