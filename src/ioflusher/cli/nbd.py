"""`ioflusher nbd`: an NBD server that keeps forward progress, and the kernel's client."""

import click

from ioflusher.cli.nbd_commit import commit_command
from ioflusher.cli.nbd_device import (
    attach_command,
    detach_command,
    list_command,
    reconnect_command,
    status_command,
)
from ioflusher.cli.nbd_info import info_command
from ioflusher.cli.nbd_serve import serve_command


@click.group()
def nbd() -> None:
    """Serve a network block device, or attach one.

    Attaching connects the kernel's client to a server.
    """


for command in (
    serve_command,
    info_command,
    commit_command,
    attach_command,
    detach_command,
    reconnect_command,
    list_command,
    status_command,
):
    nbd.add_command(command)
