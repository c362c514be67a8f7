"""Scenario files: TOML text to a `Scenario`, pure and strict; and where the files are."""

import re
from pathlib import Path

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.faults import FAULTS, FaultPlace
from ioflusher.scenario.records import (
    CgroupTable,
    DaemonTable,
    DeviceTable,
    FaultTable,
    Scenario,
    Store,
    ThreadTable,
)
from ioflusher.scenario.stacks import STACKS
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import lines_told, packaged_texts, parse_toml, read_file

# what a thread may take that is no other thread's
SOURCES = ("requests", "events", "nothing")


def parse_scenario(text: str, *, origin: str = "scenario") -> Scenario:
    """A scenario from TOML text; raises ScenarioError with line, key, what was expected, what was found."""
    with lines_told(text, origin):
        scenario = parse_toml(text, Scenario, origin=origin, error=ScenarioError)
        check_scenario(scenario, origin)
    return scenario


def check_scenario(scenario: Scenario, origin: str) -> None:
    """See that the parts of a scenario go together; raises ScenarioError as `parse_scenario`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)*", scenario.name):
        raise ScenarioError(
            f"{origin}: name: expected small letters, digits, hyphens and single dots, "
            f"found {scenario.name!r}"
        )
    use, work = scenario.device.use, scenario.workload.kind
    if (use == "swap") != (work == "anonymous"):
        raise ScenarioError(
            f"{origin}: workload.kind {work!r} does not go with device.use {use!r}",
            hint='"anonymous" goes with "swap", "files" and "small-files" with a file system',
        )
    _check_stack(scenario.device, scenario.daemon, origin)
    load = scenario.workload
    for key, size in (
        ("device.size", scenario.device.size),
        ("workload.size", load.size),
        ("workload.file_size", load.file_size),
        ("workload.chunk", load.chunk),
    ):
        if not size:
            raise ScenarioError(f"{origin}: {key}: expected more than nothing, found 0")
    # more memory than there is, with swap, is an experiment with the OOM killer
    if use != "swap" and load.size > scenario.device.size:
        raise ScenarioError(
            f"{origin}: workload.size: expected at most device.size ({scenario.device.size >> 20} MiB), "
            f"found {load.size >> 20} MiB"
        )
    if scenario.pressure.kind != "none" and not scenario.pressure.size:
        raise ScenarioError(
            f"{origin}: the key pressure.size is missing: expected the bytes that the "
            f"{scenario.pressure.kind!r} pressure reads or touches"
        )
    if scenario.cgroup is not None:
        _check_cgroup(scenario.cgroup, origin)
    if scenario.hardening.state == "own" and not scenario.daemon.command:
        raise ScenarioError(
            f"{origin}: hardening.state 'own' is for a daemon.command that sets the state itself"
        )
    if scenario.hardening.daemon != "both" and scenario.device.kind != "stacked":
        raise ScenarioError(
            f"{origin}: hardening.daemon {scenario.hardening.daemon!r} is for device.kind 'stacked', which "
            f"has two daemons; found {scenario.device.kind!r}"
        )
    if scenario.hardening.reserve and scenario.cgroup and scenario.cgroup.version == 1:
        raise ScenarioError(
            f"{origin}: hardening.reserve is memory.min of control groups of version 2, "
            "and cgroup.version is 1"
        )
    if scenario.hardening.reserve and scenario.cgroup and scenario.cgroup.who == "both":
        raise ScenarioError(
            f"{origin}: hardening.reserve is for the daemon's own control group, and cgroup.who is 'both'",
            hint="use cgroup.memory_min",
        )
    _check_threads(scenario.daemon, origin)
    for number, fault in enumerate(scenario.fault, 1):
        _check_fault(fault, scenario, f"{origin}: fault {number}")


def _check_stack(device: DeviceTable, daemon: DaemonTable, origin: str) -> None:
    """The stack exists, has the store, and the daemon's command names what it must, and no more."""
    row = STACKS.get(device.kind)
    if row is None:
        kinds = ", ".join(map(repr, STACKS))
        raise ScenarioError(f"{origin}: device.kind: expected one of {kinds}, found {device.kind!r}")
    if device.use not in row.uses:
        uses = ", ".join(map(repr, row.uses))
        raise ScenarioError(
            f"{origin}: device.use: expected one of {uses} for device.kind {row.kind!r}, found {device.use!r}"
        )
    if daemon.store not in row.places:
        stores = ", ".join(map(repr, row.places))
        raise ScenarioError(
            f"{origin}: daemon.store: expected one of {stores} for device.kind {row.kind!r}, "
            f"found {daemon.store!r}"
        )
    if device.paths is not None and device.kind != "multipath":
        raise ScenarioError(
            f"{origin}: device.paths: expected only with device.kind 'multipath', found {device.kind!r}"
        )
    example = "as in " + str(list(row.example)).replace("'", '"')
    if not daemon.command:
        if not row.own_daemon:
            raise ScenarioError(
                f"{origin}: the key daemon.command is missing: {row.kind!r} has no daemon of ours",
                hint=example,
            )
        if daemon.store == "own":
            raise ScenarioError(
                f"{origin}: daemon.store: our own server has no store of its own", hint=example
            )
        if daemon.setup:
            raise ScenarioError(f"{origin}: daemon.setup: expected only with daemon.command")
        return
    _check_places(daemon, row.places[daemon.store], origin, example)


