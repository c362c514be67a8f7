"""The exit statuses of the program: one rule for all verbs, as docs/command-line.md tells users."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the program ends with.

    `run` and `lab exec` end with the status of the command that they start, if it starts.
    """

    DONE = 0
    """The work is done, and the verb did not find what it looks for."""
    FOUND = 1
    """The work is done, and the answer is the one to act on: findings, a cycle, a recursion, a thread without
    the state that was asked for, an experiment that did not show the contrast."""
    FAILED = 2
    """Wrong usage, or something named could not be worked on: a missing process, an unreadable file."""
    INTERNAL_ERROR = 70
    """A mistake in this program (EX_SOFTWARE of sysexits.h). It says nothing about the machine."""
    TIMED_OUT = 124
    """The command had more time than --timeout gave it, as timeout(1) has it."""
    NOT_EXECUTABLE = 126
    """The command of `run` is there and cannot be executed, as POSIX shells have it."""
    NOT_FOUND = 127
    """There is no such command for `run`."""
    HUNG_UP = 129
    """`lab` verbs: SIGHUP, after all that they had started was ended (128 and the signal's number)."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT)."""
    READER_GONE = 141
    """Whoever read standard output stopped reading (128 + SIGPIPE)."""
    TERMINATED = 143
    """`lab` verbs: SIGTERM, after all that they had started was ended (128 and the signal's number)."""


def verdict(*, found: bool, failed: bool) -> ExitStatus:
    """One status for work on several things: what was found counts more than what could not be looked at."""
    if found:
        return ExitStatus.FOUND
    return ExitStatus.FAILED if failed else ExitStatus.DONE
