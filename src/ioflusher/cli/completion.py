"""`ioflusher completion`: the script that has a shell complete verbs, options and their values."""

import click
from click.shell_completion import ShellComplete, get_completion_class, shell_complete

from ioflusher.cli.main import COMPLETION_VARIABLE, cli

PROGRAM = "ioflusher"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
        bash:  source <(ioflusher completion bash)         in ~/.bashrc
        zsh:   source <(ioflusher completion zsh)          in ~/.zshrc, after compinit
        fish:  ioflusher completion fish | source          in ~/.config/fish/config.fish
    """
    click.echo(script(shell))


def script(shell: str) -> str:
    """The script, as click makes it. It calls the program with COMPLETION_VARIABLE set to get the words."""
    kind = get_completion_class(shell)
    assert kind is not None
    # of the common class: bash's own first runs bash to see that it is 4.4 or later
    return ShellComplete.source(kind(cli, {}, PROGRAM, COMPLETION_VARIABLE))


def complete(instruction: str) -> int:
    """Answer a shell's question, which is in the environment; returns the exit status."""
    return shell_complete(cli, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