def _check_places(daemon: DaemonTable, expected: tuple[str, ...], origin: str, example: str) -> None:
    """The commands name each place that they must, and no other."""
    if not all(daemon.setup):
        raise ScenarioError(f"{origin}: daemon.setup: expected commands, found one without a word")
    words = [word for command in (daemon.command, *daemon.setup) for word in command]
    found = list(dict.fromkeys(re.findall(r"\{\w*\}", " ".join(words))))
    if sorted(found) != sorted(expected):
        key = "daemon.command and daemon.setup" if daemon.setup else "daemon.command"
        wanted = " and ".join(expected) or "no placeholder"
        said = ", ".join(found) or ("neither" if len(expected) == 2 else "none")
        raise ScenarioError(f"{origin}: {key}: expected {wanted} in it, found {said}", hint=example)


def _check_threads(daemon: DaemonTable, origin: str) -> None:
    """Threads have names of their own, take from somewhere, and their actions go together."""
    above: dict[str, ThreadTable] = {}
    for number, thread in enumerate(daemon.thread, 1):
        here = f"{origin}: daemon.thread {number}"
        if not thread.name or thread.name in above or thread.name in SOURCES:
            raise ScenarioError(f"{here}: name: expected a name of its own, found {thread.name!r}")
        if thread.takes not in (*SOURCES, *above):
            known = ", ".join(map(repr, (*SOURCES, *above)))
            raise ScenarioError(
                f"{here}: takes: expected one of {known}, found {thread.takes!r}",
                hint="a thread takes requests from one that stands above it",
            )
        if any(other.takes == thread.takes for other in above.values() if thread.takes in above):
            raise ScenarioError(
                f"{here}: takes: {thread.takes!r} hands its requests to another thread already",
                hint="threads that are alike are one table with a count",
            )
        _check_actions(thread, daemon.store, here)
        above[thread.name] = thread
    if above and not any(thread.takes in ("requests", "events") for thread in daemon.thread):
        raise ScenarioError(f'{origin}: daemon.thread: expected one that takes "requests" or "events"')


def _check_actions(thread: ThreadTable, store: Store, here: str) -> None:
    sent = locked = 0
    for action in thread.does:
        sent += (action == "send") - (action == "wait")
        locked += (action == "lock") - (action == "unlock")
        if sent < 0 or locked not in (0, 1):
            expected = {"wait": '"send" before it', "unlock": '"lock" before it', "lock": '"unlock" between'}
            raise ScenarioError(f"{here}: does: expected {expected[action]}, found {action!r}")
        if action == "store-direct" and store not in ("file", "disk"):
            raise ScenarioError(
                f"{here}: does: 'store-direct' goes with daemon.store 'file' and 'disk', found {store!r}"
            )
        if action == "wait" and store != "remote":
            raise ScenarioError(f"{here}: does: 'wait' goes with daemon.store 'remote', found {store!r}")
    if locked:
        raise ScenarioError(f'{here}: does: expected "unlock" after "lock"')


