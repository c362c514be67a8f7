"""Part of guest_kernel_client.py: file systems, other servers for a device that lives, and detaching.

What takes another server's connections goes through the command line, as people use it. By itself it has a
standby take over again and again, killed and hanging in turn, and prints a JSON line for each time:

    ioflusher lab exec --load "nbd nbds_max=1" -- .venv/bin/python -m tests.nbd.guest_reconnect TIMES TIMEOUT
"""

import contextlib
import hashlib
import json
import mmap
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ioflusher.flag import thread_states
from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import FileBackend
from ioflusher.nbd.kernel_client import attachment, netlink
from ioflusher.nbd.kernel_client.device import AttachError, exists, is_running
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.kernel_client.receive_workers import ReceiveWorkers
from ioflusher.nbd.kernel_client.reconnect import SpareConnections
from ioflusher.nbd.kernel_client.reconnect import reconnect as hand_over
from ioflusher.nbd.kernel_client.standby import RECEIVING
from ioflusher.nbd.kernel_client.status import device_status
from ioflusher.nbd.server import Server

DEVICE = "/dev/nbd0"
SIZE = 320 << 20  # bytes: what XFS needs at least
BLOCK = 4096
HERE = Path("/tmp")
IMAGE = HERE / "shared-image"
MOUNT = HERE / "mount"
PROGRAM = [sys.executable, "-m", "ioflusher", "nbd"]
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], ["fsck.ext4", "-f", "-n"]),
    "xfs": (["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"]),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], ["btrfs", "check"]),
}
Say = Callable[..., None]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120)


@contextmanager
def serving(name: str) -> Iterator[tuple[int, Address]]:
    """A server of the image, in a process of its own, which is killed at the end."""
    path = HERE / name
    path.unlink(missing_ok=True)
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        with FileBackend(str(IMAGE)) as backend, Server(backend, max_payload=1 << 20) as server:
            server.listen_unix(str(path))
            os.write(tell, b".")
            server.serve_forever()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    try:
        yield pid, Address(path=str(path))
    finally:
        kill(pid)


def kill(pid: int) -> None:
    """SIGKILL, and wait; harmless when done already."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_systems(say: Say) -> None:
    """mkfs, a tree copied, unmounted, checked by its own tool, mounted again: the same."""
    data = HERE / "data"
    data.mkdir()
    for number in range(20):
        (data / f"file{number}").write_bytes(os.urandom(number * 7919))
    sums = {path.name: checksum(path) for path in data.iterdir()}
    with serving("fs") as (_, uri):
        netlink.attach(DEVICE, uri, ClientOptions(connections=2))
        for name, (make, check) in FILE_SYSTEMS.items():
            subprocess.run([*make, DEVICE], check=True, timeout=120)
            subprocess.run(["mount", "-t", name, DEVICE, str(MOUNT)], check=True, timeout=60)
            subprocess.run(["cp", "-r", str(data), str(MOUNT)], check=True, timeout=60)
            subprocess.run(["umount", str(MOUNT)], check=True, timeout=60)
            checked = subprocess.run([*check, DEVICE], capture_output=True, timeout=120)
            subprocess.run(["mount", "-t", name, DEVICE, str(MOUNT)], check=True, timeout=60)
            found = {path.name: checksum(path) for path in (MOUNT / "data").iterdir()}
            subprocess.run(["umount", str(MOUNT)], check=True, timeout=60)
            say("kind of file system", kind=name, checked=checked.returncode, same=found == sums)
        netlink.detach(DEVICE)


class Writers:
    """Threads that write blocks past the page cache; what each block was last given is kept outside.

    Attributes:
        written: blocks' contents, by number.
        errors: what writes failed with.
        slowest: seconds that one write took, at most.
    """

    def __init__(self, seed: int, threads: int = 4) -> None:
        self.written: dict[int, bytes] = {}
        self.errors: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number, threads, seed)) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int, threads: int, seed: int) -> None:
        chance = random.Random(seed * 1000 + number)
        page = mmap.mmap(-1, BLOCK)
        fd = os.open(DEVICE, os.O_WRONLY | os.O_DIRECT)
        while not self._stop.is_set():
            block = chance.randrange(number, 2048, threads)  # each thread has its own blocks
            content = chance.randbytes(16) * (BLOCK // 16)
            page[:] = content
            began = time.monotonic()
            try:
                os.pwrite(fd, page, block * BLOCK)
            except OSError as error:
                self.errors.append(repr(error))
                break
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.written[block] = content  # acknowledged
        os.close(fd)

    def end(self) -> int:
        """Stop; how many blocks have another content than was acknowledged, or cannot be read."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        with open(DEVICE, "rb") as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            wrong = 0
            for block, content in self.written.items():
                device.seek(block * BLOCK)
                try:
                    wrong += device.read(BLOCK) != content
                except OSError as error:
                    self.errors.append(repr(error))
                    wrong += 1
        return wrong


