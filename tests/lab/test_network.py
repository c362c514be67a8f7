"""How the lab makes a network fail, on this machine's own loopback."""

import os
import socket
import subprocess
import sys

import pytest

from ioflusher.lab.guest import network
from ioflusher.lab.guest.network import put_link, shut_connections

# a process with a connection, a listener, a datagram socket and a file, that says when it has them
HOLDER = """
import socket, sys
near = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
listener = socket.create_server(("127.0.0.1", 0))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
pair = socket.socketpair()
file = open("/dev/null")
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_the_connections_of_a_process_are_shut() -> None:
    """Its peer sees the end; what else it has open stays, and nothing of it stays open here."""
    before = set(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = [sys.executable, "-c", HOLDER, str(listener.getsockname()[1])]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            far, _ = listener.accept()
            with far:
                far.settimeout(10)
                assert holder.stdout
                port = int(holder.stdout.readline())
                assert shut_connections(holder.pid) == 1
                assert far.recv(1) == b""
                socket.create_connection(("127.0.0.1", port), 10).close()
            holder.communicate()
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ProcessLookupError):
        shut_connections(holder.pid)


def test_a_link_goes_down_and_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other flags of the interface stay as they are (struct ifreq)."""
    flags = {"eth0": 0x1043}
    asked = []

    def ioctl(_: object, request: int, data: bytes) -> int:
        name, value = network.IFREQ.unpack(data)
        text = name.rstrip(b"\0").decode()
        asked.append(request)
        if request == network.SIOCGIFFLAGS:
            assert isinstance(data, bytearray)
            data[:] = network.IFREQ.pack(name, flags[text])
        else:
            flags[text] = value
        return 0

    assert network.IFREQ.size == 40
    monkeypatch.setattr("fcntl.ioctl", ioctl)
    put_link("eth0", up=False)
    assert flags == {"eth0": 0x1042}
    put_link("eth0", up=True)
    assert flags == {"eth0": 0x1043}
    assert asked == [0x8913, 0x8914] * 2


def test_a_link_that_is_not_there() -> None:
    """The kernel says so."""
    with pytest.raises(OSError, match="No such device"):
        put_link("none0", up=True)
