"""What the verbs of `ioflusher lab` share: options, and how progress is shown."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ioflusher.lab.session import Progress


@contextmanager
def progress_line(*, quiet: bool = False) -> Iterator["Progress"]:
    """What is going on: on a terminal a line that changes, elsewhere a line on standard error a step.

    The part of a text behind " | " changes all the time and is for terminals alone.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(Text(text.replace(" | ", ", ")))
        return
    shown: set[str] = set()

    def line(text: str) -> None:
        step = text.partition(" | ")[0]
        if step not in shown and not quiet:
            shown.add(step)
            click.echo(f"{step} ...", err=True)

    yield line


def here() -> tuple[Path, ...]:
    """The current directory, which guests see too, unless it is too much to walk: / or the home directory."""
    cwd = Path.cwd()
    return () if cwd in (Path("/"), Path.home()) else (cwd,)


kernel_option = click.option(
    "--kernel",
    metavar="K",
    help="A bzImage, or a release such as 6.1; default: the distribution's cloud kernel 6.12.",
)
accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["kvm", "tcg"]),
    help="How QEMU runs the guest; default: KVM where a probe boot works, else emulation.",
)