def reconnect_under_load(say: Say) -> None:
    """The server is killed in the middle of writing, another one takes its place: nothing is lost."""
    # both before the writers open the device: a child would have it open, too
    with serving("first") as (first, uri), serving("second") as (_, other):
        options = ["--timeout", "2", "--dead-connection-timeout", "60", "--backend", "disk"]
        attached = command("attach", *options, DEVICE, uri.uri)
        say("attached with options", status=attached.returncode, said=attached.stdout + attached.stderr)
        status = command("status", "--json", DEVICE)
        say("status of the device", code=status.returncode, told=json.loads(status.stdout))
        alive = command("reconnect", "--backend", "disk", DEVICE, other.uri)
        say("none is dead", status=alive.returncode, said=alive.stderr)
        try:
            hand_over(DEVICE, other, backend="another")
        except AttachError as error:
            say("another name", errno=error.errno, hint=error.hint)
        writers = Writers(seed=1)
        until(lambda: len(writers.written) > 100)
        kill(first)
        before = len(writers.written)
        done = command("reconnect", "--backend", "disk", DEVICE, other.uri)
        went_on = until(lambda: len(writers.written) > before + 100)
        say(
            "reconnected",
            status=done.returncode,
            said=done.stdout + done.stderr,
            errors=writers.errors,
            went_on=went_on,
            wrong=writers.end(),
        )
        say("list", said=command("list").stdout)
        ended = command("detach", DEVICE)
        say("detached", kind="detached by command", status=ended.returncode, said=ended.stderr)
    say("status afterwards", code=command("status", DEVICE).returncode)


def replace_at_once(say: Say, wait: bool) -> None:
    """A write that cannot be sent shows the connection's end before the kernel's worker could run.

    Both threads here go before that one; the guest has one processor.
    """
    times = ClientOptions(timeout=2, dead_connection_timeout=2)
    page = mmap.mmap(-1, BLOCK)
    cut = threading.Event()
    failed: list[int | None] = []

    def write() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
        cut.wait()
        try:
            os.pwrite(device, page, 0)
        except OSError as error:
            failed.append(error.errno)

    with serving("first") as (_, uri), serving("second") as (_, other), contextlib.ExitStack() as stack:
        _, (connection,) = netlink.connect(DEVICE, uri, times)
        stack.callback(netlink.detach, DEVICE)
        Path("/sys/block/nbd0/queue/scheduler").write_text("none")  # the writer itself sends
        spare = stack.enter_context(SpareConnections(DEVICE, other))
        workers = stack.enter_context(contextlib.closing(ReceiveWorkers(0)))
        device = os.open(DEVICE, os.O_WRONLY | os.O_DIRECT)
        stack.callback(os.close, device)
        writer = threading.Thread(target=write)
        writer.start()
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        cut.set()
        running = workers.await_end(RECEIVING) if wait else None
        taken = until_taken(spare)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        poll = select.poll()
        poll.register(spare.sockets[0], select.POLLRDHUP)
        shut_down = bool(poll.poll(500))
        writer.join(60)
        say(
            "replaced at once",
            kind=f"replaced at once, waited {wait}",
            running=running,
            taken=taken,
            shut_down=shut_down,
            failed=failed,
        )


def until_taken(spare: SpareConnections) -> int:
    """Offer without a pause; how many the kernel has."""
    deadline = time.monotonic() + 0.5
    while not (taken := spare.offer()) and time.monotonic() < deadline:
        pass
    return taken


