"""What the model has not."""

from ioflusher.errors import IoflusherError


class NotModelledError(IoflusherError):
    """A scenario asks for something that the model does not have."""
