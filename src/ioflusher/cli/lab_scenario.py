"""A scenario on the command line: the name of one, a file, or - for standard input."""

import os
import shlex
from typing import TYPE_CHECKING

import click

from ioflusher.cli.source import read_standard_input

if TYPE_CHECKING:
    from ioflusher.lab.scenario import Scenario


def complete_scenario(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of scenarios, for a shell."""
    from ioflusher.lab.scenario_file import builtin_scenarios

    return [name for name in builtin_scenarios() if name.startswith(incomplete)]


scenario_argument = click.argument("scenario", shell_complete=complete_scenario)


def complete_kind(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The kinds of daemons, for a shell."""
    from ioflusher.lab.stacks import STACKS

    return [kind for kind in STACKS if kind.startswith(incomplete)]


def with_other_daemon(
    scenario: "Scenario", command: str, kind: str | None, setup: tuple[str, ...]
) -> "Scenario":
    """The scenario with the daemon of a command line and the commands that tell it what to serve.

    Raises:
        click.BadParameter: a command has no words, or an open quotation.
        ScenarioError: they do not go with the kind, or that with the scenario.
    """
    from ioflusher.lab.variant import with_daemon

    words = _words(command, "--daemon")
    return with_daemon(scenario, words, kind, setup=[_words(text, "--setup") for text in setup])


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
    from ioflusher.lab.scenario_file import find_scenario, parse_scenario
    from ioflusher.support.text import text_of
    from ioflusher.support.toml import LARGEST_BYTES

    if wanted != "-":
        return find_scenario(wanted)
    text = text_of(read_standard_input(LARGEST_BYTES))
    return parse_scenario(text, origin="standard input")
