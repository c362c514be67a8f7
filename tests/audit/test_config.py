"""The configuration: what it may say, what it does, and what is refused with which words."""

import os
from pathlib import Path

import pytest

from ioflusher.audit import config as configuration
from ioflusher.audit.config import Config, default_path, parse_config, read_config
from ioflusher.audit.errors import AuditError
from ioflusher.audit.table import RULES
from tests.audit.machines import BARE, WELL, found, judged, machine, threads

MORTAL = machine({"oom_score_adj": 0, "threads": threads(BARE)})
WHOLE = """
[rules.oom-killable]
off = "panics anyway"

[rules.small-reserve]
request_kib = 32

[[suppress]]
rule = "uncovered"
process = "server"
reason = " OPS-7 "
"""


def test_a_rule_that_is_off_is_shown_as_such() -> None:
    """Its findings are kept apart with the reason; so are accepted ones; others stay."""
    report = judged(MORTAL, config=parse_config(WHOLE, "x"))
    assert [finding.rule for finding in report.findings] == ["dirty-limits"]
    assert {(entry.finding.rule, entry.reason) for entry in report.suppressed} == {
        ("oom-killable", "panics anyway"),
        ("uncovered", "OPS-7"),
    }
    assert report.looked.off == (("oom-killable", "panics anyway"),)
    assert "oom-killable" not in report.looked.rules


@pytest.mark.parametrize(
    ("narrowing", "fits"),
    [
        ('process = "server"', True),
        ('process = "other"', False),
        ('host = "host"', True),
        ('host = "host2"', False),
        ('process = "server"\nhost = "host"', True),
        ('device = "/dev/nbd0"', False),
    ],
)
def test_an_accepted_finding_is_the_one_that_is_meant(narrowing: str, fits: bool) -> None:
    """All that is given has to fit."""
    text = f'[[suppress]]\nrule = "uncovered"\nreason = "known"\n{narrowing}\n'
    assert ("uncovered" not in found(MORTAL, config=parse_config(text, "x"))) is fits


def test_thresholds_are_used() -> None:
    """The number in the file is the one that the rule compares with."""
    assert "oom-killable" not in found(
        MORTAL, config=parse_config("[rules.oom-killable]\noom_score_adj=0", "x")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("[rule.uncovered]", "unknown key rule"),
        ("[rules.uncoverd]", "no rule 'uncoverd'"),
        ('[rules."\\u001b[31m"]', r"no rule '\\x1b"),
        ("rules = 3", "rules: expected a table, found 3"),
        ("[rules]\nuncovered = 3", "rules.uncovered: expected a table"),
        ("[rules.uncovered]\noff = true", "rules.uncovered.off: expected a reason, found true"),
        ('[rules.uncovered]\noff = "  "', "expected a reason"),
        ("[rules.uncovered]\nrequest_kib = 3", "unknown key rules.uncovered.request_kib"),
        ("[rules.oom-killable]\noom_score_adj = -1001", "expected a whole number from -1000 to 1000"),
        ("[rules.oom-killable]\noom_score_adj = true", "expected a whole number"),
        ("suppress = {}", "suppress: expected tables"),
        ("suppress = [1]", "suppress 1: expected a table"),
        ('[[suppress]]\nreason = "x"', "suppress 1: the key rule is missing: expected the name of a rule"),
        (
            '[[suppress]]\nrule = "uncovered"\nprocess = "x"',
            "suppress 1: the key reason is missing",
        ),
        ('[[suppress]]\nrule = "uncovered"\nreason = "x"', "names neither a process, a device nor a host"),
        ('[[suppress]]\nrule = "x"\nreason = "x"\nhost = "y"', "no rule 'x'"),
        ('[[suppress]]\nrule = "uncovered"\nreason = "x"\nhost = 3', "host: expected a string"),
        ('[[suppress]]\nrule = "uncovered"\nreason = "x"\nhots = "y"', "suppress 1: unknown key hots"),
    ],
)
def test_what_it_may_not_say(text: str, said: str) -> None:
    """Each mistake is named, and no rule is lost by a slip of the pen."""
    with pytest.raises(AuditError, match=said):
        parse_config(text, "audit.toml")


def test_the_nearest_name_is_offered() -> None:
    """Whoever mistypes learns what was meant."""
    with pytest.raises(AuditError) as error:
        parse_config("[rules.uncoverd]", "x")
    assert error.value.hint == "did you mean uncovered?"


def test_files(tmp_path: Path) -> None:
    """Read from a file; one that is missing, no text or too long is told."""
    path = tmp_path / "audit.toml"
    path.write_text(WHOLE)
    assert read_config(path) == parse_config(WHOLE, str(path))
    assert read_config(None) == Config()
    for data, said in ((b"\xff", "not UTF-8"), (b"#" * (1 << 20 | 1), "longer than")):
        path.write_bytes(data)
        with pytest.raises(AuditError, match=said):
            read_config(path)
    with pytest.raises(AuditError, match="cannot read"):
        read_config(tmp_path / "none.toml")


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own before the system's; nothing is fine too."""
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "etc.toml")
    own = tmp_path / ".config" / "ioflusher" / "audit.toml"
    assert default_path({"HOME": str(tmp_path)}) is None
    (tmp_path / "etc.toml").touch()
    assert default_path({"HOME": str(tmp_path)}) == tmp_path / "etc.toml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert default_path({"HOME": str(tmp_path)}) == own
    assert default_path({"XDG_CONFIG_HOME": str(own.parent.parent)}) == own
    assert default_path({}) == tmp_path / "etc.toml"


def test_a_home_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user's after sudo: the system's file counts, and there is no traceback."""

    def denied(path: object, *arguments: object, **options: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setattr(os, "stat", denied)
    assert default_path({"HOME": str(tmp_path)}) is None


def test_the_default_changes_nothing() -> None:
    """Without a file all rules are asked."""
    assert len(judged(WELL).looked.rules) == len(RULES)
