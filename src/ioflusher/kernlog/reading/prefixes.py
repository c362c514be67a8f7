"""A prefix that no table knows: learned from the frames behind it, then taken off every other line, too."""

import re

MAX_PREFIX = 100
_TOKEN = re.compile(r"[0-9a-f]{6,16}|\d+|\s+|.", re.S)


class LearnedPrefix:
    """What stands before frames, once two of them had the same: numbers may differ, the rest may not."""

    def __init__(self) -> None:
        self._candidate = ""
        self._form: re.Pattern[str] | None = None

    def learn(self, before: str) -> bool:
        """Take what stood before a frame; whether that is the prefix by now."""
        if len(before) > MAX_PREFIX:
            return False
        form = "".join(map(_generalised, _TOKEN.findall(before)))
        known, self._candidate = form == self._candidate, form
        if known:
            self._form = re.compile(rf"\s*{form}(?=\s|$)")
        return known

    def forget_half(self) -> None:
        """Forget what stood before one frame only: that line will come once more."""
        self._candidate = ""

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return self._form is not None

    def taken_off(self, text: str) -> str | None:
        """The text without the prefix, None where that is not known or does not stand before it."""
        found = self._form.match(text) if self._form else None
        # one blank parts the prefix from the text
        return text[found.end() :].removeprefix(" ") if found else None


def _generalised(token: str) -> str:
    if token.isspace():
        return r"\s+"
    if token.isdigit():
        return r"\d+"
    return "[0-9a-f]+" if len(token) >= 6 else re.escape(token)
