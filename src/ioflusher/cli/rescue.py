"""`ioflusher rescue`: which actions could end a freeze, and doing those that are allowed."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.console import prose_width
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.file_parameters import InputFile
from ioflusher.cli.interruption import heed_signals
from ioflusher.cli.messages import print_error, remark
from ioflusher.cli.source import machines_from, read_standard_input, snapshot_option
from ioflusher.support.text import counted, did_you_mean, printable

if TYPE_CHECKING:
    from ioflusher.machine.graph.analysis import Analysis
    from ioflusher.rescue.freeze import DeviceFreeze
    from ioflusher.rescue.perform import RescueOutcome
    from ioflusher.rescue.plan import RescuePlan
    from ioflusher.rescue.served import ServedDevice

STANDARD_INPUT = Path("-")
LARGEST_BYTES = 64 << 20


@click.command()
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@click.option(
    "--plan", "mode", flag_value="plan", default="plan", help="Say what could be done (the default)."
)
@click.option(
    "--now", "mode", flag_value="now", help="Do it: this machine only, and only what loses nothing."
)
@click.option(
    "--allow-loss",
    metavar="DEVICE",
    multiple=True,
    help="With --now: also do for this device what loses what it has not written.",
)
@click.option(
    "--only", metavar="ACTION", multiple=True, help="Look at this action alone; several times: at these."
)
@click.option(
    "--stalled",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 600),
    default=3.0,
    show_default=True,
    help="For how long no request may have completed.",
)
@snapshot_option
@click.option(
    "--diagnosis", metavar="FILE", type=InputFile(), help="The output of `ioflusher diagnose --json`."
)
@click.option(
    "--alarm",
    metavar="FILE",
    type=InputFile(),
    help="An alarm of `ioflusher watch`, as JSON, or a recording: its last stall.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def rescue(
    context: click.Context,
    devices: tuple[str, ...],
    mode: str,
    allow_loss: tuple[str, ...],
    only: tuple[str, ...],
    stalled: float,
    snapshots: tuple[Path, ...],
    diagnosis: Path | None,
    alarm: Path | None,
    as_json: bool,
) -> None:
    """End a freeze.

    Looks for devices that processes of this machine serve and of which no request completes, and says what
    could end that, those actions first that lose least, with the exact command. With --now it does the first
    that loses nothing, watches for a completed request, goes on to the next, and puts back what it changed.
    --snapshot, --diagnosis and --alarm plan for a machine that was recorded.

    Exit status: 0 nothing is frozen, or it goes on again, 1 something is frozen, 2 it could not be done.
    """
    from ioflusher.rescue.plan import NAMES

    for name in only:
        if name not in NAMES:
            raise click.UsageError(f"there is no action {name!r}; {did_you_mean(name, NAMES)}")
    names = tuple(name.removeprefix("/dev/") for name in devices)
    allowed = frozenset(name.removeprefix("/dev/") for name in allow_loss)
    if mode == "now":
        if snapshots or diagnosis or alarm:
            raise click.UsageError(
                "--now is for this machine: it takes no --snapshot, --diagnosis or --alarm"
            )
        heed_signals(context)
        sys.exit(end_freezes(names, allowed, only, stalled, as_json))
    if allowed:
        raise click.UsageError("--allow-loss is for --now")
    if snapshots or diagnosis or alarm:
        plans, seen_all = recorded_plans(snapshots, diagnosis, alarm, names, only), True
    else:
        plans, seen_all = live_plans(names, only, stalled)
    show_plans(plans, as_json, seen_all=seen_all)
    sys.exit(ExitStatus.FOUND if plans else ExitStatus.DONE)


def recorded_plans(
    snapshots: Sequence[Path],
    diagnosis: Path | None,
    alarm: Path | None,
    names: Sequence[str],
    only: tuple[str, ...],
) -> "tuple[RescuePlan, ...]":
    """Plans for what was recorded."""
    from ioflusher.machine.snapshot import Memory
    from ioflusher.rescue.plan import plan
    from ioflusher.rescue.recorded import (
        freezes_of_alarm,
        freezes_of_diagnosis,
        freezes_of_snapshot,
        memory_of_alarm,
    )
    from ioflusher.rescue.served import served_devices

    if len(snapshots) > 1 and (diagnosis or alarm):
        raise click.UsageError("--diagnosis and --alarm are of one machine: give one --snapshot")
    machines = [(a.snapshot.memory, served_devices(a)) for a in machines_from(snapshots)] if snapshots else []
    if diagnosis is None and alarm is None:
        for _, served in machines:
            check_names(names, served)
        return tuple(
            plan(freeze, memory, only=only)
            for memory, served in machines
            for freeze in freezes_of_snapshot(served, memory, names)
        )
    memory, served = machines[0] if machines else (Memory(), ())
    freezes: list[DeviceFreeze] = []
    if diagnosis is not None:
        freezes += freezes_of_diagnosis(read_json(diagnosis, read_input(diagnosis)), served)
    if alarm is not None:
        record = last_alarm(alarm)
        freezes += freezes_of_alarm(record, served)
        memory = memory if machines else memory_of_alarm(record)
    if memory == Memory():
        remark("without --snapshot the machine's figures are not known, and fewer actions can be planned")
    return tuple(plan(f, memory, only=only) for f in freezes if not names or f.device.name in names)


def read_input(file: Path) -> bytes:
    """What is in a file or in standard input."""
    return read_standard_input(LARGEST_BYTES) if file == STANDARD_INPUT else file.read_bytes()


def last_alarm(file: Path) -> dict[str, object]:
    """Of what `ioflusher watch` printed or recorded, a line each, the last with a stall; the last without."""
    lines = read_input(file).splitlines()
    stalls = [line for line in lines if b'"stall"' in line]
    return read_json(file, (stalls or lines or [b""])[-1])


def read_json(file: Path, data: bytes) -> dict[str, object]:
    """The object that was read from the file."""
    from ioflusher.rescue.errors import RescueError

    try:
        record = json.loads(data)
    except ValueError as error:
        raise RescueError(f"{file}: expected a JSON object: {error}") from error
    if not isinstance(record, dict):
        raise RescueError(f"{file}: expected a JSON object, found {type(record).__name__}")
    return record


def live_machine(names: Sequence[str]) -> "tuple[Analysis, tuple[ServedDevice, ...]]":
    """This machine, and the devices to look at."""
    from ioflusher.rescue.served import served_devices

    (analysis,) = machines_from((), listeners=True)
    served = served_devices(analysis)
    check_names(names, served)
    return analysis, tuple(device for device in served if not names or device.name in names)


def check_names(names: Sequence[str], served: "Sequence[ServedDevice]") -> None:
    """Raises RescueError for a device that no process serves."""
    from ioflusher.rescue.errors import RescueError

    known = [device.name for device in served]
    for name in names:
        if name not in known:
            found = ", ".join(f"/dev/{name}" for name in known) or "none"
            raise RescueError(
                f"/dev/{name} is no device that a process of this machine serves; found: {found}",
                hint="a disk of the kernel's own is not frozen by a daemon: ioflusher diagnose --dmesg",
            )


def live_plans(
    names: Sequence[str], only: tuple[str, ...], stalled: float
) -> "tuple[tuple[RescuePlan, ...], bool]":
    """Plans for what is frozen on this machine, and whether all of it could be seen."""
    from ioflusher.rescue.live import find_freezes
    from ioflusher.rescue.plan import plan

    analysis, served = live_machine(names)
    privileged = analysis.snapshot.system.privileged
    if not privileged:
        remark("stacks, and who serves which device, are not seen by everybody: run it as root")
    freezes = find_freezes(served, seconds=stalled)
    return tuple(plan(freeze, analysis.snapshot.memory, only=only) for freeze in freezes), privileged


def end_freezes(
    names: Sequence[str], allowed: frozenset[str], only: tuple[str, ...], stalled: float, as_json: bool
) -> ExitStatus:
    """Find what is frozen here, and end it."""
    import os

    from ioflusher.report.rescue_json import outcome_record
    from ioflusher.report.rescue_text import freeze_lines, outcome_lines, step_outcome_lines
    from ioflusher.rescue.actions.action import Loss
    from ioflusher.rescue.errors import RescueError
    from ioflusher.rescue.live import find_freezes
    from ioflusher.rescue.perform import Rescue, StepOutcome, ended_with_another
    from ioflusher.rescue.plan import plan
    from ioflusher.rescue.protection import protect

    if os.geteuid() != 0:
        raise RescueError("--now needs root", hint="ioflusher rescue --plan needs less")
    analysis, served = live_machine([*names, *sorted(allowed)])
    served = tuple(device for device in served if not names or device.name in names)
    for trouble in protect():
        remark(f"this program itself goes on unprotected: {trouble}")
    width = prose_width()
    outcomes: list[RescueOutcome] = []
    untouched: list[tuple[DeviceFreeze, str]] = []

    def told(outcome: StepOutcome) -> None:
        if not as_json:
            click.echo("\n".join(step_outcome_lines(outcome, width)))

    def told_back(line: str) -> None:
        if not as_json:
            click.echo(printable(line))

    for freeze in find_freezes(served, seconds=stalled):
        planned = plan(freeze, analysis.snapshot.memory, only=only)
        # dirty limits are the machine's: what was done for one device may have ended another one's freeze
        if outcomes and not find_freezes((freeze.device,), seconds=stalled):
            outcomes.append(ended_with_another(planned))
        elif not freeze.certain and freeze.device.name not in allowed and not only:
            untouched.append((freeze, f"{freeze.reason}; nothing is done"))
            print_error(
                f"{freeze.device.path}: {untouched[-1][1]}",
                f"--only ACTION does one all the same; with --allow-loss {freeze.device.path} any",
            )
            continue
        else:
            if not as_json:
                click.echo("\n".join(freeze_lines(freeze, width)))
            most = Loss.DEVICE if freeze.device.name in allowed else Loss.NOTHING
            try:
                with closing(Rescue(planned, most=most, told=told, told_back=told_back)) as performed:
                    outcomes.append(performed.end())
            except RescueError as error:
                untouched.append((freeze, str(error)))
                print_error(str(error), error.hint)
                continue
        if not as_json:
            click.echo("\n".join(outcome_lines(outcomes[-1], width)))
    seen_all = analysis.snapshot.system.privileged
    if as_json:
        click.echo(json.dumps(outcome_record(outcomes, untouched, seen_all=seen_all)))
    elif not outcomes and not untouched:
        looked = f"{counted(len(served), 'served device')}, none stood still for {stalled:g} s"
        click.echo(f"nothing is frozen: {looked}" if seen_all else f"{looked}, and not all can be seen")
    failed = [o for o in outcomes if not o.recovered or o.left or o.stands_still_again]
    return ExitStatus.FOUND if failed or untouched else ExitStatus.DONE


def show_plans(plans: "Sequence[RescuePlan]", as_json: bool, *, seen_all: bool) -> None:
    """Print them; `seen_all`: whether there is nothing else, as far as can be known."""
    from ioflusher.report.rescue_json import plan_record
    from ioflusher.report.rescue_text import plan_lines

    if as_json:
        click.echo(json.dumps(plan_record(plans, seen_all=seen_all)))
    elif plans:
        click.echo("\n".join(plan_lines(plans, prose_width())))
    elif seen_all:
        click.echo("nothing is frozen: no served device stands still")
    else:
        click.echo("no device is seen to stand still, and not all can be seen")
