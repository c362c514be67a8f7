"""One half, from the scenario to the outcome, with a recording in the place of the machine that is booted."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from ioflusher.errors import IoflusherError
from ioflusher.lab.disks import EmptyDisk
from ioflusher.lab.errors import LabError
from ioflusher.lab.experiment import disks_for, run_half
from ioflusher.lab.messages import Booted, GuestReport, Hello, PlayHalf, Sampled, StageFailed
from ioflusher.lab.recording import RecordedMachine, Recording, Said
from ioflusher.lab.remote import remote_store
from ioflusher.lab.session import Guest
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.client import Client, describe
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from tests.lab.test_recordings import judged, recording


@dataclass
class KernelNamed:
    """A kernel of which only the release matters."""

    release: str = "6.12.117"


@dataclass
class RecordedLab:
    """A lab whose guests say what a recording has; `boots`: what was asked for, `sizes`: of the disks."""

    said: Recording
    kernel: KernelNamed = field(default_factory=KernelNamed)
    boots: list[tuple[Guest, PlayHalf]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def boot(self, guest: Guest, order: PlayHalf) -> Iterator[RecordedMachine]:
        """The recorded machine; its disks are there by now."""
        self.boots.append((guest, order))
        self.sizes += [os.path.getsize(disk.location) for disk in guest.disks]
        yield RecordedMachine(self.said)


def with_its_start(name: str) -> Recording:
    """A recording, and before it what `await_agent` takes: first words after 2.5 s, the agent's after 3 s."""
    recorded = recording(name)
    start = (Said(2.5, Booted()), Said(3.0, Hello(release=recorded.kernel)))
    return msgspec.structs.replace(recorded, boot_s=0.0, said=start + recorded.said)


@pytest.mark.parametrize("name", ["finished", "frozen-throttled"])
def test_a_half_is_the_machines(name: str) -> None:
    """The order, the machine and its disks are the scenario's; the half is what the recording comes to."""
    recorded = recording(name)
    lab = RecordedLab(with_its_start(name))
    reports: list[tuple[bool, GuestReport]] = []
    kept: list[Recording] = []
    half = run_half(
        lab,  # type: ignore[arg-type]
        recorded.scenario,
        io_flusher=recorded.io_flusher,
        on_report=lambda io_flusher, report: reports.append((io_flusher, report)),
        keep=kept.append,
    )
    assert half == replace(judged(recorded), boot_s=2.5)
    ((guest, order),) = lab.boots
    assert order == PlayHalf(recorded.scenario, recorded.io_flusher, "")
    assert guest.memory_bytes == recorded.scenario.machine.memory
    assert not guest.network
    assert [disk.name for disk in guest.disks] == ["store"]
    assert lab.sizes == [recorded.scenario.device.size + (64 << 20)]
    assert not any(os.path.exists(disk.location) for disk in guest.disks), "they go away with the guest"
    assert reports == [(recorded.io_flusher, one.report) for one in recorded.said]
    (again,) = kept
    assert (again.boot_s, again.kernel, again.io_flusher) == (2.5, "6.12.117", recorded.io_flusher)
    assert again.said == recorded.said


def test_a_half_that_ends_with_an_error_is_kept_too() -> None:
    """What the guest said until the stage failed is there to be looked at."""
    lab = RecordedLab(with_its_start("stage-setting"))
    kept: list[Recording] = []
    with pytest.raises(LabError, match="no_such_setting"):
        run_half(lab, lab.said.scenario, io_flusher=True, keep=kept.append)  # type: ignore[arg-type]
    (again,) = kept
    assert isinstance(again.said[-1].report, StageFailed)
    with pytest.raises(LabError, match="no_such_setting"):
        run_half(lab, lab.said.scenario, io_flusher=True)  # type: ignore[arg-type]


def test_the_store_outside_has_the_devices_size_and_ends_with_the_half() -> None:
    """A scenario with a remote store gets the address of an empty export, by the guest's name for us."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    assert scenario.daemon.store == "remote"
    lab = RecordedLab(with_its_start("finished"))
    seen: list[Any] = []

    def look(io_flusher: bool, report: GuestReport) -> None:
        if isinstance(report, Sampled) and not seen:
            ((guest, order),) = lab.boots
            assert guest.network
            scheme, _, address = order.remote.partition("//")
            host, _, port = address.partition(":")
            seen.append((scheme, host))
            here = parse_uri(f"nbd://127.0.0.1:{port}")
            seen.append(describe(here).size)
            with Client(here) as client:
                data = bytearray(b"x" * 4096)
                client.read_into(scenario.device.size - 4096, memoryview(data))
            seen.append(bytes(data))
            seen.append(here)

    run_half(lab, scenario, io_flusher=True, on_report=look)  # type: ignore[arg-type]
    named, size, data, here = seen
    assert named == ("nbd:", "10.0.2.2")
    assert size == scenario.device.size
    assert data == bytes(4096)
    with pytest.raises(IoflusherError):
        describe(here)
    assert lab.sizes == [scenario.pressure.size]


def test_no_store_outside_where_none_is_asked_for() -> None:
    """A daemon that writes into a file has nothing to connect to."""
    with remote_store(parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])) as store:
        assert store.uri == ""


def test_a_file_store_has_64_mib_more_than_the_device() -> None:
    """For what the file system around it takes; its disk is the one with the store's name."""
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    assert disks_for(scenario) == (EmptyDisk(scenario.device.size + 67108864, "store"),)
