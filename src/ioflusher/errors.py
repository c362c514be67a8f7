"""The exceptions of every room: one tree, so that a caller can catch `IoflusherError` alone.

A message says the thing, what was expected and what was found; `hint` says what to do about it.
"""


class IoflusherError(Exception):
    """Something that ioflusher was asked to do could not be done.

    Attributes:
        errno: the system's error number where one lies behind this, else None.
        hint: one sentence on what the user can do, or None where nothing is known to help.
    """

    def __init__(self, message: str, *, errno: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        self.hint = hint
