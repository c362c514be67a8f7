"""Faults: which a scenario may have, when they come, who brings them about, and what is reported."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ioflusher.errors import IoflusherError
from ioflusher.lab.follower import Follower, fault_sentences
from ioflusher.lab.guest.faults import NEVER_S, FaultDriver
from ioflusher.lab.guest.processes import Processes
from ioflusher.lab.messages import FaultBegan, FaultEnded, PlayHalf, Sampled
from ioflusher.lab.outcome import FaultChange
from ioflusher.lab.recording import RecordedMachine, Said
from ioflusher.lab.remote import DelayedBackend, remote_store
from ioflusher.lab.stacks import load_stack, nbd
from ioflusher.lab.stacks.base import Fault
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.client import Client, describe
from ioflusher.report.experiment_text import fault_words
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.faults import FAULTS, FaultPlace, fault_events
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import FaultTable
from ioflusher.scenario.stacks import STACKS
from tests.lab.halves import FROZEN
from tests.lab.test_recordings import recording

SWAP, FILES = "swap-on-nbd", "ext4-on-nbd-throttled"


def with_fault(name: str, table: str) -> str:
    """A built-in scenario with one fault more."""
    return f"{builtin_scenarios()[name]}\n[[fault]]\n{table}\n"


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        (SWAP, 'kind = "remote-slow"', "fault 1: the key at_s is missing"),
        (SWAP, 'kind = "remote-slow"\nat_s = -1', "at_s: expected a number of seconds, 0 or more, found -1"),
        (SWAP, 'kind = "remote-slow"\nat_s = 1', "delay_ms: expected a delay of each request, found 0"),
        (
            SWAP,
            'kind = "remote-cut"\nat_s = 1\ndelay_ms = 5',
            "delay_ms: 'remote-cut' has none, found 5",
        ),
        (FILES, 'kind = "remote-cut"\nat_s = 1', "only with daemon.store 'remote', found 'file'"),
        (SWAP, 'kind = "daemon-killed"\nat_s = 1\nfor_s = 2', "for_s: 'daemon-killed' cannot be ended"),
        (SWAP, 'kind = "paths-offline"\nat_s = 1', "for device.kind 'nbd', found 'paths-offline'"),
        (SWAP, 'kind = "daemon-kiled"\nat_s = 1', "kind: expected one of 'daemon-killed', 'daemon-stopped'"),
        (
            SWAP,
            'kind = "daemon-stopped"\nat_s = 1\nfor_s = 2\ntimes = 3\nevery_s = 2',
            "every_s: expected more than for_s (2) for a fault that comes 3 times, found 2",
        ),
        (SWAP, 'kind = "remote-cut"\nat_s = 1\nevery_s = 2', "every_s: expected only with times above 1"),
        (SWAP, 'kind = "remote-cut"\nat_s = 1\ntimes = 0', "times: expected a whole number from 1 to 1000"),
        (SWAP, 'kind = "remote-cut"\nat_s = 1\nfor = 2', "fault 1: unknown key for"),
    ],
)
def test_mistakes_are_named(name: str, table: str, says: str) -> None:
    """What cannot be is refused before anything boots, with the number of its table."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(with_fault(name, table), origin="mine.toml")
    assert re.match(r"mine\.toml:\d+: fault 1: ", str(caught.value))
    assert says in str(caught.value)


