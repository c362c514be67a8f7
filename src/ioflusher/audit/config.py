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

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ioflusher.audit.errors import AuditError
from ioflusher.audit.finding import AuditFinding, SubjectKind
from ioflusher.audit.table import BY_NAME
from ioflusher.audit.thresholds import RANGES, Thresholds
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import Form, parse_toml, read_file, read_table, whole_number

SYSTEM_FILE = Path("/etc/ioflusher/audit.toml")


def _words(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value.strip()


Reason = Annotated[
    str,
    Form("a reason", _words, "say in a string why this is accepted; whoever reads the report sees it"),
]
RuleName = Annotated[str, Form("the name of a rule", _words, "see `ioflusher audit --list-rules`")]


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

    rule: RuleName
    reason: Reason
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
class _File:
    """The file as it is written; what a table of [rules] may say depends on the rule."""

    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    suppress: tuple[Suppression, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration says.

    Attributes:
        off: rules that are switched off, each with its reason.
        suppress: findings that are accepted.
        thresholds: the numbers that rules compare with.
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
    return parse_config(read_file(path, error=AuditError), str(path))


def parse_config(text: str, origin: str) -> Config:
    """The configuration in a TOML text; `origin` is what messages call it.

    Raises:
        AuditError: for what is not TOML, unknown rules and keys, reasons that are missing, wrong numbers.
    """
    file = parse_toml(text, _File, origin=origin, error=AuditError)
    off: list[tuple[str, str]] = []
    thresholds = Thresholds()
    for name, raw in file.rules.items():
        _known_rule(name, f"{origin}: rules")
        table = read_table(raw, _table_of(name), origin=origin, where=f"rules.{name}", error=AuditError)
        if table.off is not None:
            off.append((name, table.off))
        given = {key: getattr(table, key) for key in BY_NAME[name].thresholds}
        thresholds = replace(thresholds, **{key: value for key, value in given.items() if value is not None})
    for number, entry in enumerate(file.suppress, 1):
        _known_rule(entry.rule, f"{origin}: suppress {number}")
        if entry.process is entry.device is entry.host is None:
            raise AuditError(
                f"{origin}: suppress {number}: names neither a process, a device nor a host",
                hint=f'to take the whole rule out, write [rules.{entry.rule}] with off = "the reason"',
            )
    return Config(tuple(off), file.suppress, thresholds, origin)


def _table_of(rule: str) -> Any:
    """What the table [rules.NAME] of a rule may say: the reason why it is off, and its thresholds."""
    numbers = [
        (key, Annotated[int, whole_number(*RANGES[key])] | None, None) for key in BY_NAME[rule].thresholds
    ]
    return make_dataclass("RuleTable", [("off", Reason | None, None), *numbers], frozen=True, slots=True)


def _known_rule(name: str, where: str) -> None:
    if name not in BY_NAME:
        raise AuditError(f"{where}: no rule {name!r:.60}", hint=did_you_mean(name, BY_NAME))
