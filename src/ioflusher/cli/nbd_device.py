"""`ioflusher nbd attach`, `detach`, `reconnect`, `list`, `status`: the kernel's NBD client."""

import signal
import sys
from dataclasses import asdict

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.size_parameter import size
from ioflusher.support.sizes import format_size
from ioflusher.support.text import columns

_HEAD = ("DEVICE", "SIZE", "BLOCK", "QUEUES", "READS", "WRITES", "BY", "BACKEND")

STANDBY_TIMEOUT = 10  # seconds
STANDBY_DEAD_CONNECTION = 120  # seconds, as long as `remote` waits

seconds = click.IntRange(min=0)


@click.command("attach")
@click.argument("device")
@click.argument("uri")
@click.option(
    "--netlink/--ioctl",
    default=None,
    help="Set up over generic netlink and return; or by ioctl, stay, and hold the device (default, unless "
    "another option needs netlink).",
)
@click.option(
    "--block-size", type=size, metavar="SIZE", default="4096", show_default=True, help="Logical block size."
)
@click.option(
    "--timeout",
    type=seconds,
    metavar="SECONDS",
    help="How long the kernel waits for an answer; 0: for ever (default; with --standby 10).",
)
@click.option("--connections", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--readonly", is_flag=True, help="Have the kernel refuse writes to the device.")
@click.option(
    "--dead-connection-timeout",
    type=seconds,
    metavar="SECONDS",
    help="How long requests wait for `reconnect` once no connection is left (netlink); 0: not (default; "
    "with --standby 120).",
)
@click.option(
    "--backend", metavar="NAME", help="A name that a reconnect must give, too (netlink, kernel 5.14)."
)
@click.option(
    "--disconnect-on-close", is_flag=True, help="Detach when the last user closes the device (netlink)."
)
@click.option(
    "--destroy-on-disconnect", is_flag=True, help="Remove the device when it is detached (netlink)."
)
@click.option(
    "--standby",
    metavar="URI",
    help="Another server of the same store, which takes over when the first one stops answering (netlink). "
    "This process stands by until then; needs --fence or --no-fence.",
)
@click.option(
    "--fence",
    type=click.IntRange(min=2),
    multiple=True,
    metavar="PID",
    help="With --standby: the first server's process, killed before the standby takes over.",
)
@click.option("--no-fence", is_flag=True, help="With --standby: something else keeps two from writing.")
def attach_command(
    device: str,
    uri: str,
    netlink: bool | None,
    block_size: int,
    timeout: int | None,
    connections: int,
    readonly: bool,
    dead_connection_timeout: int | None,
    backend: str | None,
    disconnect_on_close: bool,
    destroy_on_disconnect: bool,
    standby: str | None,
    fence: tuple[int, ...],
    no_fence: bool,
) -> None:
    """Connect the kernel's NBD client: make DEVICE (/dev/nbd0) out of the export at URI.

    With --ioctl this process stays in the foreground until the device is detached, by SIGTERM or SIGINT or
    by `ioflusher nbd detach`. With --standby it stays, too, and its end leaves the device as it is.
    """
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.kernel_client import attachment
    from ioflusher.nbd.kernel_client.options import ClientOptions

    if standby is None:
        if fence or no_fence:
            raise click.UsageError("--fence and --no-fence go with --standby")
    elif bool(fence) is no_fence:
        raise click.UsageError("--standby needs one of --fence PID and --no-fence: may two servers write?")
    elif timeout == 0 or dead_connection_timeout == 0:
        raise click.UsageError("--standby needs time-outs above 0: nothing else finds a server that hangs")
    options = ClientOptions(
        block_size=block_size,
        timeout=_given(timeout, STANDBY_TIMEOUT if standby else 0),
        connections=connections,
        read_only=readonly,
        dead_connection_timeout=_given(dead_connection_timeout, STANDBY_DEAD_CONNECTION if standby else 0),
        backend=backend,
        disconnect_on_close=disconnect_on_close,
        destroy_on_disconnect=destroy_on_disconnect,
    )
    if netlink is False and options.need_netlink:
        raise click.UsageError(
            "--dead-connection-timeout, --backend, --disconnect-on-close, --destroy-on-disconnect and "
            "--standby need --netlink"
        )
    address = parse_uri(uri)
    if standby is not None:
        from ioflusher.cli.nbd_standby import stand_by

        sys.exit(stand_by(device, address, options, parse_uri(standby), fence))
    if netlink or options.need_netlink:
        from ioflusher.nbd.kernel_client.netlink import attach as attach_over_netlink

        attach_over_netlink(device, address, options)
        click.echo(f"attached {device}")
        return
    attached = attachment.attach(device, address, options)
    with attached:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit())  # leaves the wait, and `with` detaches
        click.echo(f"attached {device}")
        attached.wait()