def test_a_misspelt_fault_names_the_nearest() -> None:
    """As for any key."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(with_fault(SWAP, 'kind = "daemon-kiled"\nat_s = 1'))
    assert "did you mean daemon-killed?" in (caught.value.hint or "")


def test_faults_come_in_the_order_of_time() -> None:
    """Each begins and ends as often as it says; what ends at a moment comes before what begins then."""
    stopped = FaultTable("daemon-stopped", at_s=1.0, for_s=2.0, times=2, every_s=4.0)
    killed = FaultTable("daemon-killed", at_s=3.0)
    assert [(event.at_s, event.fault, event.begins) for event in fault_events((stopped, killed))] == [
        (1.0, 0, True),
        (3.0, 0, False),
        (3.0, 1, True),
        (5.0, 0, True),
        (7.0, 0, False),
    ]


class Port:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def say(self, report: Any) -> None:
        self.said.append(report)


def test_the_guest_brings_about_what_is_due() -> None:
    """Nothing before its time, everything that is due at once, and a failure with its reason."""
    done: list[str] = []

    def refuse() -> None:
        raise OSError(3, "No such process")

    faults = (
        FaultTable("connection-cut", at_s=1.0, for_s=2.0),
        FaultTable("daemon-killed", at_s=3.0),
        FaultTable("remote-silent", at_s=9.0),
    )
    known = {
        "connection-cut": Fault(lambda: done.append("cut"), lambda: done.append("mended")),
        "daemon-killed": Fault(refuse),
    }
    now, port = [100.0], Port()
    driver = FaultDriver(faults, known, port, clock=lambda: now[0])  # type: ignore[arg-type]
    driver.begin()
    assert driver.due_in_s() == 1.0
    now[0] = 100.9
    driver.act()
    assert port.said == []
    now[0] = 101.2
    driver.act()
    assert (done, port.said) == (["cut"], [FaultBegan(fault=0, kind="connection-cut")])
    now[0] = 103.0
    driver.act()
    assert done == ["cut", "mended"]
    assert port.said[1:] == [
        FaultEnded(fault=0, kind="connection-cut"),
        FaultBegan(fault=1, kind="daemon-killed", failed="[Errno 3] No such process"),
    ]
    now[0] = 110.0
    driver.act()
    assert port.said[-1] == FaultBegan(fault=2, kind="remote-silent"), "announced, for whoever does it"
    assert driver.due_in_s() == NEVER_S


@pytest.mark.parametrize("row", STACKS.values(), ids=lambda row: row.kind)
def test_a_stack_can_do_what_its_row_says(row: Any) -> None:
    """Every fault of the row and those of every stack, no other; one that ends has a way to end it."""
    scenario = parse_scenario(builtin_scenarios()[FILES])
    scenario = replace(scenario, device=replace(scenario.device, kind=row.kind))
    faults = load_stack(row.kind)(PlayHalf(scenario, False, ""), Processes()).faults()
    common = {one.kind for one in FAULTS.values() if one.place is FaultPlace.ANY_STACK}
    assert set(row.faults) <= {one.kind for one in FAULTS.values() if one.place is FaultPlace.STACK}
    assert set(faults) == common | set(row.faults)
    for kind, fault in faults.items():
        assert (fault.relieve is not None) == FAULTS[kind].ends


def test_the_daemon_is_stopped_let_go_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real signals to a real process."""
    stack = nbd.NbdStack(PlayHalf(parse_scenario(builtin_scenarios()[FILES]), False, ""), Processes())
    with subprocess.Popen(["sleep", "60"]) as daemon:
        monkeypatch.setattr(stack, "daemons", lambda: (daemon.pid,))
        faults = stack.faults()
        faults["daemon-stopped"].inject()
        assert os.WIFSTOPPED(os.waitpid(daemon.pid, os.WUNTRACED)[1])
        relieve = faults["daemon-stopped"].relieve
        assert relieve is not None
        relieve()
        assert os.WIFCONTINUED(os.waitpid(daemon.pid, os.WCONTINUED)[1])
        faults["daemon-killed"].inject()
        assert daemon.wait(timeout=30) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        faults["daemon-killed"].inject()


@pytest.fixture
def served() -> Iterator[tuple[Any, str]]:
    """A store outside with one fault of each kind, and its address here."""
    text = "".join(
        f'\n[[fault]]\nkind = "{kind}"\nat_s = 1\nfor_s = 1\n{more}\n'
        for kind, more in (("remote-slow", "delay_ms = 300"), ("remote-silent", ""), ("remote-cut", ""))
    )
    scenario = parse_scenario(builtin_scenarios()[SWAP] + text)
    with remote_store(scenario) as store:
        yield store, f"nbd://127.0.0.1:{store.uri.rpartition(':')[2]}"


def test_the_server_outside_is_slow_for_a_time(served: tuple[Any, str]) -> None:
    """Each request takes its delay longer, and no longer than that once the guest says so."""
    store, address = served
    with Client(parse_uri(address)) as client:
        view = memoryview(bytearray(4096))
        store.heed(FaultBegan(fault=0, kind="remote-slow"))
        before = time.monotonic()
        client.read_into(0, view)
        assert time.monotonic() - before >= 0.3
        store.heed(FaultEnded(fault=0, kind="remote-slow"))
        before = time.monotonic()
        client.read_into(0, view)
        assert time.monotonic() - before < 0.3


def test_the_server_outside_is_silent_until_it_is_not(served: tuple[Any, str]) -> None:
    """A request waits, and is answered once the fault is over."""
    store, address = served
    with Client(parse_uri(address)) as client:
        store.heed(FaultBegan(fault=1, kind="remote-silent"))
        reading = threading.Thread(target=client.read_into, args=(0, memoryview(bytearray(4096))))
        reading.start()
        reading.join(0.2)
        assert reading.is_alive()
        store.heed(FaultEnded(fault=1, kind="remote-silent"))
        reading.join(30)
        assert not reading.is_alive()


