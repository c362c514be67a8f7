"""An experiment on a terminal: the story in ten lines, then the evidence."""

from collections import Counter
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ioflusher.lab.outcome import DaemonThread, Ending, Experiment, Half, HalfOutcome, Run, half_words
from ioflusher.report.experiment_near_misses import near_miss_rows
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted, printable

_STYLES = {
    HalfOutcome.FINISHED: "bold green",
    HalfOutcome.FROZEN: "bold red",
    HalfOutcome.PANICKED: "bold red",
    HalfOutcome.OUT_OF_MEMORY: "bold yellow",
    HalfOutcome.LOST: "bold yellow",
}


def print_experiment(experiment: Experiment, console: Console) -> None:
    """Print the whole: the story and the verdict first, then each run's evidence."""
    console.print(_story(experiment))
    planned = experiment.plan.runs
    for number, run in enumerate(experiment.runs, start=1):
        if planned > 1:
            console.print(Text(f"\nrun {number} of {planned}", style="bold"))
        console.print(_evidence(run))
    if experiment.unfinished:
        console.print(Text("\na run that did not come to its end", style="bold"))
        console.print(_evidence(experiment.unfinished))


def print_half(number: int, planned: int, half: Half, console: Console) -> None:
    """Print one line for a half that has just ended; `number` is its run's, from 1."""
    run = f"run {number} of {planned}, " if planned > 1 else ""
    console.print(Text.assemble(f"{run}{_name(half)}: ", _outcome_and_sentence(half)), soft_wrap=True)


def ending_sentence(experiment: Experiment) -> str:
    """How far the experiment came, and why it ended there."""
    runs = f"{len(experiment.runs)} of {counted(experiment.plan.runs, 'run')}"
    match experiment.ending:
        case Ending.COMPLETE if len(experiment.runs) < experiment.plan.runs:
            return f"{runs} are still kept"
        case Ending.COMPLETE:
            return f"{runs} played"
        case Ending.INTERRUPTED:
            return f"interrupted after {runs}"
        case Ending.FAILED:
            return f"failed after {runs}: {experiment.error}"
        case Ending.UNKNOWN:
            return f"still being played, or killed, after {runs}"


def half_sentence(half: Half) -> str:
    """What became of a half, with its numbers."""
    requests = f"{half.completed} requests completed"
    match half.outcome:
        case HalfOutcome.FINISHED:
            came_back = f"{format_size(half.verified_bytes or 0)} read back"
            right = "all as written" if half.wrong_chunks == 0 else f"{half.wrong_chunks} CHUNKS WRONG"
            return f"after {half.when_s:.1f} s: {requests}, {came_back}, {right}{_file_system(half)}"
        case HalfOutcome.FROZEN:
            stuck = f"{half.in_flight} in flight, none completed since"
            return f"after {half.when_s:.1f} s: {requests}, {stuck}. {half.detail}"
        case _:
            return f"{half.detail} {requests} by then."


def _file_system(half: Half) -> str:
    """What was found in the file system, where there is one and it was looked for."""
    if half.file_system is None:
        return ""
    words = {True: "file system clean", False: "FILE SYSTEM DAMAGED", None: "FILE SYSTEM NOT CHECKED"}
    return f", {words[half.file_system.clean]}"


def _name(half: Half) -> str:
    return "with" if half.io_flusher else "without"


def _outcome_and_sentence(half: Half) -> Text:
    return Text.assemble((half.outcome.value.upper(), _style(half)), " ", printable(half_sentence(half)))


def _style(half: Half) -> str:
    if half.outcome is HalfOutcome.FINISHED and not half.lived:
        return _STYLES[HalfOutcome.PANICKED]
    return _STYLES[half.outcome]


