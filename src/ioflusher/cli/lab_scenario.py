"""A scenario on the command line: the name of one, a file, or - for standard input."""

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
