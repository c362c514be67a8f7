"""Remedies are executed in a guest, or the table says why not; systemd knows each setting."""

import re
import subprocess
from pathlib import Path

import pytest

from ioflusher.audit.table import RULES
from tests.audit.machines import BARE, machine, threads
from tests.audit.remedies import ROWS, Row, unlisted
from tests.needs import need

HERE = Path(__file__).parent


def test_every_rule_is_in_the_table() -> None:
    """A new rule says which test executes its remedy, or why none can."""
    assert {row.rule for row in ROWS} == {rule.name for rule in RULES}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rule}: {row.command}")
def test_a_command_is_executed_or_the_reason_is_given(row: Row) -> None:
    """By a check that the guest's script makes and the test of it holds."""
    if row.test is None:
        assert row.reason, row
        return
    assert row.check, row
    assert row.reason is None, row
    test = (HERE / row.test).read_text()
    assert "executed_in_a_guest" in test, f"{row.test} does not hold its rows of the table"


def test_a_command_that_is_not_in_the_table_is_noticed() -> None:
    """The check that all tests of rules go through."""
    from dataclasses import replace

    from tests.audit.machines import found

    finding = found(machine({"threads": threads(BARE)}))["uncovered"]
    assert unlisted(finding) == []
    strange = replace(finding, remedy=replace(finding.remedy, commands=("reboot", "ioflusher set 7")))
    assert unlisted(strange) == ["reboot"]


def settings() -> list[str]:
    """Every setting for a unit that a rule's source names."""
    found: set[str] = set()
    for path in (HERE.parents[1] / "src/ioflusher/audit/rules").glob("*.py"):
        found |= set(re.findall(r'"([A-Z]\w+=[\w-]+)"', path.read_text()))
    return sorted(found | {"OOMScoreAdjust=-999", "OOMScoreAdjust=-1000"})


def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    """A unit with all of them is verified without a word."""
    need("systemd-analyze")
    lines = settings()
    assert {"LimitMEMLOCK=infinity", "MemorySwapMax=0", "AmbientCapabilities=CAP_SYS_RESOURCE"} <= set(lines)
    unit = tmp_path / "daemon.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n" + "".join(f"{line}\n" for line in lines))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text() + "MemorySwapMost=0\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert "MemorySwapMost" in done.stderr
