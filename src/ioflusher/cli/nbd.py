"""`ioflusher nbd`: an NBD server that keeps forward progress, and the kernel's client."""

import contextlib
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ioflusher import harden
from ioflusher.cli.hardening_options import hardening
from ioflusher.cli.size_parameter import size
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.nbd.address import Address
    from ioflusher.nbd.backends import Backend

# A connection's thread needs little of the 8 MiB that it gets by default, and locked memory has all of it.
THREAD_STACK = 1 << 20  # bytes


def host_port(text: str) -> tuple[str, int]:
    """A host and a TCP port, as 127.0.0.1:10809 or [::1]:10809; port 0 lets the system pick one."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise click.BadParameter(f"{text!r} is no address; expected HOST:PORT, such as 127.0.0.1:10809")
    return host.removeprefix("[").removesuffix("]"), int(port)


@click.group()
def nbd() -> None:
    """Serve a network block device, or attach one.

    Attaching connects the kernel's client to a server.
    """


@nbd.command()
@click.option("--memory", type=size, metavar="SIZE", help="Serve memory of this size.")
@click.option("--file", "path", type=click.Path(dir_okay=False), help="Serve a file or a block device.")
@click.option("--remote", metavar="URI", help="Forward every request to another NBD server.")
@click.option("--direct", is_flag=True, help="With --file: bypass the page cache (O_DIRECT).")
@click.option("--readonly", is_flag=True, help="With --file: open for reading only.")
@click.option("--unix", metavar="PATH", help="Listen on this Unix socket.")
@click.option(
    "--tcp", type=host_port, metavar="HOST:PORT", help="Listen on this TCP address; port 0: any that is free."
)
@click.option("--export", default="", metavar="NAME", help="The export's name.")
@click.option(
    "--max-payload",
    type=size,
    metavar="SIZE",
    default="32M",
    show_default=True,
    help="Longest READ or WRITE; every connection takes that much memory.",
)
@click.option(
    "--io-flusher/--no-io-flusher",
    default=True,
    help="Set the IO_FLUSHER state (default), or clear an inherited one; refuse to start where that fails.",
)
@click.option("--lock-memory", is_flag=True, help="Lock all memory, present and future (mlockall).")
@click.option(
    "--ready-fd", type=int, metavar="N", help="Write the URI here when ready, not to standard output."
)
# what --policy fifo --priority N was called first
@click.option("--realtime", type=click.IntRange(1, 99), metavar="N", hidden=True)
@hardening
def serve(
    memory: int | None,
    path: str | None,
    remote: str | None,
    direct: bool,
    readonly: bool,
    unix: str | None,
    tcp: tuple[str, int] | None,
    export: str,
    max_payload: int,
    io_flusher: bool,
    lock_memory: bool,
    ready_fd: int | None,
    realtime: int | None,
    settings: harden.Settings,
) -> None:
    """Serve a block device over NBD until SIGTERM or SIGINT.

    Prints 'listening on URI' when clients may come.
    """
    if sum(choice is not None for choice in (memory, path, remote)) != 1:
        raise click.UsageError("give one of --memory, --file and --remote")
    if (unix is None) == (tcp is None):
        raise click.UsageError("give one of --unix and --tcp")
    if path is None and (direct or readonly):
        raise click.UsageError("--direct and --readonly go with --file")
    if realtime is not None:
        if settings.policy is not None:
            raise click.UsageError("--realtime N is --policy fifo --priority N: give one of them")
        settings = replace(settings, policy=harden.RealtimePolicy.FIFO, priority=realtime)
    # First of all, before any thread exists: threads inherit the state of the one that starts them.
    put_state(io_flusher)
    from ioflusher.nbd.server import Server

    settings.apply()
    threading.stack_size(THREAD_STACK)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(_open_backend(memory, path, remote, direct=direct, readonly=readonly))
        if lock_memory:
            harden.lock_memory()
        server = stack.enter_context(Server(backend, export=export, max_payload=max_payload))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        address = server.listen_unix(unix) if unix is not None else server.listen_tcp(*(tcp or ("", 0)))
        _say_ready(address, ready_fd)
        server.serve_forever()


def put_state(wanted: bool) -> None:
    """Set the state of this thread, or clear one that was inherited; what already is so needs no privilege.

    The call of set_io_flusher() is the one difference between --io-flusher and --no-io-flusher.

    Raises:
        FlagError: where that is refused.
    """
    from ioflusher import flag
    from ioflusher.flag import state
    from ioflusher.kernel.task_flags import PF_IO_FLUSHER

    try:
        carried: int | None = state.own_task_flags() & PF_IO_FLUSHER
    except flag.StateUnreadableError:
        carried = None
    if carried == (PF_IO_FLUSHER if wanted else 0):
        return
    try:
        flag.set_io_flusher(wanted)
    except flag.FlagError as error:
        without, other = ("without the state", "--no-io-flusher") if wanted else ("with it", "--io-flusher")
        hint = f"or serve {without}: {other}"
        error.hint = f"{error.hint}; {hint}" if error.hint else hint
        raise


def _open_backend(
    memory: int | None, path: str | None, remote: str | None, *, direct: bool, readonly: bool
) -> "Backend":
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.backends import FileBackend, MemoryBackend, RemoteBackend

    if memory is not None:
        return MemoryBackend(memory)
    if path is not None:
        return FileBackend(path, readonly=readonly, direct=direct)
    return RemoteBackend(parse_uri(remote or ""))


def _say_ready(address: "Address", ready_fd: int | None) -> None:
    """Tell who started us that clients may come."""
    if ready_fd is None:
        click.echo(f"listening on {address.uri}")
        return
    try:
        os.write(ready_fd, f"{address.uri}\n".encode())
        os.close(ready_fd)
    except OSError as error:
        raise IoflusherError(
            f"cannot write to file descriptor {ready_fd} of --ready-fd: {error.strerror}", errno=error.errno
        ) from error


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


@nbd.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(uri: str, as_json: bool) -> None:
    """Say what the server at URI tells of its export."""
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.client import describe
    from ioflusher.nbd.protocol.wire import TransmissionFlag

    export = describe(parse_uri(uri))
    facts: dict[str, object] = {
        "export": export.name,
        "size": export.size,
        "flags": [flag.name for flag in TransmissionFlag if export.has(flag)],
        "minimum_block_size": export.block_size.minimum,
        "preferred_block_size": export.block_size.preferred,
        "maximum_payload": export.block_size.maximum,
    }
    if as_json:
        import json

        click.echo(json.dumps({"uri": uri, **facts}))
        return
    for key, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{key.replace('_', ' ')}: {shown}")
