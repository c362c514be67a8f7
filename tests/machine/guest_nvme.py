"""Runs inside a guest, as root: NVMe over TCP by loopback, and an nbd handler that executes itself again.

Usage: guest_nvme.py TREE, the directory of `packages.unpacked`. Prints what `guest.play` prints. Called as
guest_nvme.py server|client DEVICE it is the handler itself: the server
executes its own program once more as the client that stays in NBD_DO_IT. Programs in Go do so.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.machine.guest import RUN, lay_over, play, run, start, until, write

NVMET = Path("/sys/kernel/config/nvmet")
NQN = "nqn.2026-01.test:disk"


def nvme_over_tcp() -> None:
    """The kernel's target with a file in memory, and the kernel's initiator."""
    run("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    with (RUN / "nvme.img").open("wb") as file:
        file.truncate(32 << 20)
    subsystem = NVMET / "subsystems" / NQN
    (subsystem / "namespaces/1").mkdir(parents=True)
    write(subsystem / "attr_allow_any_host", "1")
    write(subsystem / "namespaces/1/device_path", str(RUN / "nvme.img"))
    write(subsystem / "namespaces/1/enable", "1")
    port = NVMET / "ports/1"
    port.mkdir(parents=True)
    for name, value in (("trtype", "tcp"), ("adrfam", "ipv4"), ("traddr", "127.0.0.1"), ("trsvcid", "4421")):
        write(port / f"addr_{name}", value)
    os.symlink(subsystem, port / "subsystems" / NQN)
    write(
        Path("/dev/nvme-fabrics"),
        f"transport=tcp,traddr=127.0.0.1,trsvcid=4421,nqn={NQN},"
        "hostnqn=nqn.2026-01.test:host,hostid=11111111-2222-4333-8444-555555555555",
    )
    until("a namespace", lambda: list(Path("/sys/block").glob("nvme*n1")))


def handler_that_executes_itself() -> None:
    start(sys.executable, "-m", "tests.machine.guest_nvme", "server", "/dev/nbd0")
    try:
        until("nbd0", lambda: int(Path("/sys/block/nbd0/size").read_text()) > 0, 90)
    except TimeoutError as error:
        said = (RUN / f"{Path(sys.executable).name}.out").read_text()
        raise RuntimeError(f"{error}: {said[-800:]}") from error


def serve(device: str) -> None:
    """The server: it keeps its end of the pair and executes its own program for the other one."""
    from ioflusher.nbd.backends import MemoryBackend
    from ioflusher.nbd.server import Server

    with MemoryBackend(8 << 20) as backend, Server(backend) as server:
        server.listen_unix(f"{RUN}/handler.sock")
        server.start()
        again = [sys.executable, "-m", "tests.machine.guest_nvme", "client", device]
        subprocess.run(again, check=True)


def hold(device: str) -> None:
    """The client: it stays in NBD_DO_IT."""
    socket = f"nbd+unix:///?socket={RUN}/handler.sock"
    os.execv(sys.executable, [sys.executable, "-m", "ioflusher", "nbd", "attach", device, socket])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", device]:
            serve(device)
        case ["client", device]:
            hold(device)
        case [tree]:
            lay_over(tree)
            play("all", nvme_over_tcp, handler_that_executes_itself)
