"""Listings of directories whose entries are numbers, as /proc, /proc/PID/task and /proc/PID/fd are."""

import os


def numbers_in(directory: str | os.PathLike[str]) -> list[int]:
    """The numbers among the names in a directory, the smallest first.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(int(name) for name in os.listdir(directory) if name.isascii() and name.isdigit())
