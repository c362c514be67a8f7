"""A recording of `ioflusher watch` over time. Needs the extra `ioflusher[lab]`."""

import math
from typing import TYPE_CHECKING

from ioflusher.support.text import printable
from ioflusher.watch.alarms import AlarmKind
from ioflusher.watch.record import WatchRecord, WatchRecording
from ioflusher.watch.sample import MachineSample
from ioflusher.watch.summary import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# told apart by people who do not tell red from green, too (Okabe and Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MOST_DAEMONS = len(COLOURS)


def over_time(recording: WatchRecording) -> "Figure":
    """Memory, dirty pages, requests and what daemons were in, one below the other; alarms as marks."""
    from matplotlib.figure import Figure

    records = recording.records
    began = records[0].sample.time
    times = [record.sample.time - began for record in records]
    samples = [record.sample for record in records]
    figure = Figure(figsize=(9, 9), layout="constrained")
    memory, dirty, requests, waits = figure.subplots(4, 1, sharex=True)
    _memory(memory, times, samples)
    _dirty(dirty, times, samples)
    _requests(requests, times, samples)
    _waits(waits, times, samples)
    for axes in (memory, dirty, requests, waits):
        _alarms(axes, times, records)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    waits.set_xlabel(f"seconds since {recording.heading.began}")
    figure.suptitle(
        f"{printable(recording.heading.hostname)}, Linux {printable(recording.heading.release)}"
        "   (| near miss, shaded: stall)",
        fontsize="medium",
    )
    return figure


def _mib(values: list[int | None]) -> list[float]:
    return [math.nan if value is None else value / 1024 for value in values]


def _memory(axes: "Axes", times: list[float], samples: list[MachineSample]) -> None:
    axes.plot(times, _mib([each.memory.free_kib for each in samples]), color=COLOURS[0], label="free")
    for name, style in (("high", ":"), ("low", "--"), ("min", "-")):
        values = _mib([getattr(each.memory, f"{name}_kib") for each in samples])
        axes.plot(times, values, color="#777777", lw=1, ls=style, label=f"{name} watermark")
    if any(each.memory.swap_total_kib for each in samples):
        used = [(each.memory.swap_total_kib or 0) - (each.memory.swap_free_kib or 0) for each in samples]
        axes.plot(times, _mib([*used]), color=COLOURS[1], label="swap used")
    axes.set_ylabel("memory, MiB")


def _dirty(axes: "Axes", times: list[float], samples: list[MachineSample]) -> None:
    dirty = _mib([each.memory.dirty_kib for each in samples])
    writeback = _mib([each.memory.writeback_kib for each in samples])
    axes.stackplot(
        times, dirty, writeback, colors=(COLOURS[4], COLOURS[5]), labels=("dirty", "under writeback")
    )
    limit = _mib([each.memory.dirty_limit_kib for each in samples])
    if max(limit, default=0) < 10 * max(1.0, *(a + b for a, b in zip(dirty, writeback, strict=True))):
        axes.plot(times, limit, color="#777777", lw=1, label="limit")
    axes.set_ylabel("dirty pages, MiB")


def _requests(axes: "Axes", times: list[float], samples: list[MachineSample]) -> None:
    names = sorted({device.name for each in samples for device in each.devices})
    for number, name in enumerate(names[:MOST_DAEMONS]):
        ages = []
        for each in samples:
            found = next((device for device in each.devices if device.name == name), None)
            ages.append(math.nan if found is None or found.oldest_s is None else found.oldest_s)
        axes.plot(times, ages, color=COLOURS[number], label=printable(name))
    axes.set_ylabel("oldest request, s")


def _waits(axes: "Axes", times: list[float], samples: list[MachineSample]) -> None:
    """Seconds in reclaim and in dirty throttling, so far."""
    daemons = {(daemon.pid, daemon.started): daemon.comm for each in samples for daemon in each.daemons}
    for number, (key, comm) in enumerate(list(daemons.items())[:MOST_DAEMONS]):
        reclaim, paused = [], []
        for each in samples:
            found = next((d for d in each.daemons if (d.pid, d.started) == key), None)
            total = summary(found, each) if found is not None else None
            reclaim.append(math.nan if total is None or total.reclaim_s is None else total.reclaim_s)
            paused.append(math.nan if total is None or total.dirty_paused_s is None else total.dirty_paused_s)
        who = f"{printable(comm)} ({key[0]})"
        axes.plot(times, reclaim, color=COLOURS[number], label=f"{who} in reclaim")
        axes.plot(times, paused, color=COLOURS[number], ls="--", label=f"{who} paused")
    axes.set_ylabel("daemons, s so far")


def _alarms(axes: "Axes", times: list[float], records: tuple[WatchRecord, ...]) -> None:
    for before, time, record in zip([0.0, *times], times, records, strict=False):
        kinds = {told.alarm.kind for told in record.alarms}
        if AlarmKind.STALL in kinds:
            axes.axvspan(before, time, color="#d55e00", alpha=0.18, lw=0)
        elif AlarmKind.NEAR_MISS in kinds:
            axes.plot([time], [1], "|", color="#d55e00", ms=8, transform=axes.get_xaxis_transform())
