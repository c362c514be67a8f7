"""`ioflusher nbd attach --standby`: the process that stands by."""

import gc
import logging
import signal
import threading
from functools import partial

import click

from ioflusher import harden
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.flag import set_io_flusher
from ioflusher.nbd.address import Address
from ioflusher.nbd.kernel_client import netlink
from ioflusher.nbd.kernel_client.fence import Fence
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.kernel_client.reconnect import SpareConnections
from ioflusher.nbd.kernel_client.standby import Standby, StandbyEnd
from ioflusher.nbd.server.log import BackgroundHandler, TextForm, event

HANDSHAKE_TIMEOUT = 2.0  # seconds: while it waits for the standby it does not look after the first server
THREAD_STACK = 1 << 18  # bytes; all of it is locked
HEAP = 2 << 20  # bytes
STANDARD_ERROR = 2  # file descriptor

_log = logging.getLogger("ioflusher.nbd.standby")


def stand_by(
    device: str, address: Address, options: ClientOptions, standby: Address, pids: tuple[int, ...]
) -> ExitStatus:
    """Attach, and stand by until the standby has taken over (FOUND) or there is no more to do (DONE).

    Raises:
        FlagError, HardenError: this process cannot be made one that goes on while its device does not.
        NbdError: either server cannot be had, or the kernel refuses.
    """
    _harden()
    handler = BackgroundHandler(STANDARD_ERROR)  # whoever reads it may be waiting for the device
    handler.setFormatter(TextForm())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    connect = partial(_spares, device, connections=options.connections, backend=options.backend)
    fence = Fence(pids)
    try:
        _, sockets = netlink.connect(device, address, options)
        try:
            watcher = Standby(device, sockets, standby, connect, fence, partial(event, _log, logging.INFO))
        except BaseException:
            netlink.detach(device)  # nobody has it yet, and it shall not be taken for one that is safe
            raise
        with watcher:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: watcher.stop())
            gc.collect()
            gc.freeze()
            click.echo(f"attached {device}")
            end = watcher.watch()
    finally:
        fence.close()
        _log.removeHandler(handler)
        handler.close()
    return ExitStatus.FOUND if end is StandbyEnd.TAKEN_OVER else ExitStatus.DONE


def _spares(device: str, standby: Address, *, connections: int, backend: str | None) -> SpareConnections:
    return SpareConnections(
        device, standby, connections=connections, backend=backend, handshake_timeout=HANDSHAKE_TIMEOUT
    )


def _harden() -> None:
    """What the process needs in order to act while no memory is to be had; before the device is there."""
    set_io_flusher(True)
    harden.Settings(oom_score_adj=-1000, policy=harden.RealtimePolicy.RR, priority=1).apply()
    threading.stack_size(THREAD_STACK)
    harden.prefault_heap(HEAP)
    harden.lock_memory()
