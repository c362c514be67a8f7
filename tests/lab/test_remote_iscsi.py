"""The iSCSI target outside a guest: it serves an ordinary user, and its connections fail when told."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.lab import remote_iscsi
from ioflusher.lab.errors import LabError
from ioflusher.lab.messages import FaultBegan, FaultEnded
from ioflusher.lab.relay import Relay
from ioflusher.lab.remote import RemoteStore
from ioflusher.lab.remote_iscsi import IscsiRemote, iscsi_remote
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import FaultTable

SCENARIO = find_scenario("swap-on-nbd")


@contextmanager
def echo() -> Iterator[int]:
    """A server that says what it is told; its port."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepter = threading.Thread(target=accept, daemon=True)
        accepter.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepter.join()


def dial(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.settimeout(10)
    return connection


def test_the_relay_passes_everything_on() -> None:
    """Both directions, many bytes, several connections; the end of one side is the end of the other."""
    with echo() as port, Relay(("127.0.0.1", port)) as relay:
        for _ in range(3):
            with dial(relay.port) as near:
                sent = bytes(range(256)) * 4096
                threading.Thread(target=near.sendall, args=(sent,), daemon=True).start()
                got = bytearray()
                while len(got) < len(sent):
                    got += near.recv(65536)
                assert got == sent
        with dial(relay.port) as near:
            near.shutdown(socket.SHUT_WR)
            assert near.recv(1) == b""


def test_a_relay_without_its_target_closes() -> None:
    """Whoever connects sees the end at once."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Relay(("127.0.0.1", port)) as relay, dial(relay.port) as near:
        assert near.recv(1) == b""


def test_faults_reach_the_target_outside() -> None:
    """Slow, silent and cut, as the guest announces them, each of its table and each ended again."""
    faults = (
        FaultTable("remote-silent", 1, for_s=1),
        FaultTable("remote-cut", 1, for_s=1),
        FaultTable("remote-slow", 1, for_s=1, delay_ms=200),
        FaultTable("remote-cut", 1),
    )
    with echo() as port, Relay(("127.0.0.1", port)) as relay:
        store = RemoteStore(replace(SCENARIO, fault=faults), IscsiRemote(relay), "")
        near = dial(relay.port)
        store.heed(FaultBegan(fault=0, kind="remote-silent"))
        near.sendall(b"a")
        near.settimeout(0.3)
        with pytest.raises(TimeoutError):
            near.recv(1)
        near.settimeout(10)
        store.heed(FaultEnded(fault=0, kind="remote-silent"))
        assert near.recv(1) == b"a"

        store.heed(FaultBegan(fault=2, kind="remote-slow"))
        began = time.monotonic()
        near.sendall(b"b")
        assert near.recv(1) == b"b"
        assert time.monotonic() - began >= 0.4, "there and back"
        store.heed(FaultEnded(fault=2, kind="remote-slow"))

        store.heed(FaultBegan(fault=1, kind="remote-cut"))
        assert near.recv(1) == b""
        near.close()
        with dial(relay.port) as refused:
            assert refused.recv(1) == b""
        store.heed(FaultEnded(fault=1, kind="remote-cut"))
        with dial(relay.port) as again:
            again.sendall(b"c")
            assert again.recv(1) == b"c"
            store.heed(FaultBegan(fault=3, kind="remote-cut"))
            assert again.recv(1) == b""
        with dial(relay.port) as soon:
            soon.sendall(b"d")
            assert soon.recv(1) == b"d", "a cut that does not last refuses nobody"


@pytest.mark.needs("tgtd")
def test_the_target_has_one_unit_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers a login as RFC 7143 says; in the end its port is closed and its files are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with iscsi_remote(1 << 20) as target:
        (directory,) = tmp_path.iterdir()
        assert (directory / "unit").stat().st_size == 1 << 20
        with dial(target.port) as near:
            near.sendall(login(remote_iscsi.TARGET))
            header = b""
            while len(header) < 48:
                header += near.recv(48 - len(header))
            assert header[0] & 0x3F == 0x23, "a Login Response"
            assert header[36] == 0, "status class: success"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        dial(target.port)


def login(target: str) -> bytes:
    """A Login Request for full feature phase without negotiation (RFC 7143, section 11.12)."""
    keys = (
        f"InitiatorName=iqn.2026-01.test:i\0TargetName={target}\0SessionType=Normal\0AuthMethod=None\0"
    ).encode()
    header = bytearray(48)
    header[0] = 0x43  # immediate, Login
    header[1] = 0x87  # transit, operational negotiation to full feature phase
    header[1] = 0x80 | 1 << 2 | 3
    header[5:8] = len(keys).to_bytes(3, "big")
    header[8:14] = bytes((0x80, 0, 0, 1, 0, 0))
    return bytes(header) + keys + b"\0" * (-len(keys) % 4)


@pytest.mark.needs("tgtd")
def test_a_target_that_does_not_serve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it printed itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(remote_iscsi, "_free_port", lambda: taken.getsockname()[1])
        with (
            pytest.raises(LabError, match=r"(?s)outside, does not listen at port \d+:.*in use"),
            iscsi_remote(1 << 20),
        ):
            pass
    monkeypatch.setattr(remote_iscsi, "_free_port", lambda: "none")
    with pytest.raises(LabError, match=r"(?s)outside, (ended|does not listen)"), iscsi_remote(1 << 20):
        pass
