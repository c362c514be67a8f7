"""`ioflusher nbd`: an NBD server that keeps forward progress, and the kernel's client."""

import signal
import sys

import click

from ioflusher.cli.nbd_info import info_command
from ioflusher.cli.nbd_serve import serve_command
from ioflusher.cli.size_parameter import size


@click.group()
def nbd() -> None:
    """Serve a network block device, or attach one.

    Attaching connects the kernel's client to a server.
    """


@nbd.command()
@click.argument("device")
@click.argument("uri")
@click.option(
    "--netlink/--ioctl",
    default=False,
    help="Set up over generic netlink and return; or by ioctl, stay, and hold the device (default).",
)
@click.option(
    "--block-size", type=size, metavar="SIZE", default="4096", show_default=True, help="Logical block size."
)
@click.option(
    "--timeout",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    default=0,
    help="How long the kernel waits for an answer; 0: for ever (default).",
)
@click.option("--connections", type=click.IntRange(min=1), default=1, show_default=True)
def attach(device: str, uri: str, netlink: bool, block_size: int, timeout: int, connections: int) -> None:
    """Connect the kernel's NBD client: make DEVICE (/dev/nbd0) out of the export at URI.

    With --ioctl this process stays in the foreground until the device is detached, by SIGTERM or SIGINT or
    by `ioflusher nbd detach`.
    """
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.kernel_client import attachment

    address = parse_uri(uri)
    if netlink:
        from ioflusher.nbd.kernel_client.netlink import attach as attach_over_netlink

        attach_over_netlink(device, address, block_size=block_size, timeout=timeout, connections=connections)
        click.echo(f"attached {device}")
        return
    attached = attachment.attach(
        device, address, block_size=block_size, timeout=timeout, connections=connections
    )
    with attached:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit())  # leaves the wait, and `with` detaches
        click.echo(f"attached {device}")
        attached.wait()


@nbd.command()
@click.argument("device")
def detach(device: str) -> None:
    """Disconnect DEVICE, however it was attached."""
    from ioflusher.nbd.kernel_client import attachment

    attachment.detach(device)


for command in (serve_command, info_command):
    nbd.add_command(command)
