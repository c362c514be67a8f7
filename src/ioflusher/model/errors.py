"""What the model cannot answer."""

from ioflusher.errors import IoflusherError


class ModelError(IoflusherError):
    """The model was asked what it cannot answer."""


class NotModelledError(ModelError):
    """A scenario asks for something that the model does not have."""
