"""Names of threads, which hold any bytes, as text."""

from ioflusher.report import plain


def text(comm: bytes) -> str:
    """A thread's name as text, for JSON; bytes that are no UTF-8 become \\xNN."""
    return comm.decode("utf-8", "backslashreplace")


def printable(comm: bytes) -> str:
    """A thread's name for a terminal: nothing in it can move the cursor or change colours."""
    return plain.printable(text(comm))
