"""What can go wrong in the lab before there is an outcome to speak of."""

from ioflusher.errors import IoflusherError


class LabError(IoflusherError):
    """The lab could not do its work; the hint says what to install or change."""


class MachineLost(LabError):
    """The virtual machine ended or went silent without saying how its work came out.

    Attributes:
        console: the last lines that its kernel wrote.
    """

    def __init__(self, message: str, *, console: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.console = console


class CommandTimeout(LabError):
    """A command in a guest was still running when its time was up."""


class Cancelled(LabError):
    """A machine was ended because nobody waits for its half any more."""
