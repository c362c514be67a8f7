"""What the verbs of `ioflusher lab` share: options, and how progress is shown."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ioflusher.cli.preferences import preferences

if TYPE_CHECKING:
    from rich.status import Status


class ProgressLine:
    """Says what is going on; call it with a text.

    On a terminal it is a line that changes, elsewhere each step is a line on standard error. The part of a
    text behind " | " changes all the time and is for terminals alone.
    """

    def __init__(self, status: "Status | None", *, quiet: bool = False) -> None:
        self._status = status
        self._quiet = quiet
        self._shown: set[str] = set()

    def __call__(self, text: str, *, beside: str = "") -> None:
        """Say what is going on; a terminal also sees, on a line of its own, what goes on beside it."""
        if self._status is not None:
            from rich.text import Text

            lines = [line.replace(" | ", ", ") for line in (text, beside) if line]
            self._status.update(Text("\n".join(lines)))
            return
        step = text.partition(" | ")[0]
        if step not in self._shown and not self._quiet:
            self._shown.add(step)
            click.echo(f"{step} ...", err=True)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """While the block prints: with the line on the terminal, rich sends standard output there, too."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


@contextmanager
def progress_line(*, quiet: bool = False) -> Iterator[ProgressLine]:
    """What is going on, until the end of the block. `quiet`: only on a terminal; --quiet: nowhere."""
    if preferences().quiet or not sys.stderr.isatty():
        yield ProgressLine(None, quiet=quiet or preferences().quiet)
        return
    from ioflusher.cli.console import error_console

    with error_console().status("") as status:
        yield ProgressLine(status)


def current_directory_shares() -> tuple[Path, ...]:
    """The current directory, which guests see too, unless it is too much to walk: / or the home directory."""
    cwd = Path.cwd()
    return () if cwd in (Path("/"), Path.home()) else (cwd,)


kernel_option = click.option(
    "--kernel",
    metavar="K",
    help="A bzImage, or a release such as 6.1; default: the distribution's cloud kernel 6.12.",
)
since_option = click.option(
    "--since",
    metavar="TIME",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="What was measured before does not count.",
)
accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["kvm", "tcg"]),
    help="How QEMU runs the guest; default: KVM where a probe boot works, else emulation.",
)


def _run_number(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"(\d{1,18})(?:\.(\d{1,18}))?", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"expected a number such as 17, or 17.3 for its third run, found {value!r}")
    return int(found[1]), int(found[2]) if found[2] else None


def _kept_numbers(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The numbers of the kept experiments, each with its scenario; none where the store cannot be read."""
    from ioflusher.lab.store import ExperimentStore, StoreError

    try:
        kept = ExperimentStore().experiments()
    except StoreError:
        return []
    return [
        CompletionItem(str(one.id), help=one.plan.scenario)
        for one in kept
        if str(one.id).startswith(incomplete)
    ]


# a kept run: the parameter `run`, a number and the run's within it, None for all of them
run_argument = click.argument("run", callback=_run_number, shell_complete=_kept_numbers)


def run_name(run: tuple[int, int | None]) -> str:
    """What messages call a kept run: "run 17.3"."""
    number, part = run
    return f"run {number}" if part is None else f"run {number}.{part}"