def test_the_server_outside_cuts_and_refuses(served: tuple[Any, str]) -> None:
    """Connections end, new ones are refused, until the fault is over; reports of others change nothing."""
    store, address = served
    with Client(parse_uri(address)) as client:
        store.heed(FaultBegan(fault=2, kind="remote-cut"))
        with pytest.raises(IoflusherError):
            client.read_into(0, memoryview(bytearray(4096)))
    with pytest.raises(IoflusherError):
        describe(parse_uri(address))
    store.heed(Sampled(completed=1, in_flight=0, memory_kib={}))
    store.heed(FaultBegan(fault=99, kind="remote-cut"))
    store.heed(FaultEnded(fault=2, kind="remote-cut"))
    assert describe(parse_uri(address)).size == parse_scenario(builtin_scenarios()[SWAP]).device.size


def test_a_silent_server_closes_at_once() -> None:
    """Who waits is let go with an error when the server closes."""
    with MemoryBackend(4096) as memory:
        backend = DelayedBackend(memory)
        backend.delay(None)
        failed: list[OSError] = []

        def write() -> None:
            try:
                backend.write(0, memoryview(bytes(512)))
            except OSError as error:
                failed.append(error)

        writing = threading.Thread(target=write)
        writing.start()
        backend.interrupt()
        writing.join(30)
        assert [str(error) for error in failed] == ["[Errno 5] the server closes"]


def test_a_half_tells_of_its_faults() -> None:
    """Kind, seconds since the workload began, and why one did not come about, down to the words."""
    recorded = recording("finished")
    at = next(n for n, one in enumerate(recorded.said) if isinstance(one.report, Sampled))
    sampled = recorded.said[at]
    assert sampled.report is not None
    time_s = sampled.report.time_s
    more = (
        Said(sampled.elapsed_s, FaultBegan(time_s=time_s + 1, fault=0, kind="daemon-stopped")),
        Said(sampled.elapsed_s, FaultEnded(time_s=time_s + 2, fault=0, kind="daemon-stopped", failed="gone")),
    )
    said = (*recorded.said[: at + 1], *more, *recorded.said[at + 1 :])
    machine = RecordedMachine(msgspec.structs.replace(recorded, said=said))
    half = Follower(machine, recorded.scenario, io_flusher=True, boot_s=recorded.boot_s).follow()
    start, end = half.faults
    assert (start.kind, start.begins, start.failed) == ("daemon-stopped", True, "")
    assert start.time_s == pytest.approx(half.samples[0].time_s + 1)
    assert (end.begins, end.failed) == (False, "gone")
    faults = (FaultChange(1.0, "daemon-stopped", True), FaultChange(2.5, "daemon-stopped", False, "gone"))
    said_so = fault_words(replace(FROZEN, faults=faults))
    assert said_so == "daemon-stopped from 1.0 s; daemon-stopped until 2.5 s FAILED: gone"


def test_faults_in_force_are_in_the_reason() -> None:
    """Of a half that did not finish: those that began, came about and have not ended."""
    changes = (
        FaultChange(1.0, "remote-slow", True),
        FaultChange(2.0, "daemon-stopped", True, "[Errno 3] No such process"),
        FaultChange(2.5, "remote-silent", True),
        FaultChange(3.0, "remote-slow", False),
    )
    assert fault_sentences(changes) == " The scenario's remote-silent was in force, since 2.5 s."
    assert fault_sentences((*changes, FaultChange(4.0, "remote-silent", False, "gone"))) != ""
    for name, in_reason in (("frozen-no-witness", True), ("finished", False)):
        recorded = recording(name)
        at = next(n for n, one in enumerate(recorded.said) if isinstance(one.report, Sampled))
        sampled = recorded.said[at]
        assert sampled.report is not None
        fault = FaultBegan(time_s=sampled.report.time_s, fault=0, kind="daemon-stopped")
        said = (*recorded.said[: at + 1], Said(sampled.elapsed_s, fault), *recorded.said[at + 1 :])
        machine = RecordedMachine(msgspec.structs.replace(recorded, said=said))
        half = Follower(machine, recorded.scenario, io_flusher=True, boot_s=recorded.boot_s).follow()
        assert ("The scenario's daemon-stopped was in force, since" in half.detail) == in_reason