def _story(experiment: Experiment) -> RenderableType:
    plan = experiment.plan
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(plan.scenario, Text(printable(plan.title), style="bold"))
    grid.add_row("served", Text(printable(plan.served)))
    grid.add_row("pressed", Text(printable(plan.pressed)))
    grid.add_row("machine", Text(printable(plan.setting)))
    if plan.runs == 1:
        run = experiment.runs[0] if experiment.runs else experiment.unfinished
        for half in run.halves if run else ():
            grid.add_row(_name(half), _outcome_and_sentence(half))
    else:
        for name, halves in (
            ("without", [run.without for run in experiment.runs if run.without]),
            ("with", [run.with_ for run in experiment.runs if run.with_]),
        ):
            if halves:
                grid.add_row(name, _tally(halves))
    if experiment.ending is not Ending.COMPLETE or len(experiment.runs) < plan.runs:
        lines = ending_sentence(experiment).splitlines()
        grid.add_row("ended", Text("\n".join(map(printable, lines)), style="bold yellow"))
    grid.add_row("verdict", Text(experiment.verdict, style="bold"))
    return grid


def _tally(halves: list[Half]) -> Text:
    """What became of the halves of several runs, counted."""
    fates: dict[str, list[Half]] = {}
    for half in halves:
        fates.setdefault(half_words(half), []).append(half)
    text = Text()
    for words, alike in sorted(fates.items(), key=lambda fate: -len(fate[1])):
        when = sorted(half.when_s for half in alike)
        text.append(f"{words.upper()} {len(alike)} of {len(halves)}", style=_style(alike[0]))
        text.append(f" ({when[0]:.1f} to {when[-1]:.1f} s)  ")
    return text


def file_system_words(half: Half) -> str:
    """What was found when the file system was looked through, and what looked; "-" where nobody did."""
    check = half.file_system
    if check is None:
        return "-"
    if check.clean:
        return f"clean ({printable(check.command)})"
    said = printable("; ".join(check.said.splitlines()[-5:]) or "it said nothing")
    return f"{'not checked' if check.clean is None else 'DAMAGED'} ({printable(check.command)}): {said}"


def guest_memory_words(half: Half) -> str:
    """What the guest's memory said that nobody in the guest could say any more; "-" where nobody asked."""
    memory = half.guest_memory
    if memory is None:
        return "-"
    if memory.unreadable:
        return f"NOT READ: {printable(memory.unreadable)}"
    mib = {name: f"{kib / 1024:.0f} MiB" for name, kib in memory.memory_kib.items()}
    parts = []
    if mib:
        parts.append(
            f"{mib['MemFree']} free, {mib['Active(file)']} active and {mib['Inactive(file)']} inactive "
            f"file cache, {mib['Dirty']} dirty, {mib['Writeback']} in writeback"
        )
    if memory.in_flight is not None:
        parts.append(f"{counted(memory.in_flight, 'request')} in flight")
    found = counted(len(memory.daemon), "thread")
    waiting = counted(len(memory.waiting), "other task")
    parts.append(f"{found} of the daemon and {waiting} in uninterruptible sleep, with flags and stacks")
    parts += [f"NOT FOUND: {printable(sentence)}" for sentence in memory.missing]
    return f"read from outside: {'; '.join(parts)}"


def _evidence(run: Run) -> RenderableType:
    table = Table(box=None, padding=(0, 2), title=None, show_edge=False)
    table.add_column("", style="bold")
    for half in run.halves:
        table.add_column(_name(half), overflow="fold")
    for label, cell in _ROWS:
        table.add_row(label, *(cell(half) for half in run.halves))
    if any(half.hardening for half in run.halves):
        table.add_row("hardening", *(printable("; ".join(half.hardening)) for half in run.halves))
    if any(half.faults for half in run.halves):
        table.add_row("faults", *(fault_words(half) for half in run.halves))
    if any(half.file_system for half in run.halves):
        table.add_row("file system", *(file_system_words(half) for half in run.halves))
    if any(half.guest_memory for half in run.halves):
        table.add_row("guest's memory", *(guest_memory_words(half) for half in run.halves))
    if any(half.near_misses for half in run.halves):
        for rows in zip(*(near_miss_rows(half) for half in run.halves), strict=True):
            table.add_row(rows[0][0], *(words for _, words in rows))
    parts: list[RenderableType] = [Text(), table]
    if played := played_sentence(run):
        parts += [Text(), Text(played)]
    for half in run.halves:
        if half.witness is not None:
            parts.append(_stack(half.witness, from_memory=_memory_read(half)))
        if half.console_tail and half.outcome is not HalfOutcome.FINISHED:
            parts.append(Text(f"\nlast lines of the guest's console, {_name(half)} the state:"))
            parts += [Text("  " + printable(line)) for line in half.console_tail.splitlines()]
    return Group(*parts)


