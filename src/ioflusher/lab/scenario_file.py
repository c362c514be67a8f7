"""Scenario files: TOML text to a `Scenario`, pure and strict; and where the files are."""

import re
from importlib import resources
from pathlib import Path

from ioflusher.lab.errors import ScenarioError
from ioflusher.lab.scenario import DaemonTable, DeviceTable, Scenario
from ioflusher.lab.stacks import STACKS
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import parse_toml, read_file


def parse_scenario(text: str, *, origin: str = "scenario") -> Scenario:
    """A scenario from TOML text; raises ScenarioError with the key, what was expected and what was found."""
    scenario = parse_toml(text, Scenario, origin=origin, error=ScenarioError)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", scenario.name):
        raise ScenarioError(
            f"{origin}: name: expected small letters, digits and hyphens, found {scenario.name!r}"
        )
    use, work = scenario.device.use, scenario.workload.kind
    if (use == "swap") != (work == "anonymous"):
        raise ScenarioError(
            f"{origin}: workload.kind {work!r} does not go with device.use {use!r}",
            hint='"anonymous" goes with "swap", "files" with a file system',
        )
    _check_stack(scenario.device, scenario.daemon, origin)
    return scenario


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
    example = "as in " + str(list(row.example)).replace("'", '"')
    if not daemon.command:
        if not row.own_daemon:
            raise ScenarioError(
                f"{origin}: the key daemon.command is missing: {row.kind!r} has no daemon of ours",
                hint=example,
            )
        return
    expected = row.places[daemon.store]
    found = re.findall(r"\{\w*\}", " ".join(daemon.command))
    if sorted(set(found)) != sorted(expected):
        said = ", ".join(found) or "neither"
        raise ScenarioError(
            f"{origin}: daemon.command: expected {' and '.join(expected)} in it, found {said}", hint=example
        )
    if daemon.lock_memory or daemon.realtime:
        raise ScenarioError(
            f"{origin}: daemon.lock_memory and daemon.realtime are options of our own server",
            hint="put what the other server has for it into daemon.command",
        )


def builtin_scenarios() -> dict[str, str]:
    """The scenarios that come with the package: name to TOML text."""
    directory = resources.files("ioflusher.lab") / "scenarios"
    return {
        entry.name.removesuffix(".toml"): entry.read_text()
        for entry in sorted(directory.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def find_scenario(wanted: str) -> Scenario:
    """A built-in scenario by name, or one from a file.

    Raises:
        ScenarioError: there is none of that name, or it is no scenario.
    """
    known = builtin_scenarios()
    if wanted in known:
        return parse_scenario(known[wanted], origin=wanted)
    if wanted.endswith(".toml") or "/" in wanted:
        return parse_scenario(
            read_file(Path(wanted), what="the scenario", error=ScenarioError), origin=wanted
        )
    raise ScenarioError(
        f"no scenario {wanted!r}",
        hint=f"{did_you_mean(wanted, known)} `ioflusher lab list` shows them; a file ends in .toml",
    )
