"""systemd units: the drop-in that starts a service in the IO_FLUSHER state.

systemd has no setting for the state, so the drop-in puts `ioflusher run` in front of the service's command;
what systemd has settings for, it sets with them. systemd.unit(5), systemd.service(5), systemd.exec(5).
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ioflusher.harden.errors import HardenError
from ioflusher.harden.settings import UNLIMITED, Settings

# Where systemd looks for units, the most important first (systemd.unit(5)).
UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
DROP_IN = "50-ioflusher.conf"

# Characters before a command line that change how systemd starts it.
_PREFIXES = "-:+!|@"
_TRUE = ("1", "yes", "y", "true", "t", "on")


@dataclass(frozen=True, slots=True)
class ServiceUnit:
    """What of a service's unit matters here.

    Attributes:
        name: with its suffix, as nbd@nbd0.service.
        commands: the lines of ExecStart=, each as written.
        as_root: whether its commands run as root: neither User= nor DynamicUser=.
        bounding: whether CapabilityBoundingSet= limits it.
    """

    name: str
    commands: tuple[str, ...]
    as_root: bool
    bounding: bool


def read_service(name: str, *, root: Path = Path("/")) -> ServiceUnit:
    """The service `name` as the unit files and drop-ins below `root` define it.

    Our own drop-in is passed over, so that it can be made anew.

    Raises:
        HardenError: where there is no such unit, or it has no command.
    """
    if not name.endswith(".service") or "/" in name:
        raise HardenError(
            f"expected the name of a service, found {name!r}", hint="for example iscsid.service"
        )
    texts = [path.read_text("utf-8", "surrogateescape") for path in _unit_files(name, root)]
    return parse_service(name, texts)


def parse_service(name: str, texts: Sequence[str]) -> ServiceUnit:
    """The service whose unit file and drop-ins these are, in the order in which they apply.

    Raises:
        HardenError: where it has no command, or runs in a user namespace.
    """
    settings: dict[str, list[str]] = {}
    for text in texts:
        for key, value in _service_section(text):
            if value:
                settings.setdefault(key, []).append(value)
            else:  # an empty assignment takes back what was said before
                settings[key] = []
    commands = tuple(settings.get("ExecStart", ()))
    if not commands:
        raise HardenError(f"{name} has no ExecStart=", hint="name the service that runs the daemon itself")
    if _last(settings, "PrivateUsers", "no").lower() not in ("0", "no", "n", "false", "f", "off"):
        raise HardenError(
            f"{name} runs in a user namespace of its own (PrivateUsers=), where the state cannot be taken",
            hint="set PrivateUsers=no for it first",
        )
    dynamic = _last(settings, "DynamicUser", "no").lower() in _TRUE
    return ServiceUnit(
        name=name,
        commands=commands,
        as_root=_last(settings, "User", "root") in ("root", "0") and not dynamic,
        bounding=bool(settings.get("CapabilityBoundingSet")),
    )


def drop_in(service: ServiceUnit, program: Sequence[str], settings: Settings, *, require: bool = True) -> str:
    """The text of the drop-in. `program` is how to call ioflusher, absolute path first.

    Raises:
        HardenError: for a command that cannot be wrapped: renamed (prefix @), or several in one line.
    """
    run = [*program, "run"]
    lines = ["# Starts the service in the IO_FLUSHER state (prctl PR_SET_IO_FLUSHER).", "[Service]"]
    if not require:
        run.append("--best-effort")
    if not service.as_root:
        # The capability comes with the service's user, and is given up once the state is set.
        run.append("--drop-capability")
        lines.append("AmbientCapabilities=CAP_SYS_RESOURCE")
    if service.bounding:
        lines.append("CapabilityBoundingSet=CAP_SYS_RESOURCE")
    lines += _native(settings)
    lines.append("ExecStart=")
    lines += [f"ExecStart={_wrapped(command, run)}" for command in service.commands]
    return "\n".join(lines) + "\n"


def _last(settings: dict[str, list[str]], key: str, default: str) -> str:
    """The value that counts of a setting that takes one value."""
    values = settings.get(key)
    return values[-1] if values else default


def _native(settings: Settings) -> list[str]:
    """The settings that systemd has itself."""
    lines = []
    if settings.memory_lock_limit is not None:
        limit = "infinity" if settings.memory_lock_limit == UNLIMITED else str(settings.memory_lock_limit)
        lines.append(f"LimitMEMLOCK={limit}")
    if settings.cgroup is not None:
        lines.append(f"Slice={settings.cgroup}")
    if settings.oom_score_adj is not None:
        lines.append(f"OOMScoreAdjust={settings.oom_score_adj}")
    if settings.policy is not None:
        lines.append(f"CPUSchedulingPolicy={settings.policy.name.lower()}")
        lines.append(f"CPUSchedulingPriority={settings.priority}")
    if settings.nice is not None:
        lines.append(f"Nice={settings.nice}")
    if settings.io_class is not None:
        lines.append(f"IOSchedulingClass={settings.io_class.name.lower().replace('_', '-')}")
    if settings.io_level is not None:
        lines.append(f"IOSchedulingPriority={settings.io_level}")
    return lines


def _wrapped(command: str, run: Sequence[str]) -> str:
    """A line of ExecStart= with our program in front, its prefixes kept."""
    bare = command.lstrip(_PREFIXES)
    prefixes = command[: len(command) - len(bare)]
    if "@" in prefixes:
        raise HardenError(
            f"ExecStart={command} gives the program another name (prefix @), which a wrapper cannot keep",
            hint="write a drop-in by hand, with the command without @",
        )
    if ";" in command.split():
        raise HardenError(
            f"ExecStart={command} holds several commands", hint="give each a line ExecStart= of its own"
        )
    # systemd expands % and $ in its own command lines.
    ours = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in run)
    return f"{prefixes}{ours} -- {bare}"


def _unit_files(name: str, root: Path) -> list[Path]:
    """The unit file and the drop-ins of a service, in the order in which they apply."""
    template = f"{name.partition('@')[0]}@.service" if "@" in name else None
    names = [name] if template is None else [name, template]
    found = [
        path
        for unit in names
        for directory in UNIT_DIRECTORIES
        if (path := root / directory / unit).is_file()
    ]
    if not found:
        raise HardenError(
            f"no unit {name} in {', '.join('/' + directory for directory in UNIT_DIRECTORIES)}",
            hint="see `systemctl list-unit-files --type=service`",
        )
    drop_ins: dict[str, Path] = {}
    # By file name, whatever the directory; of two with one name the more important directory counts.
    for unit in (template, name):
        for directory in reversed(UNIT_DIRECTORIES) if unit else ():
            for path in (root / directory / f"{unit}.d").glob("*.conf"):
                drop_ins[path.name] = path
    drop_ins.pop(DROP_IN, None)
    return [found[0], *(drop_ins[key] for key in sorted(drop_ins))]


def _service_section(text: str) -> list[tuple[str, str]]:
    """The assignments of the section [Service], lines that go on joined."""
    pairs: list[tuple[str, str]] = []
    section, joined = "", ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(("#", ";")) or (not line and not joined):
            continue
        if line.endswith("\\"):
            joined += line[:-1].rstrip() + " "
            continue
        line, joined = joined + line, ""
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line:
            key, _, value = line.partition("=")
            pairs.append((key.strip(), value.strip()))
    return pairs
