"""The documentation of the rules says what the rules say; each rule keeps to its form."""

from pathlib import Path

import pytest

from ioflusher.audit.rules.rule import AuditRule
from ioflusher.audit.table import RULES
from ioflusher.report.audit_rules import rules_markdown

PAGE = Path(__file__).parent.parent.parent / "docs" / "audit.md"


def test_the_page_is_up_to_date() -> None:
    """docs/audit.md ends with what the table says: run tools/audit-rules after a change."""
    assert PAGE.read_text().endswith(f"-->\n\n{rules_markdown(RULES)}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_reason_has_two_sentences(rule: AuditRule) -> None:
    """As every finding gives it."""
    assert rule.reason.count(". ") == 1
    assert rule.reason.endswith(".")


def test_names_are_unique() -> None:
    """Configuration and reports name rules by them."""
    assert len({rule.name for rule in RULES}) == len(RULES)
