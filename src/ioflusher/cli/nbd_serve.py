"""`ioflusher nbd serve`: an NBD server that keeps forward progress."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher import harden
from ioflusher.cli.hardening_options import hardening
from ioflusher.cli.host_port import host_port
from ioflusher.cli.size_parameter import size
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.nbd.address import Address
    from ioflusher.nbd.server import Server
    from ioflusher.nbd.tls import ServerTls

# A connection's thread needs little of the 8 MiB that it gets by default, and locked memory has all of it.
THREAD_STACK = 1 << 20  # bytes
STANDARD_ERROR = 2  # file descriptor


@dataclass(frozen=True, slots=True)
class Offer:
    """An export on the command line: its name, and its back end as `nbd.backends.specification` reads it."""

    name: str
    backend: str


def _name_and_rest(text: str, form: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} has no name; expected {form}")
    return name, rest


def export(text: str) -> Offer:
    """An export as NAME=KIND[,OPTION...]:VALUE; the name may be empty."""
    return Offer(*_name_and_rest(text, "NAME=KIND:VALUE, such as disk=file:/var/lib/disk.img"))


@click.command("serve")
@click.argument("exports", metavar="[NAME=KIND:VALUE]...", nargs=-1, type=export)
@click.option("--memory", type=size, metavar="SIZE", help="Serve memory of this size.")
@click.option("--file", "path", type=click.Path(dir_okay=False), help="Serve a file or a block device.")
@click.option("--remote", metavar="URI", help="Forward every request to another NBD server.")
@click.option(
    "--backend",
    "described",
    metavar="KIND:VALUE|MODULE:CLASS",
    help="Serve any back end, one of your own among them.",
)
@click.option(
    "--python", type=click.Path(dir_okay=False), metavar="FILE", help="Serve the back end that FILE defines."
)
@click.option("--direct", is_flag=True, help="With --file: bypass the page cache (O_DIRECT).")
@click.option("--readonly", is_flag=True, help="With --file: open for reading only.")
@click.option("--unix", metavar="PATH", help="Listen on this Unix socket.")
@click.option(
    "--tcp", type=host_port, metavar="HOST:PORT", help="Listen on this TCP address; port 0: any that is free."
)
@click.option("--stdio", is_flag=True, help="Serve the client on standard input (inetd).")
@click.option("--export", default="", metavar="NAME", help="The name of the single export.")
@click.option(
    "--describe",
    "descriptions",
    multiple=True,
    metavar="NAME=TEXT",
    help="A sentence about an export, for people.",
)
@click.option(
    "--tls-certificates", metavar="DIR", help="Encrypt with the certificates in this directory, as QEMU's."
)
@click.option(
    "--tls-psk", metavar="FILE", help="Encrypt with the pre-shared keys in this file (Python 3.13)."
)
@click.option(
    "--tls-verify-peer",
    is_flag=True,
    help="Serve only clients with a certificate of that authority.",
)
@click.option("--tls-optional", is_flag=True, help="Serve clients that do not encrypt, too.")
@click.option(
    "--max-connections", type=click.IntRange(min=1), default=16, show_default=True, help="How many at once."
)
@click.option(
    "--handshake-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    metavar="SECONDS",
    show_default=True,
    help="How long a client may take until it has an export.",
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0.001),
    metavar="SECONDS",
    help="Cut clients off that send nothing for so long.",
)
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    help="Log connections to standard error.",
)
@click.option("--metrics", type=host_port, metavar="HOST:PORT", help="Serve Prometheus metrics here.")
@click.option("--pidfile", metavar="FILE", help="Write the process number here when ready.")
@click.option(
    "--max-payload",
    type=size,
    metavar="SIZE",
    default="32M",
    show_default=True,
    help="Longest READ or WRITE; a connection takes up to that much memory.",
)
@click.option(
    "--extended-headers",
    is_flag=True,
    help="Grant clients lengths of 64 bits (experimental in the protocol).",
)
@click.option(
    "--resize", is_flag=True, help="Let clients change the size of a file (experimental in the protocol)."
)
@click.option(
    "--io-flusher/--no-io-flusher",
    default=True,
    help="Set the IO_FLUSHER state (default), or clear an inherited one; refuse to start where that fails.",
)
@click.option("--lock-memory", is_flag=True, help="Lock all memory, present and future (mlockall).")
@click.option(
    "--prefault/--no-prefault",
    default=True,
    help="Touch a connection's buffers when it begins (default), or each page when it is needed.",
)
@click.option("--heap", type=size, metavar="SIZE", help="Have so much free memory in the process beforehand.")
@click.option(
    "--reserve",
    type=size,
    metavar="SIZE",
    help="Locked memory to give back to the kernel when everything stalls, and to take again afterwards.",
)
@click.option(
    "--ready-fd", type=int, metavar="N", help="Write the URI here when ready, not to standard output."
)
# what --policy fifo --priority N was called first
@click.option("--realtime", type=click.IntRange(1, 99), metavar="N", hidden=True)
@hardening
def serve_command(
    exports: tuple[Offer, ...],
    memory: int | None,
    path: str | None,
    remote: str | None,
    described: str | None,
    python: str | None,
    direct: bool,
    readonly: bool,
    unix: str | None,
    tcp: tuple[str, int] | None,
    stdio: bool,
    export: str,
    descriptions: tuple[str, ...],
    tls_certificates: str | None,
    tls_psk: str | None,
    tls_verify_peer: bool,
    tls_optional: bool,
    max_connections: int,
    handshake_timeout: float,
    idle_timeout: float | None,
    form: str | None,
    metrics: tuple[str, int] | None,
    pidfile: str | None,
    max_payload: int,
    extended_headers: bool,
    resize: bool,
    io_flusher: bool,
    lock_memory: bool,
    prefault: bool,
    heap: int | None,
    reserve: int | None,
    ready_fd: int | None,
    realtime: int | None,
    settings: harden.Settings,
) -> None:
    """Serve block devices over NBD until SIGTERM or SIGINT.

    One is described by --memory, --file, --remote, --backend or --python; several by NAME=KIND:VALUE
    each, such as disk=file,direct:/var/lib/disk.img or scratch=memory:1G. Clients that name none get
    the first. Prints 'listening on URI' when clients may come.
    """
    single = sum(choice is not None for choice in (memory, path, remote, described, python))
    if single > 1 or bool(single) is bool(exports):
        raise click.UsageError(
            "give one of --memory, --file, --remote, --backend and --python, or exports as NAME=KIND:VALUE"
        )
    if exports and export:
        raise click.UsageError("--export names what --memory, --file, --remote, --backend or --python serves")
    if stdio and (unix is not None or tcp is not None):
        raise click.UsageError("--stdio has its client, and goes with neither --unix nor --tcp")
    if unix is None and tcp is None and not stdio and "LISTEN_FDS" not in os.environ:
        raise click.UsageError("give --unix or --tcp, or both")
    if path is None and (direct or readonly):
        raise click.UsageError("--direct and --readonly go with --file")
    if realtime is not None:
        if settings.policy is not None:
            raise click.UsageError("--realtime N is --policy fifo --priority N: give one of them")
        settings = replace(settings, policy=harden.RealtimePolicy.FIFO, priority=realtime)
    if python is not None:
        described = f"python:{python}"
    offers = exports or (Offer(export, described or _backend_text(memory, path, remote, direct, readonly)),)
    about = dict(_name_and_rest(text, "NAME=TEXT") for text in descriptions)
    unknown = about.keys() - {offer.name for offer in offers}
    if unknown:
        raise click.UsageError(f"--describe names {unknown.pop()!r}, which is no export here")
    tls = _tls(tls_certificates, tls_psk, tls_verify_peer, tls_optional)
    # First of all, before any thread exists: threads inherit the state of the one that starts them.
    put_state(io_flusher)
    from ioflusher.nbd.backends.specification import open_backend
    from ioflusher.nbd.server import Server
    from ioflusher.nbd.server.systemd import Notifier, inherited_listeners

    settings.apply()
    threading.stack_size(THREAD_STACK)
    if heap is not None:
        harden.prefault_heap(heap)  # before any thread exists, too: each would have a heap of its own
    with contextlib.ExitStack() as stack:
        stack.enter_context(_logging(form))
        notifier = stack.enter_context(contextlib.closing(Notifier()))
        served = [(offer, stack.enter_context(open_backend(offer.backend))) for offer in offers]
        if lock_memory:
            harden.lock_memory(prefault=prefault)
        if reserve is not None:
            stack.enter_context(contextlib.closing(_keep_reserve(reserve)))
        (first, backend), *further = served
        text = about.get(first.name, "")
        server = stack.enter_context(
            Server(
                backend,
                export=first.name,
                description=text,
                max_payload=max_payload,
                max_connections=max_connections,
                tls=tls,
                handshake_timeout=handshake_timeout,
                idle_timeout=idle_timeout,
                extended_headers=extended_headers,
                resize=resize,
                prefault=prefault,
            )
        )
        for offer, backend in further:
            server.add_export(offer.name, backend, description=about.get(offer.name, ""))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        signal.signal(signal.SIGUSR1, lambda *_: server.ask_statistics())
        listeners = inherited_listeners()
        if stdio:
            server.serve_connected(_standard_input())
        for listener in listeners:
            server.listen_on(listener)
        addresses = []
        if unix is not None:
            addresses.append(server.listen_unix(unix))
        if tcp is not None:
            addresses.append(server.listen_tcp(*tcp))
        if not addresses and not listeners and not stdio:
            raise IoflusherError("LISTEN_FDS is set and is not for this process", hint="give --unix or --tcp")
        if metrics is not None:
            stack.callback(_serve_metrics(server, *metrics))
        if pidfile is not None:
            stack.enter_context(_pidfile(pidfile))
        _say_ready(addresses, ready_fd)  # whoever gave us listeners knows their addresses
        notifier.tell("READY=1")
        server.serve_forever(sign_of_life=lambda: notifier.tell("WATCHDOG=1"), interval=notifier.interval)
        notifier.tell("STOPPING=1")


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


def _tls(certificates: str | None, psk: str | None, verify_peer: bool, optional: bool) -> "ServerTls | None":
    if certificates is None and psk is None:
        if verify_peer or optional:
            raise click.UsageError(
                "--tls-verify-peer and --tls-optional go with --tls-certificates or --tls-psk"
            )
        return None
    if psk is not None and (certificates is not None or verify_peer):
        raise click.UsageError("--tls-psk is instead of certificates: both ends are who has the key")
    from ioflusher.nbd.tls import ServerTls

    return ServerTls(certificates, psk, verify=verify_peer, required=not optional)


def _backend_text(
    memory: int | None, path: str | None, remote: str | None, direct: bool, readonly: bool
) -> str:
    """What `nbd.backends.specification` makes a back end of."""
    if memory is not None:
        return f"memory:{memory}"
    if path is not None:
        return f"file{',direct' * direct}{',readonly' * readonly}:{path}"
    return f"remote:{remote}"


def _standard_input() -> socket.socket:
    """The client's connection, on which both directions go."""
    try:
        return socket.socket(fileno=os.dup(0))
    except OSError as error:
        raise IoflusherError(f"standard input is no socket: {error.strerror}", errno=error.errno) from error


