"""Scenarios: what machine, whose device, which pressure, and what counts as frozen.

A scenario is a TOML file; docs/lab.md describes every key. Reading one is pure and strict: a key that
nobody knows is an error that names the nearest one that exists.
"""

import re
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

from ioflusher.lab.errors import ScenarioError
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import Form, Size, parse_toml, read_file


def _setting(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(value)
    return str(value)


# the content of a kernel setting
Setting = Annotated[str, Form("a string or a whole number", _setting)]


@dataclass(frozen=True, slots=True)
class MachineTable:
    """The virtual machine: memory in bytes, processors, kernel modules loaded before its root is."""

    memory: Size
    cpus: int = 1
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Kernel settings: `sysctl` by dotted name, `write` a file of /proc or /sys each with its new content."""

    sysctl: dict[str, Setting] = field(default_factory=dict)
    write: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """The block device that the daemon serves.

    Attributes:
        size: bytes.
        use: what lies on it: "swap", "ext4" or "xfs".
    """

    size: Size
    use: typing.Literal["swap", "ext4", "xfs"]


@dataclass(frozen=True, slots=True)
class DaemonTable:
    """The user-space daemon.

    Attributes:
        store: "remote": forward every request to a server outside the machine;
            "file": buffered writes into a file on another disk of the machine.
        lock_memory: whether it calls mlockall().
        realtime: SCHED_FIFO priority, 0 for ordinary scheduling.
        command: another NBD server than ours, in the foreground, with {socket}, the Unix socket to listen on,
            and {file} or {remote} (an NBD URI), its store. The state is set just before it is executed.
    """

    store: typing.Literal["remote", "file"]
    lock_memory: bool = False
    realtime: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadTable:
    """What uses the device; in the end all that it wrote is read back and compared.

    Attributes:
        kind: "anonymous": touch memory that must be swapped out; "files": write files and fsync them.
        size: bytes in all.
        file_size: bytes of one file.
        chunk: bytes between two pauses.
        pause_ms: length of a pause.
    """

    kind: typing.Literal["anonymous", "files"]
    size: Size
    file_size: Size = 32 << 20
    chunk: Size = 1 << 20
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class PressureTable:
    """What else needs memory meanwhile.

    Attributes:
        kind: "none", or "reader": read another disk over and over, which fills memory with clean page cache.
        size: bytes of that disk.
    """

    kind: typing.Literal["none", "reader"] = "none"
    size: Size = 0


@dataclass(frozen=True, slots=True)
class FrozenTable:
    """What counts as frozen: requests in flight, none completed for so many seconds."""

    stalled_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One experiment's whole description.

    Attributes:
        name: a word for the command line.
        title: one line for people.
        served: what is served by whom, a sentence.
        pressed: what pressure is put on it, a sentence.
        deadline_s: seconds from power-on to the end of one half; a half that is neither done nor frozen
            by then is lost.
    """

    name: str
    title: str
    served: str
    pressed: str
    machine: MachineTable
    device: DeviceTable
    daemon: DaemonTable
    workload: WorkloadTable
    kernel: KernelTable = KernelTable()
    pressure: PressureTable = PressureTable()
    frozen: FrozenTable = FrozenTable()
    deadline_s: float = 90.0


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
    _check_command(scenario.daemon, origin)
    return scenario


def _check_command(daemon: DaemonTable, origin: str) -> None:
    """Another server's command must say where it listens and stores, and nothing that it cannot be told."""
    if not daemon.command:
        return
    store = "{file}" if daemon.store == "file" else "{remote}"
    found = re.findall(r"\{\w*\}", " ".join(daemon.command))
    if sorted(set(found)) != sorted({"{socket}", store}):
        said = ", ".join(found) or "neither"
        raise ScenarioError(
            f"{origin}: daemon.command: expected {{socket}} and {store} in it, found {said}",
            hint='as in ["nbdkit", "-f", "-U", "{socket}", "file", "{file}"]',
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


def find_scenario(wanted: str) -> tuple[Scenario, str]:
    """A built-in scenario by name or one from a file; returns it with its text."""
    known = builtin_scenarios()
    if wanted in known:
        return parse_scenario(known[wanted], origin=wanted), known[wanted]
    if wanted.endswith(".toml") or "/" in wanted:
        text = read_file(Path(wanted), what="the scenario", error=ScenarioError)
        return parse_scenario(text, origin=wanted), text
    raise ScenarioError(
        f"no scenario {wanted!r}",
        hint=f"{did_you_mean(wanted, known)} `ioflusher lab list` shows them; a file ends in .toml",
    )
