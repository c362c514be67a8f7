"""`ioflusher status`: which threads of a process carry the IO_FLUSHER state."""

import json
import os
from pathlib import Path
from typing import Any

import click

from ioflusher.cli.comm import printable, text
from ioflusher.flag import Bits, NoSuchProcessError, StateUnreadableError, ThreadState, thread_states
from ioflusher.kernel.task import PF_IO_FLUSHER

PROC = Path("/proc")


@click.command()
@click.argument("pids", metavar="[PID]...", nargs=-1, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(pids: tuple[int, ...], as_json: bool) -> None:
    """Show the IO_FLUSHER state of every thread of the processes PID.

    Without PID: every process that has at least one thread with the state, or with one of its two bits.
    Needs no privilege.
    """
    processes = {pid: thread_states(pid) for pid in pids} if pids else flagged_processes()
    if as_json:
        click.echo(json.dumps({"processes": [as_record(pid, threads) for pid, threads in processes.items()]}))
        return
    if not processes:
        click.echo("no thread of a user process carries the IO_FLUSHER state")
    for pid, threads in processes.items():
        covered = sum(thread.io_flusher for thread in threads)
        click.echo(f"{pid} {printable(threads[0].comm)}: {covered} of {len(threads)} threads covered")
        for thread in threads if pids else ():
            click.echo(
                f"  {thread.tid:>8} {printable(thread.comm):<16} {thread.flags:#010x} {verdict(thread)}"
            )


def flagged_processes() -> dict[int, tuple[ThreadState, ...]]:
    """The user processes of which a thread carries a bit of the state, among those that may be read."""
    found: dict[int, tuple[ThreadState, ...]] = {}
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):
        try:
            threads = thread_states(pid)
        except (NoSuchProcessError, StateUnreadableError):
            continue
        if any(thread.flags & PF_IO_FLUSHER and not thread.flags.kernel_thread for thread in threads):
            found[pid] = threads
    return found


def as_record(pid: int, threads: tuple[ThreadState, ...]) -> dict[str, Any]:
    """The process as `--json` prints it."""
    return {
        "pid": pid,
        "comm": text(threads[0].comm),
        "threads": [
            {"tid": t.tid, "comm": text(t.comm), "flags": int(t.flags), "io_flusher": t.io_flusher}
            for t in threads
        ],
    }


def verdict(thread: ThreadState) -> str:
    """One word or two on the thread's state."""
    return {Bits.BOTH: "io_flusher", Bits.ONE: "half set", Bits.NONE: "-"}[thread.bits]
