"""Ctrl-C, SIGTERM and SIGHUP for verbs that have something to end: machines, files, other programs."""

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.support.signals import EndingSignals, ending_signals

_CAME = "ioflusher.cli.interruption"


def heed_signals(context: click.Context) -> None:
    """Until the end of the context, SIGTERM and SIGHUP end the work as Ctrl-C does."""
    context.meta[_CAME] = context.with_resource(ending_signals())


def interrupted_status() -> ExitStatus:
    """The status of work that was interrupted: 128 and the signal's number, SIGINT's where it was Ctrl-C."""
    context = click.get_current_context(silent=True)
    came: EndingSignals | None = context.meta.get(_CAME) if context else None
    if came is None or came.number is None:
        return ExitStatus.INTERRUPTED
    return ExitStatus(128 + came.number)
