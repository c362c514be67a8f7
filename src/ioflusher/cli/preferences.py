"""--debug, --quiet and --color: options that every verb takes, before and after its name."""

import os
import sys
from dataclasses import dataclass
from typing import Any, TextIO

import click

COLOR_CHOICES = ("auto", "always", "never")


@dataclass(slots=True)
class Preferences:
    """How the user wants the program to speak.

    Attributes:
        debug: print the commands that are executed, and the traceback of an error.
        quiet: print results and errors, but neither progress nor remarks.
        color: one of COLOR_CHOICES.
    """

    debug: bool = False
    quiet: bool = False
    color: str = "auto"

    def colored(self, stream: TextIO | None) -> bool:
        """Whether to write colours to the stream.

        --color comes first, then NO_COLOR (https://no-color.org), then FORCE_COLOR (https://force-color.org),
        each of which counts if it is not empty; then whether the stream is a terminal that has colours.
        """
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return stream is not None and stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def preferences() -> Preferences:
    """Those of the running command; the defaults outside of one."""
    context = click.get_current_context(silent=True)
    return (context.find_object(Preferences) if context else None) or Preferences()


def with_preferences(command: click.Command) -> click.Command:
    """Has the command, and each below it, take the options."""
    command.params.extend(_options())
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_preferences(below)
    return command


def _options() -> list[click.Parameter]:
    # without a default: an option that is not given after the verb leaves what was given before it
    common: dict[str, Any] = {"expose_value": False, "is_eager": True, "callback": _keep, "default": None}
    return [
        click.Option(
            ["--debug"], is_flag=True, help="Print the commands that are executed, and tracebacks.", **common
        ),
        click.Option(["--quiet", "-q"], is_flag=True, help="Print neither progress nor remarks.", **common),
        click.Option(
            ["--color"],
            type=click.Choice(COLOR_CHOICES),
            help="Use colours; auto: where standard output is a terminal, heeding NO_COLOR and FORCE_COLOR.",
            **common,
        ),
    ]


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name is not None:
        wanted = context.find_root().ensure_object(Preferences)
        setattr(wanted, parameter.name, value)
        if parameter.name == "debug":
            print_commands(wanted)


_hooked: list[Preferences] = []


def print_commands(wanted: Preferences) -> None:
    """Print each command that is executed from now on, as long as these preferences say so.

    The interpreter calls its audit hooks for all of them (PEP 578), also where a library executes one.
    """
    if not _hooked:
        sys.addaudithook(_hook)
    _hooked[:] = [wanted]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("subprocess.Popen", "os.exec", "os.posix_spawn") or not _hooked[0].debug:
        return
    import shlex

    from ioflusher.support.text import printable

    program, words = arguments[:2]
    # execvp tries one directory of PATH after another
    if event == "os.exec" and not os.access(program, os.X_OK):
        return
    command = [words] if isinstance(words, str | bytes) else list(words)
    shown = shlex.join(map(os.fsdecode, command))
    os.write(2, f"+ {printable(shown)}\n".encode("utf-8", "backslashreplace"))
