"""Runs inside a guest, as root: two nbd devices by netlink whose servers are local, and rpcbind beside them.

Usage: guest_loopback.py TREE, the directory of `packages.unpacked`. Prints what `guest.play` prints.

nbd0 is nbd-server's, nbd1 qemu-nbd's, nbd2 nbdkit's. rpcbind is connected with the kernel, too: nfsd
registers with it over /run/rpcbind.sock.
"""

import pwd
import sys
from pathlib import Path

from tests.machine.guest import RUN, image, lay_over, play, run, start, until, write


def rpcbind_and_nfsd() -> None:
    """NFS version 3 must be registered: the kernel's connection to rpcbind stays open."""
    if "_rpc" not in {entry.pw_name for entry in pwd.getpwall()}:
        run("useradd", "--system", "--no-create-home", "_rpc")  # as the package's own script would
    for directory in ("/run/rpcbind", "/run/sendsigs.omit.d"):
        Path(directory).mkdir(exist_ok=True)
    start("rpcbind", "-f", "-w")
    until("rpcbind", Path("/run/rpcbind.sock").exists)
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("rpc.nfsd", "1")


def nbd_server() -> None:
    """nbd0: port 10810."""
    write(
        RUN / "nbd.conf",
        "[generic]\nlistenaddr = 127.0.0.1\nport = 10810\n[x]\nexportname = " + str(image("nbd-server.img")),
    )
    run("nbd-server", "-C", f"{RUN}/nbd.conf")
    until("nbd-server", lambda: ":10810" in run("ss", "-tln"))
    run("nbd-client", "127.0.0.1", "10810", "/dev/nbd0", "-N", "x")


def qemu_nbd() -> None:
    """nbd1: one process is client and server."""
    run("qemu-nbd", "-f", "raw", "-c", "/dev/nbd1", str(image("qemu-nbd.img")))


def nbdkit() -> None:
    """nbd2: the port of the protocol, and two connections."""
    run("nbdkit", "-i", "127.0.0.1", "-p", "10809", "memory", str(48 << 20))
    until("nbdkit", lambda: ":10809" in run("ss", "-tln"))
    run("nbd-client", "127.0.0.1", "10809", "/dev/nbd2", "-C", "2")


def write_to_them() -> None:
    """What a machine does with its disks."""
    run("mkfs.ext4", "-q", "/dev/nbd0")
    run("dd", "if=/dev/zero", "of=/dev/nbd2", "bs=64k", "count=16", "oflag=direct")
    run("dd", "if=/dev/nbd2", "of=/dev/null", "bs=64k", "count=3", "iflag=direct")


if __name__ == "__main__":
    lay_over(sys.argv[1])
    play("quiet", rpcbind_and_nfsd, nbd_server, qemu_nbd, nbdkit)
    play("busy", write_to_them)
