"""Runs inside a guest, as root with all capabilities: real nbd daemons, and the graph of them.

Prints one JSON line a check; the test outside (test_map_guest.py) holds them against what it expects. Called
with arguments it is itself a daemon, which opens its log when it is told to.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("ioflusher"))
HERE = Path("/tmp/map")
SERVE = [PROGRAM, "nbd", "serve", "--memory", "64M", "--lock-memory"]


def say(check: str, found: object) -> None:
    print(json.dumps([check, found]), flush=True)


def shell(command: str) -> None:
    """Run a line of the system's tools."""
    subprocess.run(
        ["/bin/sh", "-ec", f"PATH=/usr/sbin:/sbin:$PATH; {command}"],
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def graph(*arguments: str) -> tuple[int, dict[str, Any]]:
    """What the program says of this machine, and its status."""
    done = subprocess.run([PROGRAM, "map", "--json", *arguments], stdout=subprocess.PIPE, timeout=240)
    record: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, record


def brief(record: dict[str, Any]) -> list[list[str]]:
    """Of each cycle its way round: the nodes, and last why the daemon waits."""
    return [
        [*(edge["source"] for edge in cycle["witness"]), cycle["witness"][1]["reason"]]
        for cycle in record["cycles"]
    ]


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A program in the background that has said its first line."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            answer(started)
            yield started
        finally:
            started.kill()


def answer(started: subprocess.Popen[str], request: str = "") -> None:
    """Tell it something, and wait for a line."""
    assert started.stdin is not None
    assert started.stdout is not None
    if request:
        print(request, file=started.stdin, flush=True)
    assert started.stdout.readline()


def serve_with_a_log(device: str, socket: str, log: str) -> None:
    """A covered daemon with locked memory, server and client in one, as qemu-nbd is; its log is at fault."""
    from ioflusher import set_io_flusher
    from ioflusher.harden import lock_memory
    from ioflusher.nbd.backends import MemoryBackend
    from ioflusher.nbd.kernel_client.attachment import attach
    from ioflusher.nbd.server import Server

    set_io_flusher(True)
    with MemoryBackend(64 << 20) as backend, Server(backend) as server:
        address = server.listen_unix(socket)
        server.start()
        with attach(device, address):
            lock_memory()
            print("serving", flush=True)
            sys.stdin.readline()
            with open(log, "a") as file:
                print("opened", flush=True)
                sys.stdin.readline()
                file.write("the end\n")
            print("closed", flush=True)
            sys.stdin.readline()


def main() -> None:
    HERE.mkdir()
    (HERE / "mnt").mkdir()
    swap, logging = HERE / "swap.sock", HERE / "log.sock"
    log = HERE / "mnt" / "daemon.log"
    with (
        process(*SERVE, "--no-io-flusher", "--unix", str(swap)) as first,
        process(sys.executable, __file__, "/dev/nbd1", str(logging), str(log)) as second,
    ):
        # nothing of this client stays in user space
        shell(f"{PROGRAM} nbd attach --netlink /dev/nbd0 'nbd+unix:///?socket={swap}'")
        shell("mkswap /dev/nbd0; mkfs.ext4 -q /dev/nbd1")
        mounting = f"mount /dev/nbd1 {HERE}/mnt"
        status, record = graph("--would-add", mounting, "--would-add", "swapon /dev/nbd0")
        say("predicted", [status, brief(record)])
        status, record = graph("--would-add", mounting)
        say("predicted mount", [status, brief(record)])
        shell(f"{mounting}; swapon /dev/nbd0")
        say("pids", [first.pid, second.pid])
        status, record = graph()
        say("bare", [status, brief(record)])
        subprocess.run([PROGRAM, "snapshot"], stdout=(HERE / "host.json").open("wb"), check=True, timeout=240)
        status, again = graph("--snapshot", str(HERE / "host.json"))
        say("from a file", [status, brief(again)])
        shell(f"{PROGRAM} set {first.pid}")
        status, record = graph()
        say("covered", [status, brief(record)])
        answer(second, "open the log")
        status, record = graph("/dev/nbd1")
        say("log", [status, brief(record)])
        answer(second, "close the log")
        shell(f"umount {HERE}/mnt; swapoff /dev/nbd0")


if len(sys.argv) > 1:
    serve_with_a_log(*sys.argv[1:])
else:
    main()