@contextlib.contextmanager
def _logging(form: str | None) -> Iterator[None]:
    """Warnings, asked-for statistics, and with `form` all events, to standard error."""
    import logging

    from ioflusher.nbd.server.log import BackgroundHandler, JsonForm, TextForm

    logger = logging.getLogger("ioflusher.nbd")
    handler = BackgroundHandler(STANDARD_ERROR)
    handler.setFormatter(JsonForm() if form == "json" else TextForm())
    logger.setLevel(logging.WARNING if form is None else logging.INFO)
    logging.getLogger("ioflusher.nbd.server.server.statistics").setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        handler.close()


def _keep_reserve(size: int) -> harden.ReserveKeeper:
    """The reserve; what becomes of it is logged whether or not --log is there."""
    import logging

    from ioflusher.nbd.server.log import event

    logger = logging.getLogger("ioflusher.nbd.server.reserve")
    return harden.ReserveKeeper(size, lambda what, **facts: event(logger, logging.WARNING, what, **facts))


def _serve_metrics(server: "Server", host: str, port: int) -> Callable[[], None]:
    from ioflusher.nbd.server.metrics import serve_metrics

    return serve_metrics(server.statistics, host, port)[1]


@contextlib.contextmanager
def _pidfile(path: str) -> Iterator[None]:
    """A file with our process number for as long as we serve."""
    own = f"{os.getpid()}\n"
    try:
        Path(path).write_text(own)
    except OSError as error:
        raise IoflusherError(f"cannot write {path!r}: {error.strerror}", errno=error.errno) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if Path(path).read_text() == own:  # not that of a server that has taken our place
                os.unlink(path)


def _say_ready(addresses: list["Address"], ready_fd: int | None) -> None:
    """Tell who started us that clients may come."""
    if ready_fd is None:
        for address in addresses:
            click.echo(f"listening on {address.uri}")
        return
    try:
        os.write(ready_fd, "".join(f"{address.uri}\n" for address in addresses).encode())
        os.close(ready_fd)
    except OSError as error:
        raise IoflusherError(
            f"cannot write to file descriptor {ready_fd} of --ready-fd: {error.strerror}", errno=error.errno
        ) from error
