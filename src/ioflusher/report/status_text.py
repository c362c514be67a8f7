"""The IO_FLUSHER state of processes on a terminal: a line a process, or every thread of one."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioflusher.kernel.task import Policy, Thread
from ioflusher.machine.process import Process
from ioflusher.report.status import CAPABILITIES, coverage, held_capabilities, scheduling
from ioflusher.support.text import printable

# where nobody's window is to be filled, lines are as long as they must be
_LETTERS = {"CAP_SYS_RESOURCE": "R", "CAP_IPC_LOCK": "L", "CAP_SYS_NICE": "N"}
_UNKNOWN = "?"


def print_machine(processes: list[Process], console: Console) -> None:
    """A line a process, and what it adds up to."""
    if processes:
        console.print(_machine_table(processes))
    counts = [coverage(process) for process in processes]
    some = sum(count.covered > 0 for count in counts)
    whole = sum(
        process.covered and count.covered > 0 for process, count in zip(processes, counts, strict=True)
    )
    halves = sum(count.half_set for count in counts)
    console.print(
        f"{len(processes)} processes: {whole} covered, {some - whole} in part, {halves} threads half set",
        style="bold",
    )
    if processes:
        letters = ", ".join(f"{letter} {name}" for name, letter in _LETTERS.items())
        console.print(f"covered: threads that carry the state of all that live; caps: {letters}", style="dim")


def print_process(process: Process, console: Console) -> None:
    """One process with every thread."""
    counts = coverage(process)
    console.print(
        Text.assemble(
            (f"{process.pid} {printable(process.comm)}", "bold"),
            ": ",
            (f"{counts.covered} of {len(counts.threads)} threads covered", _style(process)),
            (f", {counts.half_set} half set" if counts.half_set else "", "bold red"),
        )
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(process):
        facts.add_row(f"  {name}", value)
    console.print(facts)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 1), header_style="dim")
    for heading in ("tid", "name", "state", "flags", "io_flusher", "scheduling"):
        table.add_column(heading, justify="right" if heading == "tid" else "left", overflow="fold")
    for thread in process.threads:
        word, style = verdict(thread)
        policy = _policy(thread.policy, thread.priority, thread.nice)
        table.add_row(
            str(thread.tid),
            Text(printable(thread.comm)),
            Text(printable(thread.state)),
            f"{thread.flags:#010x}",
            Text(word, style=style),
            policy,
        )
    console.print(table)


def verdict(thread: Thread) -> tuple[str, str]:
    """A word or two on a thread's state, and how to draw it."""
    if thread.ended:
        return "ended", "dim"
    if thread.half_set:
        return "half set", "bold red"
    if thread.io_flusher:
        return "yes", "green"
    return ("no (kernel worker)", "dim") if thread.kernel_worker else ("no", "")


def _machine_table(processes: list[Process]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    left = {"name", "scheduling", "caps"}
    for heading in ("pid", "name", "covered", "half", "locked", "swapped", "oom", "scheduling", "caps"):
        table.add_column(heading, justify="left" if heading in left else "right", overflow="fold")
    for process in processes:
        counts = coverage(process)
        table.add_row(
            str(process.pid),
            Text(printable(process.comm)),
            Text(f"{counts.covered}/{len(counts.threads)}", style=_style(process)),
            Text(str(counts.half_set), style="bold red") if counts.half_set else "-",
            _memory(process.locked_kib),
            _memory(process.swapped_kib),
            _UNKNOWN if process.oom_score_adj is None else str(process.oom_score_adj),
            _schedule(process),
            _caps(process),
        )
    return table


def _facts(process: Process) -> list[tuple[str, str]]:
    held = held_capabilities(process)
    if held is None:
        capabilities = _UNKNOWN
    else:
        lacking = [name for name in CAPABILITIES if name not in held]
        parts = [", ".join(held), f"lacks {', '.join(lacking)}" if lacking else ""]
        capabilities = "; ".join(part for part in parts if part)
    memory = ", ".join(
        f"{_UNKNOWN if value is None else _memory(value)} {word}"
        for value, word in (
            (process.locked_kib, "locked"),
            (process.resident_kib, "resident"),
            (process.swapped_kib, "swapped out"),
        )
    )
    return [
        ("user", _UNKNOWN if process.uid is None else str(process.uid)),
        ("memory", memory),
        ("OOM score", "?" if process.oom_score_adj is None else f"adjusted by {process.oom_score_adj}"),
        ("scheduling", _schedule(process, counts=True)),
        ("capabilities", capabilities),
    ]


def _style(process: Process) -> str:
    counts = coverage(process)
    if counts.half_set:
        return "bold red"
    if not counts.covered:
        return ""
    return "green" if process.covered else "yellow"


def _memory(kib: int | None) -> str:
    if kib is None:
        return _UNKNOWN
    if kib < 1024:
        return f"{kib}K"
    return f"{kib / 1024:.0f}M" if kib < 1 << 20 else f"{kib / (1 << 20):.1f}G"


def _schedule(process: Process, *, counts: bool = False) -> str:
    kinds = scheduling(process)
    shown = [
        _policy(kind.policy, kind.priority, kind.nice)
        + (f" ({kind.threads} threads)" if counts and len(kinds) > 1 else "")
        for kind in kinds
    ]
    if len(shown) > 3:
        shown = [*shown[:3], f"{len(shown) - 3} more"]
    return ", ".join(shown) or "-"


def _policy(policy: Policy, priority: int, nice: int) -> str:
    """As "fifo 50", "other", "batch nice 5"."""
    words = [policy.value]
    if priority:
        words.append(str(priority))
    if nice:
        words.append(f"nice {nice}")
    return " ".join(words)


def _caps(process: Process) -> str:
    held = held_capabilities(process)
    if held is None:
        return _UNKNOWN
    return "".join(_LETTERS[name] if name in held else "-" for name in CAPABILITIES)
