"""The table of rules as a page of the documentation has it; a test holds docs/audit.md to it."""

from collections.abc import Iterable

from ioflusher.audit.rules.rule import AuditRule
from ioflusher.audit.thresholds import RANGES, Thresholds


def rules_markdown(rules: Iterable[AuditRule]) -> str:
    """One section for each rule."""
    return "\n".join(_section(rule) for rule in rules)


def _section(rule: AuditRule) -> str:
    thresholds = "".join(
        f"\n`{name}` (default {getattr(Thresholds(), name)}): {RANGES[name][2]}.\n"
        for name in rule.thresholds
    )
    return (
        f"### {rule.name}\n\n"
        f"{rule.severity.value.capitalize()}: {rule.title}.\n\n"
        f"{rule.reason}\n\n"
        f"{rule.details}\n\n"
        f"Remedy: {rule.remedy}\n"
        f"{thresholds}"
    )