@click.command("detach")
@click.argument("device")
def detach_command(device: str) -> None:
    """Disconnect DEVICE, however and by whomever it was attached."""
    from ioflusher.nbd.kernel_client import attachment

    attachment.detach(device)


@click.command("reconnect")
@click.argument("device")
@click.argument("uri")
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many; as many as the device has queues, unless given.",
)
@click.option("--timeout", type=seconds, metavar="SECONDS", help="The device's time-out from now on.")
@click.option("--dead-connection-timeout", type=seconds, metavar="SECONDS", help="That time-out from now on.")
@click.option("--backend", metavar="NAME", help="The name with which the device was attached.")
def reconnect_command(
    device: str,
    uri: str,
    connections: int | None,
    timeout: int | None,
    dead_connection_timeout: int | None,
    backend: str | None,
) -> None:
    """Give DEVICE, attached over netlink, connections to the server at URI in place of dead ones.

    Requests that waited go on. Ends with status 1 when no connection was dead, so that none was taken.
    """
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.kernel_client import connections as ends
    from ioflusher.nbd.kernel_client.reconnect import reconnect as hand_over

    done = hand_over(
        device,
        parse_uri(uri),
        connections=connections,
        timeout=timeout,
        dead_connection_timeout=dead_connection_timeout,
        backend=backend,
    )
    ends.close(done.sockets)
    if done.taken == 0:
        click.echo(f"{device}: no connection is dead, none was taken; end its server first", err=True)
        sys.exit(ExitStatus.FOUND)
    taken = "unknown (without a time-out of requests the kernel does not show it)"
    click.echo(
        f"reconnected {device}; connections taken: {taken if done.taken is None else done.taken} "
        f"of {done.offered} offered"
    )


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Devices that are not attached, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def list_command(everything: bool, as_json: bool) -> None:
    """List the kernel's NBD devices that are attached."""
    from ioflusher.nbd.kernel_client.status import all_devices

    found = [device for device in all_devices() if everything or device.attached]
    if as_json:
        import json

        click.echo(json.dumps([asdict(device) for device in found]))
        return
    rows = [
        (
            device.device,
            format_size(device.size) if device.attached and device.size is not None else "-",
            *map(_shown, (device.block_size, device.queues, device.reads, device.writes)),
            _by(device.attached_by, device.alive) if device.attached else "not attached",
            device.backend or "-",
        )
        for device in found
    ]
    if rows:
        click.echo("\n".join(columns(_HEAD, rows)))


@click.command("status")
@click.argument("device")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status_command(device: str, as_json: bool) -> None:
    """Say what the kernel tells of DEVICE.

    Ends with status 1 when it is not attached.
    """
    from ioflusher.nbd.kernel_client.status import device_status

    found = device_status(device)
    if as_json:
        import json

        click.echo(json.dumps(asdict(found)))
    else:
        for key, value in asdict(found).items():
            click.echo(f"{key.replace('_', ' ')}: {_shown(value)}")
    if not found.attached:
        sys.exit(ExitStatus.FOUND)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _shown(value: object) -> str:
    if value is None:
        return "unknown"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _by(pid: int | None, alive: bool | None) -> str:
    """The process that attached a device."""
    return f"{_shown(pid)}{'' if alive else ' (gone)'}"
