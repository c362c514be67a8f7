"""Regular expressions that are compiled when a line first asks for them: one log needs few of them all."""

import re


class LazyPattern:
    """An expression over text; to compile all of them takes longer than to read most logs.

    Args:
        expression: as `re.compile` takes it.
    """

    __slots__ = ("_compiled", "_expression")

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._compiled: re.Pattern[str] | None = None

    def compiled(self) -> re.Pattern[str]:
        """The expression, compiled."""
        if self._compiled is None:
            self._compiled = re.compile(self._expression)
        return self._compiled

    def search(self, text: str) -> re.Match[str] | None:
        """As `re.Pattern.search`."""
        return (self._compiled or self.compiled()).search(text)

    def match(self, text: str) -> re.Match[str] | None:
        """As `re.Pattern.match`."""
        return (self._compiled or self.compiled()).match(text)
