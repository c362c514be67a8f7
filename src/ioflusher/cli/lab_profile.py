"""`ioflusher lab profile`: what a daemon does for one request."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.lab_options import (
    accelerator_option,
    kernel_option,
    progress_line,
)
from ioflusher.cli.lab_scenario import complete_scenario, daemon_options, read_scenario, with_daemon_options
from ioflusher.cli.output import format_option, output_option, write_result

if TYPE_CHECKING:
    from ioflusher.lab.messages import GuestReport

DEFAULT_SCENARIO = "ext4-on-nbd-throttled"


@click.command("profile")
@click.argument("scenario", required=False, shell_complete=complete_scenario)
@daemon_options
@click.option(
    "--with/--without",
    "io_flusher",
    default=False,
    help="Whether the daemon carries the IO_FLUSHER state; default: without.",
)
@click.option(
    "--requests", type=click.IntRange(1, 200), default=20, show_default=True, help="Requests of a round."
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Rounds of each kind."
)
@format_option("text", "json", "toml")
@output_option
@kernel_option
@accelerator_option
def profile_command(
    scenario: str | None,
    daemon: str | None,
    kind: str | None,
    setup: tuple[str, ...],
    share: tuple[Path, ...],
    io_flusher: bool,
    requests: int,
    rounds: int,
    form: str,
    output: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Count what a daemon does for one request.

    The daemon is that of SCENARIO, or CMD. In a guest without any pressure its device gets reads and writes,
    one at a time; counted are system calls and which of them allocate, allocations with their flags, waits
    for locks, page faults and threads, for each request and without what an idle daemon does.
    """
    import msgspec

    from ioflusher.lab.messages import ProfileRound, SettingUp
    from ioflusher.lab.profile import profile_daemon
    from ioflusher.lab.profile_threads import threads_of_profile
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import check_programs, daemon_files
    from ioflusher.report.experiment_profile import profile_lines
    from ioflusher.scenario.writer import check_writer, threads_toml

    if form == "toml":
        check_writer()
    if scenario is None and daemon is None:
        raise click.UsageError("give a SCENARIO, or --daemon CMD and --kind KIND")
    found = read_scenario(scenario or DEFAULT_SCENARIO)
    found, shares = with_daemon_options(found, daemon, kind, setup, share)
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

        profile = profile_daemon(
            lab,
            found,
            io_flusher=io_flusher,
            requests=requests,
            rounds=rounds,
            accelerator="KVM" if lab.accelerator is Accelerator.KVM else "emulated",
            on_report=show,
        )
    match form:
        case "json":
            text = msgspec.json.encode(profile).decode() + "\n"
        case "toml":
            head = (
                f"{profile.served}, as profiled on {profile.kernel}",
                "which thread does what is not seen",
            )
            text = threads_toml(threads_of_profile(profile), head=head)
        case _:
            text = "".join(f"{line}\n" for line in profile_lines(profile))
    write_result(text, output)
