"""Runs inside a guest, as root with all capabilities: the kernel's NBD client on our servers.

Prints one JSON line a check; the test outside (test_guest.py) holds them against what it expects.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.nbd import guest_reconnect

from ioflusher.flag import thread_states
from ioflusher.nbd.address import Address, parse_uri
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend, RemoteBackend
from ioflusher.nbd.kernel_client import attachment, netlink
from ioflusher.nbd.kernel_client.device import AttachError, is_running
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.server import Server

DEVICE = "/dev/nbd0"
SIZE = 64 << 20
DATA = 8 << 20
HERE = Path("/tmp")
MOUNT = HERE / "mount"
Attach = Callable[[Address], AbstractContextManager[None]]
PROGRAM = [sys.executable, "-m", "ioflusher", "nbd"]


def say(check: str, **found: object) -> None:
    print(json.dumps({"check": check, **found}), flush=True)


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)


@contextmanager
def by_ioctl(address: Address) -> Iterator[None]:
    with attachment.attach(DEVICE, address):
        yield


@contextmanager
def by_netlink(address: Address) -> Iterator[None]:
    netlink.attach(DEVICE, address)
    try:
        yield
    finally:
        netlink.detach(DEVICE)


@contextmanager
def mounted() -> Iterator[None]:
    run("mount", DEVICE, str(MOUNT))
    try:
        yield
    finally:
        run("umount", str(MOUNT))


@contextmanager
def program(*arguments: str, before: tuple[str, ...] = ()) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """One of our own commands in the background, below `before`, and its first line of output."""
    with subprocess.Popen([*before, *PROGRAM, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def file_system_survives(kind: str, address: Address, first: Attach, second: Attach) -> None:
    """A file system is made and filled through one way of attaching, and read through the other."""
    data = os.urandom(DATA)
    with first(address):
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", DEVICE)
        with mounted(), open(MOUNT / "data", "wb") as file:
            file.write(data)
            os.fsync(file.fileno())  # an error of the device is told here
    running = is_running(DEVICE)
    with second(address), mounted():
        same = (MOUNT / "data").read_bytes() == data
    say(
        "file system",
        kind=kind,
        ways=[first.__name__, second.__name__],
        same=same,
        left_running=running,
    )


def the_daemon(path: Path) -> None:
    """The command as people run it: state, locked memory, priority; then attached by command too."""
    options = ["--memory", str(SIZE), "--unix", str(path), "--max-payload", "1M"]
    hardening = ["--lock-memory", "--realtime", "5", "--oom-score-adj", "-1000"]
    with program("serve", *options, *hardening) as (server, line):
        address = parse_uri(line.removeprefix("listening on "))
        file_system_survives("memory", address, by_ioctl, by_netlink)
        with RemoteBackend(address) as remote, Server(remote) as forwarder:
            forwarded = forwarder.listen_unix(str(HERE / "forward"))
            forwarder.start()
            file_system_survives("remote", forwarded, by_ioctl, by_netlink)
        with by_ioctl(address):
            status = Path(f"/proc/{server.pid}/status").read_text()
            locked = int(status.split("VmLck:")[1].split()[0]) << 10
            states = [thread.io_flusher for thread in thread_states(server.pid)]
            score = Path(f"/proc/{server.pid}/oom_score_adj").read_text().strip()
            policies = [
                os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{server.pid}/task").iterdir()
            ]
            limit = int(Path("/sys/block/nbd0/queue/max_sectors_kb").read_text())
            say("requests are held to the server's limit", limit=limit)
            say(
                "daemon",
                states=states,
                locked=locked > SIZE,
                score=score,
                fifo=policies == [os.SCHED_FIFO] * 3,
            )
        with program("attach", DEVICE, address.uri) as (client, line):
            say("attached by command", line=line, size=int(Path("/sys/block/nbd0/size").read_text()) * 512)
            client.send_signal(signal.SIGTERM)
            say("detached by signal", status=client.wait(60), running=is_running(DEVICE))
        server.terminate()
        say("daemon ended", status=server.wait(60), socket_left=path.exists())


def without_the_state(path: Path) -> None:
    """The same daemon without the state: no thread has it."""
    with (
        program("serve", "--no-io-flusher", "--memory", "1M", "--unix", str(path)) as (server, line),
        by_ioctl(parse_uri(line.removeprefix("listening on "))),
    ):
        say("without", states=[thread.io_flusher for thread in thread_states(server.pid)])
    below_run = (*PROGRAM[:-1], "run", "--")
    arguments = ("serve", "--memory", "1M", "--unix", str(path))
    for choice in ("--no-io-flusher", "--io-flusher"):
        path.unlink(missing_ok=True)
        with program(*arguments, choice, before=below_run) as (server, line):
            states = [thread.io_flusher for thread in thread_states(server.pid)]
            say("inherited", kind=choice, line=line.split(" ")[0], states=states)


def refusal(action: Callable[[], object]) -> dict[str, object]:
    """How an action that must fail fails."""
    try:
        action()
    except AttachError as error:
        return {"errno": errno.errorcode.get(error.errno or 0), "hint": bool(error.hint)}
    return {"errno": None}


def failures() -> None:
    """What cannot be is refused, and a server that dies does not leave a device that hangs."""
    say("detach what is not attached", **refusal(lambda: attachment.detach(DEVICE)))
    backend: Backend = MemoryBackend(SIZE)
    with Server(backend) as server:
        address = server.listen_unix(str(HERE / "failing"))
        server.start()
        with by_ioctl(address):
            say("attach twice by ioctl", **refusal(lambda: attachment.attach(DEVICE, address)))
            say("attach twice by netlink", **refusal(lambda: netlink.attach(DEVICE, address)))
        attached = attachment.attach(DEVICE, address)
        server.close()
        begin = time.monotonic()
        try:
            with FileBackend(DEVICE, readonly=True, direct=True) as device:
                device.read_into(0, aligned_memory(4096))
            outcome = "read"
        except OSError as error:
            outcome = errno.errorcode[error.errno or 0]
        attached.detach()
        say(
            "server gone",
            outcome=outcome,
            prompt=time.monotonic() - begin < 20,
            running=is_running(DEVICE),
        )


def main() -> None:
    MOUNT.mkdir()
    the_daemon(HERE / "memory")
    image = HERE / "image"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    with FileBackend(image) as backend, Server(backend) as server:
        address = server.listen_tcp()
        server.start()
        file_system_survives("file", address, by_netlink, by_ioctl)
    without_the_state(HERE / "without")
    failures()
    guest_reconnect.checks(say)
    say("end")


main()