def played_sentence(run: Run) -> str:
    """When a run was played, and what else this machine did; empty where neither is known."""
    parts = []
    if run.began_at is not None:
        parts.append(f"played {datetime.fromtimestamp(run.began_at, UTC):%Y-%m-%d %H:%M} UTC")
    if run.host is not None:
        host = run.host
        parts.append(
            f"this machine's load was {host.before:.1f} before and {host.after:.1f} after, "
            f"on {counted(host.cpus, 'CPU')}"
        )
    return "; ".join(parts)


def fault_words(half: Half) -> str:
    """What the scenario did to the stack, and when."""
    return (
        "; ".join(
            f"{fault.kind} {'from' if fault.begins else 'until'} {fault.time_s:.1f} s"
            + (f" FAILED: {printable(fault.failed)}" if fault.failed else "")
            for fault in half.faults
        )
        or "none came to pass"
    )


def _free_range(half: Half) -> str:
    free = [sample.memory_kib["MemFree"] for sample in half.samples if "MemFree" in sample.memory_kib]
    if not free:
        return "unknown"
    last = half.samples[-1].memory_kib
    cache = last.get("Active(file)", 0) + last.get("Inactive(file)", 0)
    return (
        f"{free[0] / 1024:.0f} MiB free at first, {min(free) / 1024:.0f} MiB at least, "
        f"{free[-1] / 1024:.0f} MiB in the end; {cache / 1024:.0f} MiB of file cache then"
    )


def flags_sentence(half: Half) -> str:
    """How many of the daemon's threads carry the state."""
    if not half.threads:
        return "unknown"
    covered = sum(thread.io_flusher for thread in half.threads)
    counts = Counter(thread.flags for thread in half.threads)
    words = ", ".join(f"{flags:#010x}{f' x{n}' if n > 1 else ''}" for flags, n in counts.items())
    return f"{covered} of {len(half.threads)} threads carry the state ({words})"


_ROWS = (
    ("outcome", half_words),
    ("guest's first event", lambda half: f"{half.boot_s:.1f} s after power-on"),
    ("virtual machine ran", lambda half: f"{half.wall_s:.1f} s"),
    ("last progress", lambda half: f"{half.when_s:.1f} s after the workload began"),
    ("requests", lambda half: f"{half.completed} completed, {half.in_flight} in flight"),
    ("memory", _free_range),
    ("dirty, writeback", lambda half: _dirty(half)),
    ("daemon's threads", flags_sentence),
)


def _dirty(half: Half) -> str:
    if not half.samples:
        return "unknown"
    last = half.samples[-1].memory_kib
    return f"{last.get('Dirty', 0) / 1024:.1f} MiB, {last.get('Writeback', 0) / 1024:.1f} MiB in the end"


def _memory_read(half: Half) -> bool:
    """Whether its threads are from the guest's memory."""
    return half.guest_memory is not None and bool(half.guest_memory.daemon)


def _stack(thread: DaemonThread, *, from_memory: bool) -> RenderableType:
    """The daemon's kernel stack, innermost first, with each function's role in the margin."""
    assert thread.explanation is not None
    where = ", read from the guest's memory" if from_memory else ""
    lines = [
        Text(
            f"\nkernel stack of the daemon's thread {thread.tid} ({printable(thread.comm)}), "
            f"state {thread.state}, flags {thread.flags:#010x}"
            f"{where}:"
        )
    ]
    for position, marked in enumerate(thread.explanation.marked):
        here = position == 0
        lines.append(
            Text.assemble(
                ("  > " if here else "    "),
                (f"{marked.label:18}", "cyan"),
                (printable(marked.frame.function), "bold red" if here else ""),
                ("   <- it waits here, for itself" if here else ""),
            )
        )
    return Group(*lines)
