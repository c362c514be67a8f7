"""The table of rules as a page of the documentation has it; a test holds docs/audit.md to it."""

import textwrap
from collections.abc import Iterable

from ioflusher.audit.limits import RANGES, Limits
from ioflusher.audit.rules.common import Rule

WIDTH = 116


def rules_markdown(rules: Iterable[Rule]) -> str:
    """One section for each rule."""
    return "\n".join(_section(rule) for rule in rules)


def _section(rule: Rule) -> str:
    paragraphs = (
        f"{rule.severity.value.capitalize()}: {rule.title}.",
        rule.reason,
        rule.details,
        f"Remedy: {rule.remedy}",
        *(f"`{name}` (default {getattr(Limits(), name)}): {RANGES[name][2]}." for name in rule.thresholds),
    )
    wrapped = (
        textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
        for paragraph in paragraphs
    )
    return "\n\n".join((f"### {rule.name}", *wrapped)) + "\n"
