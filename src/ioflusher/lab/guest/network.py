"""Inside the guest: who listens, and how a network fails. Nothing here waits for what may be frozen."""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from ioflusher.kernel.sockets import TCP_LISTEN, parse_tcp, parse_unix
from ioflusher.kernel.syscalls import pidfd_getfd

NET = Path("/proc/net")

# include/uapi/linux/sockios.h; struct ifreq and IFF_UP of include/uapi/linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFREQ = struct.Struct("=16sH22x")
IFF_UP = 1


def put_link(name: str, *, up: bool) -> None:
    """Take an interface up or down; what is sent while it is down is lost.

    Raises:
        OSError: with the kernel's errno.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = bytearray(IFREQ.pack(name.encode(), 0))
        fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        flags = IFREQ.unpack(request)[1]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(name.encode(), flags))


def shut_connections(pid: int, proc: Path = Path("/proc")) -> int:
    """Shut every TCP connection that a process has a descriptor of; how many there were.

    Raises:
        OSError: with the kernel's errno; of connections that were gone already, nothing.
    """
    shut = 0
    pidfd = os.pidfd_open(pid)
    try:
        for number in map(int, os.listdir(proc / str(pid) / "fd")):
            try:
                if not os.readlink(proc / str(pid) / "fd" / str(number)).startswith("socket:"):
                    continue
                taken = socket.socket(fileno=pidfd_getfd(pidfd, number))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EBADF):  # closed meanwhile
                    continue
                raise
            with taken:
                if taken.family not in (socket.AF_INET, socket.AF_INET6) or taken.type != socket.SOCK_STREAM:
                    continue
                if taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    continue  # it listens
                with contextlib.suppress(OSError):  # ENOTCONN: it is over already
                    taken.shutdown(socket.SHUT_RDWR)
                    shut += 1
    finally:
        os.close(pidfd)
    return shut


def listens(port: int) -> bool:
    """Whether some process listens at the TCP port; it is not connected to: some servers take one client."""
    return any(
        sock.state == TCP_LISTEN and sock.local.rpartition(":")[2] == str(port)
        for table in ("tcp", "tcp6")
        if (file := NET / table).exists()
        for sock in parse_tcp(file.read_bytes())
    )


def listens_at(path: str) -> bool:
    """Whether a Unix socket of that name waits for clients; one that is bound alone still refuses them."""
    sockets = parse_unix((NET / "unix").read_bytes())
    return any(sock.listening and sock.name == os.fsencode(path) for sock in sockets)
