"""The command that `run` and `lab exec` start, after their own options."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _files(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """A shell completes names of files here: those of programs, and what most arguments are."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


command_argument = click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=_files
)
