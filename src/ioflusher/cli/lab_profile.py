"""`ioflusher lab profile`: what a daemon does for one request."""

import io
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.file_parameters import DASH, InputFile
from ioflusher.cli.lab_options import (
    accelerator_option,
    kernel_option,
    progress_line,
)
from ioflusher.cli.lab_scenario import complete_scenario, daemon_options, read_scenario, with_daemon_options
from ioflusher.cli.output import format_option, output_option, write_result
from ioflusher.cli.size_parameter import size as size_of
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from ioflusher.lab.messages import GuestReport
    from ioflusher.lab.profile import DaemonProfile
    from ioflusher.scenario.records import Scenario

DEFAULT_SCENARIO = "ext4-on-nbd-throttled"
REQUESTS, ROUNDS, LARGEST_ROUND = 20, 5, 200
LONGEST_LINE = 1 << 20
# parameters that say what is played in a guest, and those that say what a trace is about
_LIVE = ("scenario", "daemon", "kind", "setup", "share", "io_flusher", "rounds", "kernel", "accelerator")
_RECORDED = ("threads", "device", "work", "size")


@click.command("profile")
@click.argument("scenario", required=False, shell_complete=complete_scenario)
@daemon_options
@click.option(
    "--with/--without",
    "io_flusher",
    default=None,
    help="Whether the daemon carries the IO_FLUSHER state; default: without.",
)
@click.option(
    "--requests",
    metavar="N",
    type=click.IntRange(min=1),
    help="Requests of a round, at most 200 (default 20); with --trace, of all of it, where it shows none.",
)
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds of each kind; default 5.")
@click.option(
    "--trace",
    metavar="FILE",
    type=InputFile(),
    help="Instead of a guest, what trace-cmd report, tracefs, perf script or strace -f -tt -T printed.",
)
@click.option(
    "--thread",
    "threads",
    metavar="NAME",
    multiple=True,
    help="With --trace: the daemon's threads, by name (* is anything), or number of thread or process.",
)
@click.option("--device", metavar="MAJOR:MINOR", help="With --trace: the daemon's device.")
@click.option("--work", type=click.Choice(["write", "read"]), help="What --requests with --trace are.")
@click.option("--size", metavar="SIZE", type=size_of, help="Bytes of each of them.")
@format_option("text", "json", "toml")
@output_option
@kernel_option
@accelerator_option
@click.pass_context
def profile_command(
    context: click.Context,
    *,
    scenario: str | None,
    daemon: str | None,
    kind: str | None,
    setup: tuple[str, ...],
    share: tuple[Path, ...],
    io_flusher: bool | None,
    requests: int | None,
    rounds: int | None,
    trace: Path | None,
    threads: tuple[str, ...],
    device: str | None,
    work: str | None,
    size: int | None,
    form: str,
    output: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Count what a daemon does for one request.

    The daemon is that of SCENARIO, or CMD. In a guest without any pressure its device gets reads and writes,
    one at a time; counted are system calls and which of them allocate, allocations with their flags, waits
    for locks, page faults and threads, for each request and without what an idle daemon does.

    With --trace the same is counted in what somebody recorded of a daemon anywhere.
    """
    if form == "toml":
        from ioflusher.scenario.writer import check_writer

        check_writer()
    if trace is not None:
        _refuse(context, _LIVE, "is about a guest, and goes without --trace")
        profile = _recorded(trace, threads, device, requests, work, size)
    else:
        _refuse(context, _RECORDED, "goes with --trace FILE")
        if scenario is None and daemon is None:
            raise click.UsageError("give a SCENARIO, or --daemon CMD and --kind KIND, or --trace FILE")
        if requests is not None and requests > LARGEST_ROUND:
            raise click.BadParameter(
                f"expected at most {LARGEST_ROUND} requests of a round, found {requests}",
                param_hint="--requests",
            )
        found = read_scenario(scenario or DEFAULT_SCENARIO)
        found, shares = with_daemon_options(found, daemon, kind, setup, share)
        profile = _live(
            found, shares, bool(io_flusher), requests or REQUESTS, rounds or ROUNDS, kernel, accelerator
        )
    write_result(_rendered(profile, form), output)


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Refuse options that were given and have no effect."""
    for parameter in context.command.params:
        if parameter.name in names and context.params[parameter.name] not in (None, ()):
            given = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.name.upper()
            raise click.UsageError(f"{given} {why}")


def _recorded(
    trace: Path,
    threads: tuple[str, ...],
    device: str | None,
    requests: int | None,
    work: str | None,
    size: int | None,
) -> "DaemonProfile":
    from ioflusher.lab.recorded_profile import AllRequests, profile_trace
    from ioflusher.support.text import printable

    every = None
    if requests is not None:
        if size is None:
            raise click.UsageError("--requests with --trace needs --size SIZE: bytes of each of them")
        if device is not None:
            raise click.UsageError("--requests with --trace is for a trace without those of --device")
        every = AllRequests(requests, work or "write", size)
    elif work is not None or size is not None:
        raise click.UsageError("--work and --size say what --requests N are")
    with _opened(trace) as file:
        return profile_trace(
            iter(lambda: file.readline(LONGEST_LINE), ""),
            "standard input" if trace == DASH else printable(str(trace)),
            threads=threads,
            device=None if device is None else _device(device),
            every=every,
            machine=os.uname().machine,
            page_bytes=os.sysconf("SC_PAGE_SIZE"),
        )


@contextmanager
def _opened(trace: Path) -> "Iterator[TextIO]":
    if trace == DASH:
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="backslashreplace")
        return
    try:
        file = trace.open(encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise IoflusherError(f"{trace} could not be read: {error.strerror}") from error
    with file:
        yield file


def _device(text: str) -> tuple[int, int]:
    """The numbers of a device, as lsblk and as the kernel's events have them."""
    found = re.fullmatch(r"(\d{1,6})[:,](\d{1,6})", text)
    if found is None:
        raise click.BadParameter(
            f"expected the numbers of a device such as 43:0, as lsblk shows them, found {text!r}",
            param_hint="--device",
        )
    return int(found[1]), int(found[2])


def _live(
    found: "Scenario",
    shares: tuple[Path, ...],
    io_flusher: bool,
    requests: int,
    rounds: int,
    kernel: str | None,
    accelerator: str | None,
) -> "DaemonProfile":
    from ioflusher.lab.messages import ProfileRound, SettingUp
    from ioflusher.lab.profile import profile_daemon
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import check_programs, daemon_files

    check_programs(found)
    chosen = Accelerator(accelerator) if accelerator else None
    shares = (*shares, *daemon_files(found))
    with (
        progress_line() as progress,
        Lab(kernel, accelerator=chosen, shares=shares, progress=progress, scenario=found) as lab,
    ):
        progress("booting")

        def show(report: "GuestReport") -> None:
            match report:
                case SettingUp():
                    progress(report.step)
                case ProfileRound():
                    progress(f"counting | {report.work} {report.size}")

        return profile_daemon(
            lab,
            found,
            io_flusher=io_flusher,
            requests=requests,
            rounds=rounds,
            accelerator="KVM" if lab.accelerator is Accelerator.KVM else "emulated",
            on_report=show,
        )


def _rendered(profile: "DaemonProfile", form: str) -> str:
    import msgspec

    from ioflusher.lab.profile_threads import notes_of_profile, threads_of_profile
    from ioflusher.report.experiment_profile import profile_lines
    from ioflusher.scenario.writer import threads_toml

    match form:
        case "json":
            return msgspec.json.encode(profile).decode() + "\n"
        case "toml":
            return threads_toml(threads_of_profile(profile), head=notes_of_profile(profile))
        case _:
            return "".join(f"{line}\n" for line in profile_lines(profile))