@contextmanager
def standing_by(
    first: int, uri: Address, other: Address, timeout: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """`nbd attach` with a standby, which says that the device is there."""
    options = ["--timeout", str(timeout), "--backend", "disk", "--standby", other.uri, "--fence", str(first)]
    argv = [*PROGRAM, "attach", *options, DEVICE, uri.uri]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"attached {DEVICE}\n", process.communicate(timeout=30)
            yield process
        finally:
            process.kill()


def take_over(say: Say, kind: str, stop: Callable[[int], None], seed: int = 2, timeout: int = 2) -> None:
    """The first server is stopped in the middle of writing: the standby goes on, and nothing is lost."""
    with serving("first") as (first, uri), serving("second") as (_, other):
        with standing_by(first, uri, other, timeout) as process:
            carries = [thread.io_flusher for thread in thread_states(process.pid)]
            status = Path(f"/proc/{process.pid}/status").read_text()
            writers = Writers(seed)
            until(lambda: len(writers.written) > 100)
            stop(first)
            stopped_at = time.monotonic()
            _, said = process.communicate(timeout=60)
            seconds = time.monotonic() - stopped_at
            before = len(writers.written)
            went_on = until(lambda: len(writers.written) > before + 100)
            wrong = writers.end()
            say(
                "taken over",
                kind=f"taken over, {kind}",
                status=process.returncode,
                said=said,
                seconds=seconds,
                slowest=writers.slowest,
                blocks=len(writers.written),
                carries=carries,
                locked="VmLck:\t       0 kB" not in status,
                first_alive=_lives(first),
                errors=writers.errors,
                went_on=went_on,
                wrong=wrong,
            )
        command("detach", DEVICE)


def detach_with_a_standby(say: Say) -> None:
    """Detaching, by anybody, is no death: nobody is killed, and nothing comes back."""
    with serving("first") as (first, uri), serving("second") as (_, other):
        for kind, way in (("ioctl", attachment.detach), ("netlink", netlink.detach)):
            with standing_by(first, uri, other) as process:
                fd = os.open(DEVICE, os.O_RDONLY)  # so that the device does not go at once
                threading.Timer(3.0, os.close, [fd]).start()
                way(DEVICE)
                _, said = process.communicate(timeout=60)
                say(
                    "detached with a standby",
                    kind=f"detached by {kind} with a standby",
                    status=process.returncode,
                    said=said,
                    first_alive=_lives(first),
                    running=is_running(DEVICE),
                )


def _lives(pid: int) -> bool:
    """Whether it has not ended, whatever state it is in."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def detach_after_a_death(say: Say) -> None:
    """Who attached is killed: by ioctl the device ends with it; by netlink it lives and can be detached."""
    with serving("dying") as (_, uri):
        ready, tell = os.pipe()
        pid = os.fork()
        if not pid:
            attachment.attach(DEVICE, uri)
            os.write(tell, b".")
            signal.pause()
        os.read(ready, 1)
        kill(pid)
        ended = until(lambda: not is_running(DEVICE))
        pid = os.fork()
        if not pid:
            netlink.attach(DEVICE, uri)
            os._exit(0)
        os.waitpid(pid, 0)
        alive = device_status(DEVICE).alive
        attachment.detach(DEVICE)
        say("attacher died", ended=ended, alive=alive, running=is_running(DEVICE))


def flags(say: Say) -> None:
    """A device that goes when it is closed, one that vanishes, one that refuses writes."""
    with serving("flags") as (_, uri):
        netlink.attach(DEVICE, uri, ClientOptions(read_only=True, disconnect_on_close=True))
        fd = os.open(DEVICE, os.O_RDWR)
        try:
            os.pwrite(fd, bytes(BLOCK), 0)
            os.fsync(fd)
            refused = ""
        except OSError as error:
            refused = error.strerror or ""
        os.close(fd)
        say("closed", refused=refused, ended=until(lambda: not is_running(DEVICE)))
        netlink.attach("/dev/nbd7", uri, ClientOptions(destroy_on_disconnect=True))
        there = exists("/dev/nbd7")
        netlink.detach("/dev/nbd7")
        say("vanished", there=there, gone=until(lambda: not exists("/dev/nbd7")))


STOPS: dict[str, Callable[[int], None]] = {
    "killed": lambda pid: os.kill(pid, signal.SIGKILL),
    "hanging": lambda pid: os.kill(pid, signal.SIGSTOP),
}


def make_image() -> None:
    with open(IMAGE, "wb") as file:
        file.truncate(SIZE)


def checks(say: Say) -> None:
    make_image()
    MOUNT.mkdir(exist_ok=True)
    file_systems(say)
    reconnect_under_load(say)
    for wait in (True, False):
        replace_at_once(say, wait)
    for kind, stop in STOPS.items():
        take_over(say, kind, stop)
    detach_with_a_standby(say)
    detach_after_a_death(say)
    flags(say)


def main(times: int, timeout: int) -> None:
    make_image()
    for number in range(times):
        for kind, stop in STOPS.items():
            take_over(lambda _, **found: print(json.dumps(found), flush=True), kind, stop, number, timeout)
    print(subprocess.run(["dmesg"], capture_output=True, text=True).stdout, file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
