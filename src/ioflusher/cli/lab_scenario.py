"""A scenario on the command line: the name of one, a file, or - for standard input."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.lab_options import current_directory_shares
from ioflusher.cli.source import read_standard_input

if TYPE_CHECKING:
    from ioflusher.scenario.records import Scenario


def complete_scenario(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of scenarios, for a shell."""
    from ioflusher.scenario.file import builtin_scenarios

    return [name for name in builtin_scenarios() if name.startswith(incomplete)]


scenario_argument = click.argument("scenario", shell_complete=complete_scenario)


def complete_kind(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The kinds of daemons, for a shell."""
    from ioflusher.scenario.stacks import STACKS

    return [kind for kind in STACKS if kind.startswith(incomplete)]


_DAEMON_OPTIONS = (
    click.option(
        "--daemon", metavar="CMD", help="Another daemon, as in 'nbdkit -f -U {socket} file {file}'."
    ),
    click.option(
        "--kind",
        metavar="KIND",
        shell_complete=complete_kind,
        help="What the daemon of --daemon serves: nbd, ublk, fuse and more; default: as in SCENARIO.",
    ),
    click.option(
        "--setup", metavar="CMD", multiple=True, help="A command that tells the daemon what to serve."
    ),
    click.option(
        "--share",
        type=click.Path(exists=True, path_type=Path),
        multiple=True,
        help="One more directory for guests.",
    ),
)


def daemon_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options --daemon, --kind, --setup and --share, which `with_daemon_options` takes."""
    for option in reversed(_DAEMON_OPTIONS):
        command = option(command)
    return command


def with_daemon_options(
    scenario: "Scenario",
    daemon: str | None,
    kind: str | None,
    setup: tuple[str, ...],
    share: tuple[Path, ...],
) -> "tuple[Scenario, tuple[Path, ...]]":
    """The scenario with the daemon of a command line, if there is one, and the directories for guests.

    Raises:
        click.UsageError: --kind or --setup without --daemon; a command has no words, or an open quotation.
        ScenarioError: they do not go with the kind, or that with the scenario.
    """
    if daemon is None:
        if kind is not None or setup:
            raise click.UsageError("--kind and --setup go with --daemon: what it serves, and how it is told")
        return scenario, share
    from ioflusher.lab.variant import with_daemon

    words = _words(daemon, "--daemon")
    found = with_daemon(scenario, words, kind, setup=[_words(text, "--setup") for text in setup])
    return found, (*share, *current_directory_shares())


def _words(command: str, option: str) -> list[str]:
    """The words of a command, as a shell splits them; its program may be given as from this directory."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.BadParameter(f"{command!r}: {error}", param_hint=option) from error
    if not words:
        raise click.BadParameter("expected a command, found none", param_hint=option)
    if "/" in words[0]:
        words[0] = os.path.abspath(words[0])
    return words


def read_scenario(wanted: str) -> "Scenario":
    """The scenario of that name, in that file, or on standard input for "-".

    Raises:
        ScenarioError: there is none of that name, or its text is none.
    """
    from ioflusher.scenario.file import parse_scenario

    text, origin = read_scenario_text(wanted)
    return parse_scenario(text, origin=origin)


def read_scenario_text(wanted: str) -> tuple[str, str]:
    """The text of a scenario, and what messages call it."""
    from ioflusher.scenario.file import scenario_text
    from ioflusher.support.text import text_of
    from ioflusher.support.toml import LARGEST_BYTES

    if wanted != "-":
        return scenario_text(wanted), wanted
    return text_of(read_standard_input(LARGEST_BYTES)), "standard input"
