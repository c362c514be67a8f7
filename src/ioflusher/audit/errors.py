"""What can go wrong with an audit."""

from ioflusher.errors import IoflusherError


class AuditError(IoflusherError):
    """An audit could not be done, or its configuration is not what one may say."""
