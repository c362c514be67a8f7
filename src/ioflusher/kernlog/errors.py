"""What can go wrong with logs."""

from ioflusher.errors import IoflusherError


class LogUnreadableError(IoflusherError):
    """A log could not be opened or read to its end."""
