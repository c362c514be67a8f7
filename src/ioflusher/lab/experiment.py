"""Play one half of a scenario: one of two virtual machines that differ in one word."""

from collections.abc import Callable
from dataclasses import replace

from ioflusher.lab.disks import DiskRequest, EmptyDisk, guest_disks
from ioflusher.lab.errors import LabError
from ioflusher.lab.follower import Follower, OnReport, ignore_report
from ioflusher.lab.messages import READER_DISK, STORE_DISK, GuestReport, PlayHalf
from ioflusher.lab.outcome import Half
from ioflusher.lab.players import OnMachine
from ioflusher.lab.qemu import Disk
from ioflusher.lab.recording import Recorder, Recording
from ioflusher.lab.remote import remote_store
from ioflusher.lab.session import Guest, Lab, await_agent
from ioflusher.lab.setup import check_programs, daemon_files
from ioflusher.scenario.records import Scenario

STORE_MARGIN_BYTES = 64 << 20  # file system overhead around the daemon's store


def ignore_recording(recording: Recording) -> None:
    """A place for recordings that keeps none."""


def ignore_machine(machine: object) -> None:
    """An `OnMachine` that lets the machine run to its end."""


def guest_for(scenario: Scenario, disks: tuple[Disk, ...]) -> Guest:
    """The machine that the scenario asks for."""
    return Guest(
        memory_bytes=scenario.machine.memory,
        cpus=scenario.machine.cpus,
        modules=scenario.modules,
        disks=disks,
        network=scenario.machine.network or scenario.daemon.store == "remote",
    )


def disks_for(scenario: Scenario) -> tuple[DiskRequest, ...]:
    """The disks beside the root: one for the daemon's store, one for what the pressure's reader reads."""
    wanted = []
    if scenario.daemon.store != "remote":
        margin = 0 if scenario.daemon.store == "disk" else STORE_MARGIN_BYTES
        wanted.append(EmptyDisk(scenario.device.size + margin, STORE_DISK))
    if scenario.pressure.kind == "reader":
        wanted.append(EmptyDisk(scenario.pressure.size, READER_DISK))
    return tuple(wanted)


def run_half(
    lab: Lab,
    scenario: Scenario,
    *,
    io_flusher: bool,
    on_report: OnReport = ignore_report,
    on_machine: OnMachine = ignore_machine,
    keep: Callable[[Recording], None] = ignore_recording,
) -> Half:
    """Boot one machine and follow it to its outcome.

    `on_report` is told of every report as it comes, `on_machine` is given the machine once it runs, so that
    another thread can end it; `keep` gets the recording of all that the guest said, also of a half that ended
    with an error.

    Raises:
        Cancelled: another thread ended the machine.
        LabError: a program is missing, the stage could not be built, or the guest did not come up: that is
            no outcome.
    """
    check_programs(scenario)
    hidden = [file for file in daemon_files(scenario) if not lab.shows(file)]
    if hidden:
        raise LabError(
            f"guests do not see {hidden[0]}, the program of daemon.command",
            hint=f"--share {hidden[0].parent}",
        )
    with remote_store(scenario) as remote, guest_disks(disks_for(scenario)) as disks:

        def heed(half: bool, report: GuestReport) -> None:
            remote.heed(report)
            on_report(half, report)

        order = PlayHalf(scenario, io_flusher, remote.uri)
        guest = replace(guest_for(scenario, disks), keep_memory=True)
        with lab.boot(guest, order) as vm:
            on_machine(vm)
            boot_s = await_agent(vm)
            recorder = Recorder(vm)
            try:
                return Follower(
                    recorder, scenario, io_flusher=io_flusher, boot_s=boot_s, on_report=heed
                ).follow()
            finally:
                keep(recorder.recording(scenario, io_flusher, boot_s, lab.kernel.release))
