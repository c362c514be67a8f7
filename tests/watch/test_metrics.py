"""Metrics of samples: what is added up, what goes on, and what is bounded."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from ioflusher.kernel.stall import SelfWait
from ioflusher.report.metrics import MetricsCollector
from ioflusher.watch.sample import CountedBy, DeviceSample, MachineSample
from tests.watch.samples import COVERED, KERNEL, NOIO, entries, sample, thread

LABELS = ("daemon", "serves", "io", "cgroup", "covered", "wait", "device")


def values(*samples: MachineSample) -> dict[tuple[str, ...], float]:
    """Of the last of these samples: name and label values to value."""
    collector = MetricsCollector()
    for each in samples:
        collector.take(each)
    return {
        (sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(collector.text())
        for sample in family.samples
    }


WHO = ("nbd-server", "NBD server of /dev/nbd0")
ENTRIES = "ioflusher_direct_reclaim_entries_total"
PAUSES = "ioflusher_dirty_throttling_pauses_total"


def test_threads_are_added_up() -> None:
    """By what was allowed; coverage of those that need it; what goes on now."""
    found = values(
        sample(
            thread(11, reclaim=(entries(KERNEL, 3), entries(NOIO, 4)), reclaim_s=1.5, wait=SelfWait.RECLAIM),
            thread(12, reclaim=(entries(KERNEL, 2),), reclaim_s=0.5, flags=COVERED),
            thread(13, aside=True),
            oldest_s=2.5,
        )
    )
    assert found[ENTRIES, *WHO, "true", "false"] == 5
    assert found[ENTRIES, *WHO, "false", "false"] == 4
    assert found["ioflusher_direct_reclaim_seconds_total", *WHO] == 2.0
    assert found["ioflusher_daemon_threads", *WHO, "true"] == 1
    assert found["ioflusher_daemon_threads", *WHO, "false"] == 1
    assert found["ioflusher_daemon_waiting_threads", *WHO, "direct_reclaim"] == 1
    assert found["ioflusher_daemon_waiting_threads", *WHO, "dirty_throttling"] == 0
    assert found["ioflusher_oldest_request_seconds", *WHO, "nbd0"] == 2.5
    assert found["ioflusher_counted_by_kernel",] == 1


def test_series_are_there_before_anything_happens() -> None:
    """Else the first near miss would be no increase."""
    found = values(sample())
    assert {key[3:]: value for key, value in found.items() if key[0] == ENTRIES} == {
        ("false", "false"): 0,
        ("false", "true"): 0,
        ("true", "false"): 0,
        ("true", "true"): 0,
    }
    assert found[PAUSES, *WHO] == 0


def test_a_restarted_daemon_goes_on_in_its_series() -> None:
    """Its counts begin anew, the counter does not fall."""
    first = sample(thread(dirty_pauses=5))
    found = values(first, sample(thread(dirty_pauses=2), pid=99, started=9))
    assert found[PAUSES, *WHO] == 7


def test_two_daemons_of_one_name() -> None:
    """One series, both in it: labels have no process numbers."""
    one, other = sample(thread(dirty_pauses=5)), sample(thread(21, dirty_pauses=2), pid=20)
    both = replace(one, daemons=(*one.daemons, *other.daemons))
    found = values(both)
    assert found[PAUSES, *WHO] == 7
    assert found["ioflusher_daemon_threads", *WHO, "false"] == 2


def test_what_is_unknown_has_no_series() -> None:
    """Not zero: nobody knows."""
    bare = thread(dirty_pauses=None, dirty_paused_s=None)
    now = replace(
        sample(bare), counted_by=CountedBy.SAMPLED, devices=(DeviceSample("nbd0", None, None, None),)
    )
    found = values(now)
    assert (PAUSES, *WHO) not in found
    assert ("ioflusher_oldest_request_seconds", *WHO, "nbd0") not in found
    assert ("ioflusher_daemon_locked_bytes", *WHO) not in found
    assert found["ioflusher_counted_by_kernel",] == 0


def test_many_devices() -> None:
    """A target with a hundred disks has eight series."""
    names = tuple(f"sd{number}" for number in range(100))
    now = sample()
    now = replace(
        now,
        devices=tuple(DeviceSample(name, 1, 1, 1.0) for name in names),
        daemons=(replace(now.daemons[0], devices=names),),
    )
    assert len([key for key in values(now) if key[0] == "ioflusher_oldest_request_seconds"]) == 8


def test_before_the_first_sample() -> None:
    """Nothing, and no error."""
    assert MetricsCollector().text() == ""
