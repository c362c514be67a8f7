"""`ioflusher status`: which threads of which processes carry the state, and what else protects them."""

import gc
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ioflusher.cli.exit_status import verdict
from ioflusher.cli.messages import complain, remark
from ioflusher.errors import IoflusherError
from ioflusher.flag import NoSuchProcessError
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_KTHREAD
from ioflusher.machine.collect.device_numbers import DeviceNumbers
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.parallel import read_processes
from ioflusher.machine.collect.processes import ProcessReader
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.process import Process
from ioflusher.machine.unreadable import Unreadable
from ioflusher.report.status import SORT_KEYS, sorted_by, status_record

if TYPE_CHECKING:
    from ioflusher.machine.collect.machine import Collected

PROC = "/proc"
# columns of a table that goes to a file
WIDE = 200


def sort_key(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A key of SORT_KEYS, with + or - before it as ps takes it."""
    if value.lstrip("+-") not in SORT_KEYS or len(value) - len(value.lstrip("+-")) > 1:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(SORT_KEYS)}, with - before it or not")
    return value


@click.command()
@click.argument("pids", metavar="[PID]...", nargs=-1, type=click.IntRange(min=1))
@click.option("--flagged", is_flag=True, help="Only processes of which a thread carries a bit of the state.")
@click.option("--serving", is_flag=True, help="Only processes that serve storage; finding them takes longer.")
@click.option("--kernel", is_flag=True, help="Kernel threads too.")
@click.option(
    "--sort",
    metavar="[-]KEY",
    default="pid",
    callback=sort_key,
    help=f"Sort by {', '.join(SORT_KEYS)}; largest first with - before it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every thread.")
def status(
    pids: tuple[int, ...], flagged: bool, serving: bool, kernel: bool, sort: str, as_json: bool
) -> None:
    """Show which threads carry the IO_FLUSHER state.

    And what else protects a process that serves storage. With PID: every thread of these processes.
    Without: a line for every process that runs a program. Needs no privilege for what /proc shows to
    everybody, and says what it could not read.
    """
    gc.disable()  # the records live until the program ends: there is no garbage to look for
    notes = Notes()
    reader = ProcessReader(PROC, notes, DeviceNumbers("", notes), SnapshotLimits())
    missing: list[IoflusherError] = []
    if pids:
        processes, missing = named(reader, pids, notes)
    else:
        from ioflusher.machine.collect.hidepid import note_hidden

        note_hidden(PROC, notes)
        among = storage_servers() if serving else reader.pids()
        processes = read_processes(reader, among, chooser(flagged=flagged, kernel=kernel), notes)
    processes = sorted_by(processes, sort)
    unreadable = notes.unreadable(pids)
    if as_json:
        print_json(processes, unreadable)
    else:
        print_text(processes, unreadable, every_thread=bool(pids))
    gc.freeze()  # nor is there any when it ends
    for error in missing:
        complain(error)
    raise SystemExit(verdict(found=False, failed=bool(missing)))


def named(
    reader: ProcessReader, pids: Iterable[int], notes: Notes
) -> tuple[list[Process], list[IoflusherError]]:
    """The processes with these numbers, and an error for each that is not there."""
    asked = list(dict.fromkeys(pids))
    found = read_processes(reader, asked, lambda _: True, notes)
    absent = set(asked) - {process.pid for process in found}
    gone = [pid for pid in asked if pid in absent and not os.path.exists(f"{PROC}/{pid}")]
    return found, [NoSuchProcessError(pid) for pid in gone]


def chooser(*, flagged: bool, kernel: bool) -> Callable[[tuple[Thread, ...]], bool]:
    """Whether a process with these threads is to be shown."""

    def wanted(threads: tuple[Thread, ...]) -> bool:
        if not kernel and threads[0].flags & PF_KTHREAD:
            return False
        return not flagged or any(thread.flags & PF_IO_FLUSHER for thread in threads)

    return wanted


def storage_servers() -> list[int]:
    """The processes that serve storage on this machine."""
    from ioflusher.machine.collect.machine import collect_serving

    collected = collect_serving()
    say_candidates(collected)
    return sorted({service.pid for service in collected.services if service.pid is not None})


def say_candidates(collected: "Collected") -> None:
    """Say on standard error, once a group, what one of several processes serves."""
    from ioflusher.machine.serving.candidates import candidate_groups
    from ioflusher.support.text import printable

    names = {process.pid: process.comm for process in collected.snapshot.processes}
    points = {mount.number: mount.point for mount in reversed(collected.snapshot.mounts)}
    for group in candidate_groups(collected.services):
        what = ", ".join(points.get(name, name) for _, name in group.targets)
        who = ", ".join(f"{names.get(pid, 'process')} ({pid})" for pid in group.pids)
        remark(printable(f"{group.role.value} of {what}: one of {who}"))


def print_json(processes: list[Process], unreadable: tuple[Unreadable, ...]) -> None:
    """One JSON object."""
    record: dict[str, Any] = {"processes": [status_record(process) for process in processes]}
    record["unreadable"] = unreadable
    sys.stdout.buffer.write(msgspec.json.encode(record) + b"\n")


def print_text(processes: list[Process], unreadable: tuple[Unreadable, ...], *, every_thread: bool) -> None:
    """Tables for people; what could not be read goes to standard error."""
    from ioflusher.cli.console import output_console
    from ioflusher.report.status_text import print_machine, print_process
    from ioflusher.support.text import printable

    console = output_console()
    if not console.is_terminal:
        # both, or rich takes the size of a dumb terminal
        console.width, console.height = WIDE, 25
    if every_thread:
        for process in processes:
            print_process(process, console)
    else:
        print_machine(processes, console)
    for item in unreadable:
        remark(f"could not read {printable(item.what)}: {printable(item.why)}")
