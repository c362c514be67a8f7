"""What ending a freeze raises."""

from ioflusher.errors import IoflusherError


class RescueError(IoflusherError):
    """Something that is needed to end a freeze cannot be had, or an action failed."""
