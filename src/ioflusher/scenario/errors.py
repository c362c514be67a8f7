"""What can be wrong with a scenario."""

from ioflusher.errors import IoflusherError


class ScenarioError(IoflusherError):
    """A scenario file does not say what a scenario must say."""
