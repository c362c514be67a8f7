"""An experiment on a terminal: the story in ten lines, then the evidence."""

from collections import Counter

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ioflusher.lab.outcome import DaemonThread, Experiment, Half, Outcome, Run
from ioflusher.support.sizes import format_size
from ioflusher.support.text import printable

_STYLES = {
    Outcome.FINISHED: "bold green",
    Outcome.FROZEN: "bold red",
    Outcome.PANICKED: "bold red",
    Outcome.OUT_OF_MEMORY: "bold yellow",
    Outcome.LOST: "bold yellow",
}


def print_experiment(experiment: Experiment, console: Console) -> None:
    """Print the whole: the story and the verdict first, then each run's evidence."""
    console.print(_story(experiment))
    for number, run in enumerate(experiment.runs, start=1):
        if len(experiment.runs) > 1:
            console.print(Text(f"\nrun {number} of {len(experiment.runs)}", style="bold"))
        console.print(_evidence(run))


def half_sentence(half: Half) -> str:
    """What became of a half, with its numbers."""
    requests = f"{half.completed} requests completed"
    match half.outcome:
        case Outcome.FINISHED:
            came_back = f"{format_size(half.verified_bytes or 0)} read back"
            right = "all as written" if half.wrong_chunks == 0 else f"{half.wrong_chunks} CHUNKS WRONG"
            return f"after {half.when_s:.1f} s: {requests}, {came_back}, {right}"
        case Outcome.FROZEN:
            stuck = f"{half.in_flight} in flight, none completed since"
            return f"after {half.when_s:.1f} s: {requests}, {stuck}. {half.detail}"
        case _:
            return f"{half.detail} {requests} by then."


def _story(experiment: Experiment) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(experiment.scenario, Text(experiment.title, style="bold"))
    grid.add_row("served", experiment.served)
    grid.add_row("pressed", experiment.pressed)
    grid.add_row("machine", f"Linux {experiment.kernel}, {experiment.machine}, {experiment.accelerator}")
    if len(experiment.runs) == 1:
        run = experiment.runs[0]
        for name, half in (("without", run.without), ("with", run.with_)):
            if half is not None:
                text = Text.assemble(
                    (half.outcome.value.upper(), _STYLES[half.outcome]), " ", printable(half_sentence(half))
                )
                grid.add_row(name, text)
    else:
        for name, halves in (
            ("without", [run.without for run in experiment.runs if run.without]),
            ("with", [run.with_ for run in experiment.runs if run.with_]),
        ):
            grid.add_row(name, _tally(halves))
    grid.add_row("verdict", Text(experiment.verdict, style="bold"))
    return grid


def _tally(halves: list[Half]) -> Text:
    """Outcomes of several runs, counted."""
    counts = {outcome: sum(half.outcome is outcome for half in halves) for outcome in Outcome}
    text = Text()
    for outcome, count in counts.items():
        if count:
            when = sorted(half.when_s for half in halves if half.outcome is outcome)
            span = f" ({when[0]:.1f} to {when[-1]:.1f} s)  "
            text.append(f"{outcome.value.upper()} {count} of {len(halves)}", style=_STYLES[outcome])
            text.append(span)
    return text


def _evidence(run: Run) -> RenderableType:
    halves = [half for half in (run.without, run.with_) if half is not None]
    table = Table(box=None, padding=(0, 2), title=None, show_edge=False)
    table.add_column("", style="bold")
    for half in halves:
        table.add_column("with" if half.io_flusher else "without", overflow="fold")
    for label, cell in _ROWS:
        table.add_row(label, *(cell(half) for half in halves))
    parts: list[RenderableType] = [Text(), table]
    for half in halves:
        if half.witness is not None:
            parts.append(_stack(half.witness))
        if half.console_tail and half.outcome is not Outcome.FINISHED:
            parts.append(Text("\nlast lines of the guest's console:"))
            parts += [Text("  " + printable(line)) for line in half.console_tail.splitlines()]
    return Group(*parts)


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


def _flags(half: Half) -> str:
    if not half.threads:
        return "unknown"
    covered = sum(thread.io_flusher for thread in half.threads)
    counts = Counter(thread.flags for thread in half.threads)
    words = ", ".join(f"{flags:#010x}{f' x{n}' if n > 1 else ''}" for flags, n in counts.items())
    return f"{covered} of {len(half.threads)} threads carry the state ({words})"


_ROWS = (
    ("outcome", lambda half: half.outcome.value),
    ("guest's first event", lambda half: f"{half.boot_s:.1f} s after power-on"),
    ("virtual machine ran", lambda half: f"{half.wall_s:.1f} s"),
    ("last progress", lambda half: f"{half.when_s:.1f} s after the workload began"),
    ("requests", lambda half: f"{half.completed} completed, {half.in_flight} in flight"),
    ("memory", _free_range),
    ("dirty, writeback", lambda half: _dirty(half)),
    ("daemon's threads", _flags),
)


def _dirty(half: Half) -> str:
    if not half.samples:
        return "unknown"
    last = half.samples[-1].memory_kib
    return f"{last.get('Dirty', 0) / 1024:.1f} MiB, {last.get('Writeback', 0) / 1024:.1f} MiB in the end"


def _stack(thread: DaemonThread) -> RenderableType:
    """The daemon's kernel stack, innermost first, with each function's role in the margin."""
    assert thread.explanation is not None
    lines = [
        Text(
            f"\nkernel stack of the daemon's thread {thread.tid} ({printable(thread.comm)}), "
            f"state {thread.state}, flags {thread.flags:#010x}:"
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
