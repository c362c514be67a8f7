"""`ioflusher unit`: a systemd drop-in that starts a service in the IO_FLUSHER state."""

import os
import sys
import tempfile
from pathlib import Path

import click

from ioflusher.cli.hardening_options import hardening
from ioflusher.harden import HardenError, Settings
from ioflusher.harden.unit import DROP_IN, UNIT_DIRECTORIES, ServiceUnit, drop_in, read_service
from ioflusher.support.programs import ProgramError, call, locate

VERIFY_SECONDS = 60


@click.command()
@click.argument("name", metavar="NAME.service")
@click.option("--install", is_flag=True, help="Write it below /etc/systemd/system; default: print it.")
@click.option("--require/--best-effort", default=True, help="As for `ioflusher run`.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="Another system's root directory.",
)
@hardening
def unit(name: str, install: bool, require: bool, root: Path, settings: Settings) -> None:
    """Have a systemd service start in the IO_FLUSHER state.

    Prints or installs a drop-in that runs the service NAME under `ioflusher run`. The service keeps its
    user. Where that is not root, the drop-in lends it CAP_SYS_RESOURCE until the state is set.
    systemd-analyze, where present, checks the result; --cgroup names a slice here.
    """
    service = read_service(name, root=root)
    text = drop_in(service, program(), settings, require=require)
    complaints = verify(service, text, root)
    for line in complaints:
        click.echo(f"systemd-analyze: {line}", err=True)
    if complaints:
        raise HardenError(
            "systemd does not like the drop-in", hint="see its words above; nothing was installed"
        )
    if not install:
        click.echo(text, nl=False)
        return
    path = root / UNIT_DIRECTORIES[0] / f"{name}.d" / DROP_IN
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise HardenError(f"cannot write {path}: {error.strerror}", errno=error.errno) from error
    click.echo(f"wrote {path}; now: systemctl daemon-reload && systemctl restart {name}")


def program() -> list[str]:
    """How to call this very program, absolute path first, since systemd wants that."""
    called = Path(sys.argv[0])
    if called.name == "ioflusher" and called.is_file() and os.access(called, os.X_OK):
        return [str(called.absolute())]
    return [sys.executable, "-m", "ioflusher"]


def verify(service: ServiceUnit, text: str, root: Path) -> list[str]:
    """What systemd-analyze says of the service with the drop-in that it does not say of it without."""
    analyze = locate("systemd-analyze")
    if analyze is None or root != Path("/"):
        return []
    with tempfile.TemporaryDirectory(prefix="ioflusher-unit-") as directory:
        before = _verify(analyze, service.name, directory)
        path = Path(directory) / f"{service.name}.d" / DROP_IN
        path.parent.mkdir()
        path.write_text(text)
        after = _verify(analyze, service.name, directory)
    return [line for line in after if line not in before]


def _verify(analyze: str, name: str, directory: str) -> list[str]:
    """What `systemd-analyze verify` says with `directory` before the usual ones (the colon keeps them)."""
    try:
        done = call(
            [analyze, "verify", "--man=no", "--recursive-errors=no", name],
            deadline_s=VERIFY_SECONDS,
            extra={"SYSTEMD_UNIT_PATH": f"{directory}:"},
            merged=True,
        )
    except ProgramError as error:
        return [f"could not be run: {error}"]
    lines = [line.replace(directory, "").strip() for line in done.output.splitlines()]
    return [line for line in lines if line] or (["failed"] if done.status else [])
