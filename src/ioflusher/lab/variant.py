"""Scenarios made of others: the same pressure and the same machine, with another daemon."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import check_scenario
from ioflusher.scenario.records import HardeningTable, Scenario, Store
from ioflusher.scenario.stacks import STACKS
from ioflusher.support.text import did_you_mean

# the driver of the guest's network, through which a daemon reaches the server outside
_NETWORK_MODULE = "virtio_net"


def with_daemon(
    scenario: Scenario,
    command: Sequence[str],
    kind: str | None = None,
    *,
    setup: Sequence[Sequence[str]] = (),
) -> Scenario:
    """The scenario with another daemon, everything else as it is.

    The store is the one whose placeholders the command has, the scenario's own first: with {socket} and
    {file} a file on another disk, with {remote} the server outside, with {socket} alone what it has itself.

    Args:
        scenario: what is played.
        command: the daemon's, as `daemon.command` of a scenario.
        kind: the stack between device and daemon, as `device.kind`; None: the scenario's.
        setup: commands that tell it what to serve, as `daemon.setup`; placeholders may stand in them, too.

    Raises:
        ScenarioError: the kind does not exist, or the command or the scenario does not go with it.
    """
    kind = kind or scenario.device.kind
    row = STACKS.get(kind)
    if row is None:
        raise ScenarioError(f"no kind of daemon {kind!r}", hint=did_you_mean(kind, STACKS))
    store = _store_of([word for words in (command, *setup) for word in words], kind, scenario.daemon.store)
    modules = scenario.machine.modules
    if store == "remote" and not any(module.split()[0] == _NETWORK_MODULE for module in modules):
        modules = (*modules, _NETWORK_MODULE)
    holds = (
        "the machine's swap" if scenario.device.use == "swap" else f"a file system ({scenario.device.use})"
    )
    changed = replace(
        scenario,
        title=f"{scenario.title}, with another daemon",
        served=f"a device ({kind}) holds {holds}; `{shlex.join(command)}` serves it",
        machine=replace(scenario.machine, modules=modules),
        device=replace(scenario.device, kind=kind),
        daemon=replace(scenario.daemon, store=store, command=tuple(command), setup=tuple(map(tuple, setup))),
    )
    check_scenario(changed, f"{scenario.name} with another daemon")
    return changed


def by_itself(scenario: Scenario) -> Scenario:
    """The scenario with a daemon that has to harden itself: nothing is put upon it from outside.

    In the half without the state what it sets of that is taken away again. Settings of the kernel stay.

    Raises:
        ScenarioError: the scenario's daemon is ours.
    """
    only = HardeningTable(state="own", min_free_kbytes=scenario.hardening.min_free_kbytes)
    changed = replace(scenario, hardening=only)
    check_scenario(changed, f"{scenario.name} with a daemon by itself")
    return changed


def _other_kinds(found: set[str], kind: str) -> str:
    """Which other kinds have just these placeholders, as the rest of a hint."""
    kinds = [
        row.kind
        for row in STACKS.values()
        if row.kind != kind and found and any(set(places) == found for places in row.places.values())
    ]
    return f"; these are placeholders of the kind {' or '.join(kinds)}" if kinds else ""


def _store_of(words: Sequence[str], kind: str, wanted: Store) -> Store:
    """The store whose placeholders the words have."""
    row = STACKS[kind]
    found = set(re.findall(r"\{\w*\}", " ".join(words)))
    fitting = [store for store, places in row.places.items() if set(places) == found]
    if not words or not fitting:
        forms = ", or ".join(
            " and ".join(places) or "no placeholder" for places in dict.fromkeys(row.places.values())
        )
        said = ", ".join(sorted(found)) or "none"
        raise ScenarioError(
            f"the daemon's command for {kind!r} must have {forms}; found {said}",
            hint=f"as in {shlex.join(row.example)}{_other_kinds(found, kind)}",
        )
    return wanted if wanted in fitting else fitting[0]
