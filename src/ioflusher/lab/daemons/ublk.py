"""A ublk server with a file: python -m ioflusher.lab.daemons.ublk --store FILE.

It makes the next free /dev/ublkbN, says so, and serves it until SIGTERM or SIGINT. The kernel hands over as
many requests at once as the queue is deep. Each queue is served by a thread of its own, request by request,
so that requests of different queues are under way at once.

With --recover N it makes no device, but waits, with all that it needs, until the server of /dev/ublkbN has
died, and goes on in its place: without a request lost where that was started with --recoverable.
"""

import argparse
import contextlib
import errno
import mmap
import os
import time
from dataclasses import dataclass

from ioflusher.kernel import ublk
from ioflusher.kernel.io_uring import CommandRing
from ioflusher.kernel.syscalls import address_of
from ioflusher.kernel.ublk_control import UblkControl
from ioflusher.lab.daemons.hardening import Workers, option_parser, run, take_rest, take_state
from ioflusher.lab.daemons.store import FileStore

NODE_DEADLINE_S = 10.0
LOOK_S = 0.1  # between two looks whether the server that is stood by for has died


@dataclass(frozen=True, slots=True)
class DeviceCommands:
    """The device /dev/ublkcN, open, and the numbers of its two commands."""

    fd: int
    fetch: int
    commit: int


class UblkQueue:
    """One queue of the device with its memory, all of it taken before the first request."""

    _commands: DeviceCommands
    _mapping: mmap.mmap
    _descriptors: memoryview

    def __init__(self, number: int, device: ublk.Granted, store: FileStore) -> None:
        self._number = number
        self._store = store
        self._depth = device.depth
        size = device.largest_bytes
        memory = mmap.mmap(
            -1, size * device.depth, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        )
        start, whole = address_of(memory), memoryview(memory)
        self._addresses = [start + tag * size for tag in range(device.depth)]
        self._buffers = [whole[tag * size : (tag + 1) * size] for tag in range(device.depth)]

    def attach(self, commands: DeviceCommands) -> None:
        """Map the queue's requests."""
        self._commands = commands
        page = mmap.PAGESIZE
        self._mapping = mmap.mmap(
            commands.fd,
            -(-self._depth * ublk.DESCRIPTOR_BYTES // page) * page,
            flags=mmap.MAP_SHARED | mmap.MAP_POPULATE,
            prot=mmap.PROT_READ,
            offset=ublk.descriptor_offset(self._number, page),
        )
        self._descriptors = memoryview(self._mapping)

    def serve(self) -> None:
        """Serve requests until the device is stopped.

        The kernel takes a queue's commands from the one thread that fetched first.
        """
        ring = CommandRing(self._depth)
        commands = self._commands
        for tag in range(self._depth):
            word = ublk.io_command(self._number, tag, 0, self._addresses[tag])
            ring.send(commands.fd, commands.fetch, word, tag)
        left = self._depth
        while left:
            for tag, answer in ring.completed():
                if answer != ublk.IO_RES_OK:
                    left -= 1  # the device is being stopped (UBLK_IO_RES_ABORT)
                    continue
                result = self._execute(ublk.block_request(self._descriptors, tag), self._buffers[tag])
                word = ublk.io_command(self._number, tag, result, self._addresses[tag])
                ring.send(commands.fd, commands.commit, word, tag)
        ring.close()

    def close(self) -> None:
        """Unmap the requests: the kernel keeps a device for as long as they are mapped."""
        self._descriptors.release()
        self._mapping.close()

    def _execute(self, request: ublk.BlockRequest, buffer: memoryview) -> int:
        """Carry out a request; bytes done, or a negative errno."""
        try:
            match request.operation:
                case ublk.Operation.READ:
                    self._store.read_into(buffer[: request.length], request.offset)
                case ublk.Operation.WRITE:
                    self._store.write(buffer[: request.length], request.offset)
                case ublk.Operation.FLUSH:
                    self._store.flush()
                    return 0
                case _:
                    return -errno.EOPNOTSUPP
        except OSError as error:
            return -(error.errno or errno.EIO)
        return request.length


def open_when_there(path: str) -> int:
    """Open a device whose node is made by another program, and may take a moment.

    Raises:
        OSError: it does not come.
    """
    deadline = time.monotonic() + NODE_DEADLINE_S
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def await_death(control: UblkControl, device: int) -> None:
    """Wait until the device's server has died, and begin to take its place.

    Raises:
        OSError: the device cannot be recovered.
    """
    while True:
        try:
            control.command(ublk.Control.START_USER_RECOVERY, device)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(LOOK_S)


def main() -> int:
    """The program."""
    parser = option_parser("ioflusher.lab.daemons.ublk", "Serve a file as a block device over ublk.")
    parser.add_argument("--queues", type=int, metavar="N", default=1, help="queues, each with a thread (1)")
    parser.add_argument("--depth", type=int, metavar="N", default=32, help="requests of a queue at once (32)")
    parser.add_argument(
        "--largest", type=int, metavar="KIB", default=256, help="longest request in KiB, each has that (256)"
    )
    parser.add_argument("--recoverable", action="store_true", help="the device outlives its server")
    parser.add_argument("--recover", type=int, metavar="N", help="stand by for the server of /dev/ublkbN")
    options = parser.parse_args()
    for name, least, most in (("queues", 1, 64), ("depth", 1, ublk.MAX_QUEUE_DEPTH), ("largest", 4, 1024)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name}: expected {least} to {most}, found {getattr(options, name)}")
    take_state(options)
    store = FileStore(options.store, direct=options.direct)
    if not store.size or store.size % ublk.SECTOR:
        parser.error(f"--store: expected whole sectors of {ublk.SECTOR} bytes, found {store.size} bytes")
    control = UblkControl()
    if options.recover is not None:
        return serve(options, control, control.info(options.recover), store)
    device = control.add(
        options.queues, options.depth, options.largest << 10, recoverable=options.recoverable
    )
    try:
        words = ublk.parameters(store.size, device.largest_bytes)
        control.command(ublk.Control.SET_PARAMS, device.device, buffer=words)
        return serve(options, control, device, store)
    finally:
        with contextlib.suppress(OSError):
            control.command(ublk.Control.DEL_DEV, device.device)


def serve(options: argparse.Namespace, control: UblkControl, device: ublk.Granted, store: FileStore) -> int:
    """Serve the device until a signal comes; the exit status."""
    workers = Workers()
    queues = [UblkQueue(number, device, store) for number in range(device.queues)]
    recovers = options.recover is not None
    if recovers:
        take_rest(options)
        print(f"standing by for /dev/ublkb{device.device}", flush=True)
        await_death(control, device.device)
    commands = DeviceCommands(
        open_when_there(f"/dev/ublkc{device.device}"),
        control.number(ublk.Io.FETCH_REQ),
        control.number(ublk.Io.COMMIT_AND_FETCH_REQ),
    )
    for queue in queues:
        queue.attach(commands)
    if not recovers:
        take_rest(options)
    for queue in queues:
        workers.start(queue.serve)
    begin = ublk.Control.END_USER_RECOVERY if recovers else ublk.Control.START_DEV
    control.command(begin, device.device, data=os.getpid())
    print(f"serving /dev/ublkb{device.device}", flush=True)
    workers.wait()
    control.command(ublk.Control.STOP_DEV, device.device)
    status = workers.join()
    for queue in queues:
        queue.close()
    os.close(commands.fd)
    return status


if __name__ == "__main__":
    run(main)
