"""`ioflusher set` and `ioflusher unset`: the state on the threads of processes that already run."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from ioflusher.cli.exit_status import verdict
from ioflusher.cli.messages import complain, remark
from ioflusher.flag import FlagError, set_io_flusher
from ioflusher.flag.attach import MemoryOutcome, ProcessOutcome, ThreadOutcome, ThreadResult, put_state
from ioflusher.harden import HardenError, lock_memory
from ioflusher.kernel.lock_plan import LockMethod
from ioflusher.support.text import printable


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """What both verbs take."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--verbose", "-v", is_flag=True, help="Tell of every thread, not only of those left out."
        ),
        click.option("--dry-run", "-n", is_flag=True, help="Change nothing, show what would be done."),
        click.option(
            "--timeout",
            default=5.0,
            show_default=True,
            type=click.FloatRange(min=0, min_open=True),
            help="Seconds to wait for threads that do not stop (in uninterruptible sleep).",
        ),
        click.argument("pids", metavar="PID...", nargs=-1, required=True, type=click.IntRange(min=1)),
    ):
        command = decorate(command)
    return command


@click.command("set")
@common_options
@click.option(
    "--lock-memory",
    is_flag=True,
    help="Lock the memory of the processes too (mlockall), as far as the memory that is free allows.",
)
def set_state(pids: tuple[int, ...], lock_memory: bool, **options: Any) -> None:
    """Put running processes into the IO_FLUSHER state.

    That is, every thread of the processes PID. Each thread is stopped for a fraction of a millisecond and
    makes the prctl call itself; a system call in which it waited goes on. The processes need
    CAP_SYS_RESOURCE themselves, this program CAP_SYS_PTRACE.

    --lock-memory brings all of a process's memory into RAM where there is plenty of room. Else it locks what
    is there, and the rest when it is touched (MCL_ONFAULT). Where not even that is safe it locks nothing, and
    says why. --dry-run shows the figures.

    Exit status: 0 every thread has the state, 1 some do not, or memory is not locked, 2 a process is not
    there or cannot be worked on.
    """
    change(pids, True, lock_memory=lock_memory, **options)


@click.command("unset")
@common_options
def unset_state(pids: tuple[int, ...], **options: Any) -> None:
    """Take running processes out of the IO_FLUSHER state.

    That is, every thread of the processes PID.

    Exit status: 0 no thread has the state, 1 some do, 2 a process is not there or cannot be worked on.
    """
    change(pids, False, lock_memory=False, **options)


def change(
    pids: tuple[int, ...],
    state: bool,
    *,
    lock_memory: bool,
    timeout: float,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Do it for each process, print what became of it, exit."""
    if not dry_run:
        protect_ourselves()
    results: list[ProcessOutcome] = []
    errors: list[dict[str, Any]] = []
    for pid in pids:
        try:
            result = put_state(pid, state, lock_memory=lock_memory, timeout=timeout, dry_run=dry_run)
        except FlagError as error:
            # The other processes shall get their turn.
            errors.append({"pid": pid, "error": str(error), "errno": error.errno, "hint": error.hint})
            complain(error)
            continue
        results.append(result)
        if not as_json:
            show(result, verbose)
    if as_json:
        processes = [as_record(result) for result in results]
        click.echo(json.dumps({"processes": processes, "errors": errors}))
    incomplete = not (dry_run or all(result.complete for result in results))
    raise SystemExit(verdict(found=incomplete, failed=bool(errors)))


def protect_ourselves() -> None:
    """The processes may serve the disk that this very program lies on: it must not wait for them."""
    actions: tuple[Callable[[], None], ...] = (partial(set_io_flusher, True), lock_memory)
    for action in actions:
        try:
            action()
        except (FlagError, HardenError) as error:
            remark(f"this program itself goes on unprotected: {error}")


def show(result: ProcessOutcome, verbose: bool) -> None:
    """One process for a terminal: a line, and one for each thread that needs words."""
    counts = Counter(thread.outcome for thread in result.threads)
    summary = ", ".join(f"{count} {wording(outcome, result.state)}" for outcome, count in counts.items())
    took = f"{result.seconds:.3f} s"
    # A process that ended before any of its threads was looked at has none to tell of.
    first = sorted(result.threads, key=lambda thread: thread.tid != result.pid)[:1]
    name = printable(first[0].comm) if first else "-"
    click.echo(f"{result.pid} {name}: {summary or ThreadResult.GONE.value} ({took})")
    quiet = (ThreadResult.DONE, ThreadResult.ALREADY, ThreadResult.GONE, ThreadResult.WOULD)
    for thread in result.threads:
        if verbose or thread.outcome not in quiet:
            click.echo(f"  {describe(thread, result.state)}")
    if result.memory is not None:
        click.echo(f"  memory: {describe_memory(result.memory)}")
    for hint in dict.fromkeys(thread.hint for thread in result.threads if thread.hint):
        click.echo(f"  hint: {hint}")


def describe(thread: ThreadOutcome, state: bool) -> str:
    """One thread in one line."""
    line = f"{thread.tid:>8} {printable(thread.comm):<16} {wording(thread.outcome, state)}"
    return f"{line}: {thread.detail}" if thread.detail else line


def describe_memory(memory: MemoryOutcome) -> str:
    """What became of locking, and the figures that decided."""
    how = {
        LockMethod.POPULATE: "locked, all of it brought into memory",
        LockMethod.ON_FAULT: "locked as far as it is in memory, the rest when it is touched (MCL_ONFAULT)",
        None: "not locked",
    }[memory.method]
    words = {
        ThreadResult.DONE: how,
        ThreadResult.WOULD: f"would be {how}",
        ThreadResult.PARTIAL: how,
        ThreadResult.REFUSED: "not locked, as that would not be safe",
    }.get(memory.outcome, f"not locked, {memory.outcome.value}")
    return f"{words}: {memory.detail}" if memory.detail else words


def wording(outcome: ThreadResult, state: bool) -> str:
    """What became of a thread, in the words of the verb."""
    changed, was = ("set", "was set") if state else ("cleared", "was clear")
    return {
        ThreadResult.DONE: changed,
        ThreadResult.ALREADY: was,
        ThreadResult.WOULD: f"would be {changed}",
    }.get(outcome, outcome.value)


def as_record(result: ProcessOutcome) -> dict[str, Any]:
    """One process as `--json` prints it."""

    def thread(t: ThreadOutcome) -> dict[str, Any]:
        return {
            "tid": t.tid,
            "comm": t.comm,
            "outcome": t.outcome.name.lower(),
            "detail": t.detail,
            "reason": t.reason.value if t.reason else None,
            "hint": t.hint,
        }

    def memory(m: MemoryOutcome) -> dict[str, Any]:
        return {
            "outcome": m.outcome.name.lower(),
            "method": m.method.name.lower() if m.method else None,
            "detail": m.detail,
            **asdict(m.figures),
        }

    return {
        "pid": result.pid,
        "state": result.state,
        "complete": result.complete,
        "seconds": result.seconds,
        "threads": [thread(t) for t in result.threads],
        "memory": memory(result.memory) if result.memory else None,
    }
