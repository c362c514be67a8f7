"""The screen of `ioflusher watch`: memory, daemons and alarms of one look, for rich."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from ioflusher.support.text import counted, printable
from ioflusher.watch.alarms import AlarmKind
from ioflusher.watch.record import Heading, ToldAlarm, WatchRecord
from ioflusher.watch.sample import (
    CountedBy,
    DaemonSample,
    MachineSample,
    MemorySample,
    ReclaimCount,
)
from ioflusher.watch.summary import DaemonSummary, summary

UNKNOWN = "?"
BAR = 16
STACK_LINES = 12  # of a stalled thread's
TOP_LINES = 6  # title and memory
ALARM_LINES = 8  # of a terminal that alarms have at least
# an old request, before it is an alarm
SLOW_S = 1.0


def screen(
    heading: Heading,
    record: WatchRecord,
    told: Sequence[tuple[float, ToldAlarm]],
    *,
    height: int | None = None,
) -> RenderableType:
    """Everything, alarms last, or where daemons would leave them no room before these.

    Args:
        heading, record: the machine, and one look at it.
        told: the alarms so far, each with when it was raised, the newest last.
        height: lines of a terminal; None for any number.
    """
    sample = record.sample
    daemons = (
        _daemons(sample)
        if sample.daemons
        else [Text("no daemon in the I/O path was found on this machine", style="dim")]
    )
    daemons += [Text(printable(note), style="yellow") for note in sample.notes]
    crowded = height is not None and bool(told) and TOP_LINES + len(daemons) + ALARM_LINES > height
    below = (_alarms(told), daemons) if crowded else (daemons, _alarms(told))
    return Group(_title(heading, sample), _memory(sample), Text(), *below[0], Text(), *below[1])


def _title(heading: Heading, sample: MachineSample) -> Table:
    """One line: where it is narrow the longer of the machine's and the kernel's name gives way."""
    when = datetime.fromtimestamp(sample.time).strftime("%Y-%m-%d %H:%M:%S")
    kernel = sample.counted_by is CountedBy.KERNEL
    counts = Text.assemble(
        ("counted by the kernel", "green") if kernel else ("sampled, not counted", "yellow")
    )
    if sample.lost:
        counts.append(f", {counted(sample.lost, 'event')} lost", "bold red")
    grid = Table.grid(Column(), Column(), Column(no_wrap=True), Column(no_wrap=True), padding=(0, 2, 0, 0))
    names = (Text(printable(heading.hostname), "bold"), Text(f"Linux {printable(heading.release)}"))
    for name in names:
        name.no_wrap, name.overflow = True, "ellipsis"
    grid.add_row(*names, when, counts)
    return grid


def _memory(sample: MachineSample) -> Table:
    memory = sample.memory
    grid = Table.grid(padding=(0, 1))
    for width in (len("memory free"), BAR + 2, None):
        grid.add_column(min_width=width, overflow="fold")
    marks = ", ".join(
        f"{name} {size(value)}"
        for name, value in (("min", memory.min_kib), ("low", memory.low_kib), ("high", memory.high_kib))
    )
    below = _below(memory)
    grid.add_row(
        "memory free", _bar(memory.free_kib, memory.total_kib, below), f"{size(memory.free_kib)} ({marks})"
    )
    held = _sum(memory.dirty_kib, memory.writeback_kib)
    grid.add_row(
        "dirty",
        _bar(held, memory.dirty_limit_kib, _dirty_style(held, memory)),
        f"{size(memory.dirty_kib)}, {size(memory.writeback_kib)} under writeback,"
        f" limit {size(memory.dirty_limit_kib)}",
    )
    if memory.swap_total_kib:
        used = memory.swap_total_kib - (memory.swap_free_kib or 0)
        full = used > memory.swap_total_kib * 0.9
        grid.add_row(
            "swap used",
            _bar(used, memory.swap_total_kib, "red" if full else "green"),
            f"{size(used)} of {size(memory.swap_total_kib)}",
        )
    lines = [
        f"{line.resource} {line.kind} {line.avg10:.0f} %" for line in sample.pressure if line.avg10 >= 0.5
    ]
    if sample.pressure:
        grid.add_row("pressure", "", ", ".join(lines) or "none")
    else:
        grid.add_row("pressure", "", UNKNOWN)
    return grid


def _below(memory: MemorySample) -> str:
    if memory.free_kib is None:
        return "green"
    if memory.min_kib is not None and memory.free_kib < memory.min_kib:
        return "bold red"
    return "yellow" if memory.low_kib is not None and memory.free_kib < memory.low_kib else "green"


def _dirty_style(held: int | None, memory: MemorySample) -> str:
    # mm/page-writeback.c: who dirties pages is paused from the middle of the two limits on
    limit, background = memory.dirty_limit_kib, memory.dirty_background_kib
    if held is None or limit is None or background is None:
        return "green"
    if held >= limit:
        return "bold red"
    return "yellow" if held > (limit + background) // 2 else "green"


def _bar(value: int | None, whole: int | None, style: str) -> Text:
    if value is None or not whole:
        return Text(UNKNOWN.ljust(BAR + 2), style="dim")
    filled = min(BAR, round(BAR * value / whole))
    return Text.assemble("[", ("#" * filled, style), ("." * (BAR - filled), "dim"), "]")


# name, width: 80 columns are enough, for the console of a machine that freezes has no more
COLUMNS = (
    ("state", 6),
    ("I/O", 6),
    ("no I/O", 8),
    ("reclaim", 9),
    ("pauses", 8),
    ("paused", 9),
    ("reqs", 6),
    ("oldest", 9),
    ("locked", 9),
    ("swapped", 9),
)


def _daemons(sample: MachineSample) -> list[RenderableType]:
    """A line of names, and for each daemon one of who it is, one of numbers, and what these are made of."""
    lines: list[RenderableType] = [Text("".join(name.rjust(width) for name, width in COLUMNS), style="dim")]
    for daemon in sample.daemons:
        lines += _daemon(daemon, sample)
    return lines


def _daemon(daemon: DaemonSample, sample: MachineSample) -> list[RenderableType]:
    total = summary(daemon, sample)
    whole = total.covered == total.to_cover
    flight = [device.in_flight for device in total.devices if device.in_flight is not None]
    ages = [device.oldest_s for device in total.devices if device.oldest_s is not None]
    oldest = max(ages, default=None)
    cells = (
        (f"{total.covered}/{total.to_cover}", "green" if whole else "yellow" if total.covered else "red"),
        _entered(total.with_io, "bold red"),
        _entered(total.without_io, ""),
        (seconds(total.reclaim_s), ""),
        (UNKNOWN if total.dirty_pauses is None else str(total.dirty_pauses), _red(total.dirty_pauses)),
        (seconds(total.dirty_paused_s), ""),
        (str(sum(flight)) if flight else UNKNOWN, ""),
        (seconds(oldest), _red(oldest is not None and oldest > SLOW_S)),
        (size(daemon.locked_kib), ""),
        (size(daemon.swapped_kib), _red(daemon.swapped_kib)),
    )
    who = Text.assemble(f"{daemon.pid} ", (printable(daemon.comm), "bold"), f"  {printable(daemon.serves)}")
    for wait, threads, longest in total.waits:
        who.append("  ")
        who.append(f"{wait.value}, {counted(threads, 'thread')}, {longest:.0f} s", "bold red")
    numbers = Text()
    for (text, style), (_, width) in zip(cells, COLUMNS, strict=True):
        numbers.append(text.rjust(width), style)
    return [who, numbers, *_details(total)]


def _details(total: DaemonSummary) -> list[RenderableType]:
    """The flags of entries into reclaim; of several devices each that has requests."""
    lines: list[RenderableType] = []
    for count in (*total.with_io, *total.without_io):
        if count.gfp_flags:
            where = ", of a memory cgroup" if count.cgroup else ""
            lines.append(Text(f"      {count.entered} {printable(count.gfp_flags)}{where}", style="dim"))
    if len(total.devices) > 1:
        for device in total.devices:
            if device.in_flight:
                name = printable(device.name)
                lines.append(
                    Text(f"      {name}: {device.in_flight}, {seconds(device.oldest_s)}", style="dim")
                )
    return lines


def _entered(counts: Sequence[ReclaimCount], style: str) -> tuple[str, str]:
    return str(sum(count.entered for count in counts)), style if counts else ""


def _red(wrong: object) -> str:
    return "bold red" if wrong else ""


def _alarms(told: Sequence[tuple[float, ToldAlarm]]) -> list[RenderableType]:
    if not told:
        return [Text("no alarm so far", style="dim")]
    lines = Table.grid(Column(no_wrap=True), Column(), padding=(0, 1, 0, 0))
    for when, each in reversed(told):
        kind = each.alarm.kind.value
        stall = each.alarm.kind is AlarmKind.STALL
        lines.add_row(
            datetime.fromtimestamp(when).strftime("%H:%M:%S"),
            Text.assemble((kind.upper() if stall else kind, _style(stall)), f": {printable(each.what)}"),
        )
        lines.add_row("", Text(printable(each.advice), style="cyan"))
        for frame in (each.stack or "").strip().splitlines()[:STACK_LINES]:
            lines.add_row("", Text(printable(frame), "dim"))
    return [lines]


def _style(stall: bool) -> str:
    return "bold white on red" if stall else "bold yellow"


def size(kib: int | None) -> str:
    """As "1.5 GiB"; "?" for unknown."""
    if kib is None:
        return UNKNOWN
    if kib < 1024:
        return f"{kib} KiB" if kib else "0"
    return f"{kib / 1024:.0f} MiB" if kib < 1 << 20 else f"{kib / (1 << 20):.1f} GiB"


def seconds(value: float | None) -> str:
    """As "1.25s"; "?" for unknown."""
    return UNKNOWN if value is None else f"{value:.2f}s" if value < 100 else f"{value:.0f}s"


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
