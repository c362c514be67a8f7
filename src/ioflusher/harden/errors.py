"""What can go wrong with hardening a process."""

from ioflusher.errors import IoflusherError


class HardenError(IoflusherError):
    """Memory could not be locked, or scheduling or the OOM score not be changed."""


def denied(what: str, needs: str, error: OSError, hint: str) -> HardenError:
    """The error for a refused system call: what was tried, what it needs, and the kernel's error."""
    return HardenError(f"cannot {what}: {error.strerror}; it needs {needs}", errno=error.errno, hint=hint)
