"""What can go wrong with snapshots."""

from ioflusher.errors import IoflusherError


class SnapshotError(IoflusherError):
    """A snapshot could not be made, written or read."""