def _check_cgroup(group: CgroupTable, origin: str) -> None:
    """Version 1 has one limit of memory, and counts swap together with it."""
    if group.version == 2:
        return
    for name, value in (("memory_high", group.memory_high), ("memory_min", group.memory_min)):
        if value is not None:
            raise ScenarioError(
                f"{origin}: cgroup.{name}: version 1 of control groups has no such limit",
                hint="use cgroup.memory_max, or cgroup.version = 2",
            )
    if group.swap_max is not None and group.memory_max is None:
        raise ScenarioError(
            f"{origin}: cgroup.swap_max: version 1 of control groups counts swap and memory together",
            hint="give cgroup.memory_max, too",
        )


def _check_fault(fault: FaultTable, scenario: Scenario, origin: str) -> None:
    """The stack knows the fault, and its keys go together."""
    device, store = scenario.device.kind, scenario.daemon.store
    known = STACKS[device].faults
    row = FAULTS.get(fault.kind)
    if row is None or (row.place is FaultPlace.STACK and fault.kind not in known):
        kinds = ", ".join(repr(one.kind) for one in FAULTS.values() if _has_fault(device, one.kind))
        raise ScenarioError(
            f"{origin}: kind: expected one of {kinds} for device.kind {device!r}, found {fault.kind!r}",
            hint=did_you_mean(fault.kind, FAULTS),
        )
    if row.place is FaultPlace.OUTSIDE and store != "remote":
        raise ScenarioError(
            f"{origin}: {fault.kind!r} is a fault of the server outside, which there is only with "
            f"daemon.store 'remote', found {store!r}"
        )
    if fault.for_s and not row.ends:
        raise ScenarioError(f"{origin}: for_s: {fault.kind!r} cannot be ended again", hint="leave for_s out")
    if row.delayed != bool(fault.delay_ms):
        expected = "expected a delay of each request" if row.delayed else f"{fault.kind!r} has none"
        raise ScenarioError(f"{origin}: delay_ms: {expected}, found {fault.delay_ms}")
    if fault.times > 1 and fault.every_s <= fault.for_s:
        raise ScenarioError(
            f"{origin}: every_s: expected more than for_s ({fault.for_s:g}) for a fault that comes "
            f"{fault.times} times, found {fault.every_s:g}"
        )
    if fault.every_s and fault.times == 1:
        raise ScenarioError(f"{origin}: every_s: expected only with times above 1")


def _has_fault(device: str, kind: str) -> bool:
    """Whether a stack knows the kind of fault."""
    return FAULTS[kind].place is not FaultPlace.STACK or kind in STACKS[device].faults


def builtin_scenarios() -> dict[str, str]:
    """The scenarios that come with the package: name to TOML text."""
    return packaged_texts("ioflusher.scenario", "builtin")


def find_scenario(wanted: str) -> Scenario:
    """A built-in scenario by name, or one from a file.

    Raises:
        ScenarioError: there is none of that name, or it is no scenario.
    """
    return parse_scenario(scenario_text(wanted), origin=wanted)


def scenario_text(wanted: str) -> str:
    """The text of a built-in scenario by name, or of a file.

    Raises:
        ScenarioError: there is none of that name, or it cannot be read.
    """
    known = builtin_scenarios()
    if wanted in known:
        return known[wanted]
    if wanted.endswith(".toml") or "/" in wanted:
        return read_file(Path(wanted), what="the scenario", error=ScenarioError)
    raise ScenarioError(
        f"no scenario {wanted!r}",
        hint=f"{did_you_mean(wanted, known)} (`ioflusher lab list` shows them; a file ends in .toml)",
    )
