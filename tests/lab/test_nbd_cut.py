"""The connection of an nbd device that is cut and made anew; the kernel's part is played by a socket pair."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ioflusher.lab.guest.processes import Processes
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.stacks import nbd, nbd_cut
from ioflusher.nbd.address import Address, parse_uri
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

ADDRESS = parse_uri("nbd://127.0.0.1:10809")
TEXT = builtin_scenarios()["ext4-on-nbd-throttled"]
SCENARIO = parse_scenario(TEXT)
CUT = parse_scenario(f'{TEXT}\n[[fault]]\nkind = "connection-cut"\nat_s = 1\nfor_s = 2\n')


class Server:
    """Takes connections, unless it is told to refuse; `ends` are those of the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[socket.socket] = []
        self.refuse = 0
        self.asked = threading.Semaphore(0)
        self.meanwhile: Callable[[], None] = lambda: None
        self.options = ClientOptions()
        monkeypatch.setattr(nbd_cut, "connect", self.connect)
        monkeypatch.setattr(nbd_cut, "reconnect", self.reconnect)
        monkeypatch.setattr(nbd_cut, "RETRY_S", 0.001)

    def connect(
        self, device: str, address: Address, options: ClientOptions
    ) -> tuple[None, list[socket.socket]]:
        assert (device, address) == ("/dev/nbd0", ADDRESS)
        self.options = options
        return None, self.reconnect(device, address).sockets

    def reconnect(self, device: str, address: Address) -> Any:
        self.asked.release()
        if self.refuse:
            self.refuse -= 1
            raise NbdError("it is frozen")
        kernels, servers = socket.socketpair()
        servers.settimeout(30)
        self.meanwhile()
        self.ends.append(servers)
        return SimpleNamespace(sockets=[kernels])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, in place of one behind the kernel's driver."""
    server = Server(monkeypatch)
    yield server
    for end in server.ends:
        end.close()


def wait_for(count: int, server: Server) -> None:
    """Wait until so many attempts more were made."""
    for _ in range(count):
        assert server.asked.acquire(timeout=30)


def test_a_cut_ends_it_and_another_is_made_when_it_is_over(server: Server) -> None:
    """The server sees the end of the first one; it is asked until it takes another, and that one stays."""
    connection = nbd_cut.CuttableConnection("/dev/nbd0", ADDRESS)
    wait_for(1, server)
    assert (server.options.timeout, server.options.dead_connection_timeout) == (10, 3600)
    connection.cut()
    assert server.ends[0].recv(1) == b""
    connection.cut()  # it is gone already
    server.refuse = 2
    assert not server.asked.acquire(timeout=0.05), "none is made while the fault is in force"
    connection.restore()
    wait_for(3, server)
    while connection._wanted.is_set():
        time.sleep(0.001)
    _, second = server.ends
    second.setblocking(False)
    with pytest.raises(BlockingIOError):
        second.recv(1)
    connection.cut()
    second.settimeout(30)
    assert second.recv(1) == b"", "the new one can be cut, too"


def test_one_that_was_made_while_it_was_cut_again_is_ended(server: Server) -> None:
    """A connection that came too late is not left to the kernel."""
    connection = nbd_cut.CuttableConnection("/dev/nbd0", ADDRESS)
    wait_for(1, server)
    connection.cut()
    server.meanwhile = connection.cut
    connection.restore()
    wait_for(1, server)
    while len(server.ends) < 2:
        time.sleep(0.001)
    assert server.ends[1].recv(1) == b""


@pytest.mark.parametrize(("scenario", "way"), [(SCENARIO, "ioctl"), (CUT, "netlink")])
@pytest.mark.parametrize("kind", ["nbd", "nbd-tcp"])
def test_netlink_only_where_the_connection_is_cut(
    monkeypatch: pytest.MonkeyPatch, scenario: Any, way: str, kind: str
) -> None:
    """All other scenarios have the device as it always was."""
    ways: list[str] = []

    def note(found: str) -> tuple[None, list[socket.socket]]:
        ways.append(found)
        return None, []

    monkeypatch.setattr(nbd, "attach", lambda device, address: note("ioctl"))
    monkeypatch.setattr(nbd_cut, "connect", lambda device, address, options: note("netlink"))
    scenario = replace(scenario, device=replace(scenario.device, kind=kind))
    stack = (nbd.NbdStack if kind == "nbd" else nbd.NbdTcpStack)(PlayHalf(scenario, False, ""), Processes())
    stack._attach("nbd://127.0.0.1:10809")
    assert ways == [way]
