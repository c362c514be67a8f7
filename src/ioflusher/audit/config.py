"""The configuration: rules switched off, findings suppressed, each with a reason, and thresholds. TOML.

[rules.oom-killable]
off = "this machine panics when memory is short"

[rules.small-reserve]
request_kib = 32

[[suppress]]
rule = "memory-high"
process = "tgtd"
reason = "limited on purpose, see OPS-7"
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ioflusher.audit.errors import AuditError
from ioflusher.audit.finding import AuditFinding, SubjectKind
from ioflusher.audit.table import BY_NAME
from ioflusher.audit.thresholds import RANGES, Thresholds

SYSTEM_FILE = Path("/etc/ioflusher/audit.toml")
LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Suppression:
    """Findings that are known and accepted: those that fit all that is given.

    Attributes:
        rule: its identifier.
        reason: why they are accepted.
        process: name of the process that they are about.
        device: path of the device or mount point that they are about.
        host: name of the machine.
    """

    rule: str
    reason: str
    process: str | None = None
    device: str | None = None
    host: str | None = None

    def fits(self, finding: AuditFinding, host: str) -> bool:
        """Whether it means that finding."""
        subject = finding.subject
        process = subject.name if subject.kind is SubjectKind.PROCESS else None
        device = subject.name if subject.kind is SubjectKind.DEVICE else None
        return (
            finding.rule == self.rule
            and self.process in (None, process)
            and self.device in (None, device)
            and self.host in (None, host)
        )


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration says.

    Attributes:
        off: rules that are switched off, each with its reason.
        suppress: findings that are accepted.
        thresholds: thresholds.
        origin: the file that it was read from, None for none.
    """

    off: tuple[tuple[str, str], ...] = ()
    suppress: tuple[Suppression, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    origin: str | None = None


def default_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read where none is named: the user's own if it is there, else the system's, else None.

    A directory that may not be searched, as another user's home after sudo, counts as one without it.
    """
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    candidates = [Path(home) / "ioflusher" / "audit.toml"] if home.startswith("/") else []
    return next((path for path in (*candidates, SYSTEM_FILE) if os.path.isfile(path)), None)


def read_config(path: Path | None) -> Config:
    """The configuration in a file, or the default where there is no file.

    Raises:
        AuditError: where it cannot be read or says what one may not say.
    """
    if path is None:
        return Config()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror}", errno=error.errno) from error
    if len(data) > LARGEST_BYTES:
        raise AuditError(f"{path}: longer than the {LARGEST_BYTES >> 20} MiB that a configuration may have")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise AuditError(f"{path}: not UTF-8, as TOML is: byte {error.start}") from error
    return parse_config(text, str(path))


def parse_config(text: str, origin: str) -> Config:
    """The configuration in a TOML text; `origin` is what messages call it.

    Raises:
        AuditError: for what is not TOML, unknown rules and keys, reasons that are missing, wrong numbers.
    """
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AuditError(f"{origin}: not TOML: {error}") from error
    _known(raw, ("rules", "suppress"), origin, "the file")
    off: list[tuple[str, str]] = []
    thresholds = Thresholds()
    for name, table in _table(raw.get("rules", {}), origin, "rules").items():
        _known_rule(name, origin, "rules")
        thresholds = _rule(name, _table(table, origin, f"rules.{name}"), origin, off, thresholds)
    entries = raw.get("suppress", [])
    if not isinstance(entries, list):
        raise AuditError(f"{origin}: suppress: expected tables [[suppress]], found {_kind(entries)}")
    suppress = tuple(_suppression(entry, origin, number) for number, entry in enumerate(entries, 1))
    return Config(tuple(off), suppress, thresholds, origin)


def _rule(
    name: str, table: Mapping[str, Any], origin: str, off: list[tuple[str, str]], thresholds: Thresholds
) -> Thresholds:
    names = BY_NAME[name].thresholds
    _known(table, ("off", *names), origin, f"rules.{name}")
    if "off" in table:
        off.append((name, _reason(table["off"], origin, f"rules.{name}.off")))
    for key in names:
        if key in table:
            thresholds = replace(thresholds, **{key: _number(table[key], key, origin, f"rules.{name}.{key}")})
    return thresholds


def _suppression(entry: object, origin: str, number: int) -> Suppression:
    where = f"suppress {number}"
    table = _table(entry, origin, where)
    known = tuple(one.name for one in fields(Suppression))
    _known(table, known, origin, where)
    if "rule" not in table:
        raise AuditError(f"{origin}: {where}: says no rule", hint="see `ioflusher audit --list-rules`")
    for key, value in table.items():
        if not isinstance(value, str):
            raise AuditError(f"{origin}: {where}: {key}: expected a string, found {_kind(value)}")
    _known_rule(table["rule"], origin, where)
    reason = _reason(table.get("reason"), origin, where)
    if not {"process", "device", "host"} & table.keys():
        raise AuditError(
            f"{origin}: {where}: names neither a process, a device nor a host",
            hint=f'to take the whole rule out, write [rules.{table["rule"]}] with off = "the reason"',
        )
    return Suppression(**{**table, "reason": reason})


def _reason(value: object, origin: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise AuditError(
            f"{origin}: {where}: expected a reason, found {'none' if value is None else repr(value)[:40]}",
            hint="say in a string why this is accepted; whoever reads the report sees it",
        )
    return value.strip()


def _number(value: object, key: str, origin: str, where: str) -> int:
    least, most, meaning = RANGES[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise AuditError(
            f"{origin}: {where}: expected a whole number from {least} to {most}, found {value!r:.40}",
            hint=f"it is the {meaning}",
        )
    return value


def _table(value: object, origin: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise AuditError(f"{origin}: {where}: expected a table, found {_kind(value)}")
    return value


def _known_rule(name: str, origin: str, where: str) -> None:
    if name not in BY_NAME:
        raise AuditError(f"{origin}: {where}: no rule {name!r:.60}", hint=_nearest(name, BY_NAME))


def _known(table: Mapping[str, Any], known: Iterable[str], origin: str, where: str) -> None:
    names = tuple(known)
    for key in table:
        if key not in names:
            raise AuditError(f"{origin}: {where}: unknown key {key!r:.60}", hint=_nearest(key, names))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"it may be one of {', '.join(names)}"


def _kind(value: object) -> str:
    return {dict: "a table", list: "an array", str: "a string", bool: "a truth value"}.get(
        type(value), f"a {type(value).__name__}"
    )
