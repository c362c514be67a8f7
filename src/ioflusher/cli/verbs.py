"""The verbs of the program. Each is imported when it is called: `ioflusher run` does not wait for the lab.

Listing them and completing their names imports none; a test holds the descriptions equal to the verbs' own.
"""

import importlib
from functools import cache
from typing import NamedTuple

import click

from ioflusher.cli.preferences import with_preferences


class Verb(NamedTuple):
    """Where a verb is: a module below ioflusher.cli, its attribute; and the first line of its help.

    A module has the name of its verb, map_ and set_ with the mark for names that Python itself has.
    """

    module: str
    attribute: str
    description: str


VERBS = {
    "audit": Verb("audit", "audit", "Find storage daemons that can wait for themselves."),
    "completion": Verb("completion", "completion", "Print the completion script of a shell."),
    "container": Verb("container", "container", "Print what a container needs for the IO_FLUSHER state."),
    "diagnose": Verb("diagnose", "diagnose", "Explain a frozen machine from its kernel log."),
    "export": Verb("export", "export", "Export what storage daemons wait for to Prometheus."),
    "guard": Verb("guard", "guard", "Watch for freezes and end them."),
    "lab": Verb("lab", "lab", "Boot real kernels in virtual machines."),
    "map": Verb("map_", "map_", "Show what waits for what, and where that is a circle."),
    "model": Verb("model", "model", "Play the mechanism in a model, without a kernel."),
    "nbd": Verb("nbd", "nbd", "Serve a network block device, or attach one."),
    "rescue": Verb("rescue", "rescue", "End a freeze."),
    "run": Verb("run", "run", "Run a command in the IO_FLUSHER state."),
    "set": Verb("set_", "set_state", "Put running processes into the IO_FLUSHER state."),
    "snapshot": Verb("snapshot", "snapshot", "Record this machine, to be judged elsewhere."),
    "status": Verb("status", "status", "Show which threads carry the IO_FLUSHER state."),
    "unit": Verb("unit", "unit", "Have a systemd service start in the IO_FLUSHER state."),
    "unset": Verb("set_", "unset_state", "Take running processes out of the IO_FLUSHER state."),
    "watch": Verb(
        "watch",
        "watch",
        "Show live what storage daemons wait for, and warn.",
    ),
}


@cache
def load(name: str) -> click.Command:
    """The verb of this name, with the options that all verbs take.

    Raises:
        KeyError: there is none.
    """
    verb = VERBS[name]
    command: click.Command = getattr(importlib.import_module(f"ioflusher.cli.{verb.module}"), verb.attribute)
    return with_preferences(command)


class VerbGroup(click.Group):
    """A click group of the verbs, which imports none that is not called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name].description) for name in self.list_commands(ctx)])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=VERBS[name].description)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]
