"""The server as a service: limits, logs, statistics, systemd; clients that are slow, silent or gone."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.nbd import test_cli as command_line
from tests.nbd.test_judges import run

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.client import Client, describe
from ioflusher.nbd.errors import ConnectionLost, NbdError
from ioflusher.nbd.server import Server
from ioflusher.nbd.server.log import WAITING_LINES, BackgroundHandler, JsonForm, TextForm, event
from ioflusher.nbd.server.metrics import serve_metrics
from ioflusher.nbd.server.systemd import Notifier, inherited_listeners
from ioflusher.support.text import printable

pytestmark = pytest.mark.live

SIZE = 1 << 20
DEADLINE = 30.0  # seconds
ROOM = memoryview(bytearray(4096))


def silent(address: Address) -> socket.socket:
    """A client that connects and says nothing."""
    sock = socket.create_connection((address.host, address.port), timeout=DEADLINE)
    assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
    return sock


def test_silent_clients_keep_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    """Of a full house the oldest without an export goes; whoever has one stays, then others are refused."""
    caplog.set_level(logging.INFO, "ioflusher.nbd")
    with MemoryBackend(SIZE) as backend, Server(backend, max_connections=3) as server, ExitStack() as stack:
        address = server.listen_tcp()
        server.start()
        first = stack.enter_context(silent(address))
        client = stack.enter_context(Client(address))
        second = stack.enter_context(silent(address))
        others = [stack.enter_context(Client(address)) for _ in range(2)]
        assert first.recv(1) == b""
        assert second.recv(1) == b""
        for each in (client, *others):
            each.read_into(0, ROOM)
        with pytest.raises(ConnectionLost):
            Client(address)
        now = server.statistics()
        assert (now.accepted, now.refused, now.handshakes, now.connections[""]) == (6, 1, 0, 3)
        wait_for_the_end_of(2, caplog)
    assert [each.get("why") for each in records(caplog)].count("a newcomer has its place") == 2


def test_idle_clients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that sends nothing for so long is cut off, as the log says; one that works is not."""
    caplog.set_level(logging.INFO, "ioflusher.nbd")
    with MemoryBackend(SIZE) as backend, Server(backend, idle_timeout=0.4) as server:
        address = server.listen_unix(str(tmp_path / "s"))
        server.start()
        with Client(address) as idle, Client(address) as busy:
            for _ in range(8):
                time.sleep(0.1)
                busy.read_into(0, ROOM)
            with pytest.raises(ConnectionLost):
                idle.read_into(0, ROOM)
            busy.read_into(0, ROOM)
            wait_for_the_end_of(1, caplog)
            assert records(caplog)[-1]["why"] == "it sent nothing for 0.4 s"


def test_a_client_that_reads_no_answers(server: Server) -> None:
    """It fills its socket and holds up nobody; nor the end of the server."""
    address = server.listen_tcp()
    with Client(address) as stuck, Client(address) as other:
        request = bytes.fromhex("25609513 0000 0000 0000000000000001 0000000000000000 00010000")
        stuck._sock.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                stuck._sock.sendall(request * 1000)
        begin = time.monotonic()
        for _ in range(100):
            other.read_into(0, ROOM)
        assert time.monotonic() - begin < 5
        server.close()
        assert time.monotonic() - begin < 10
        stuck._lost = "enough"


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [{"event": each.getMessage(), **getattr(each, "facts", {})} for each in caplog.records]


def wait_for_the_end_of(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Until so many connections have ended, and it is logged."""
    deadline = time.monotonic() + DEADLINE
    while [each["event"] for each in records(caplog)].count("connection ended") < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A connection's begin, its export, its end with the reason and what was done; nothing of requests."""
    address = server.listen_tcp()
    with caplog.at_level(logging.INFO, "ioflusher.nbd"):
        with Client(address) as client:
            for _ in range(50):
                client.read_into(0, ROOM)
        wait_for_the_end_of(1, caplog)
        with silent(address) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                sock.recv(1)
        wait_for_the_end_of(2, caplog)
    logged = records(caplog)
    assert [each["event"] for each in logged] == [
        *("connection accepted", "export entered", "connection ended"),
        *("connection accepted", "connection ended"),
    ]
    assert (logged[1]["number"], logged[1]["export"]) == (1, "disk")
    assert (logged[2]["why"], logged[2]["reads"]) == ("the client closed it", 50)
    assert str(logged[0]["client"]).startswith("127.0.0.1:")
    assert "client flags 0x47455420" in str(logged[4]["why"])


def record(**facts: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, "", 0, "it happened", None, None)
    made.created, made.msecs, made.facts = 1e9, 250.0, facts
    return made


def test_forms_of_a_line() -> None:
    """Whatever a client wrote stays inside its line and its field."""
    odd = 'a "b"\n2026 root logged in\x1b[31m\udcff'
    line = TextForm().format(record(export=odd, plain="disk", number=7, empty=""))
    assert line == (
        f'2001-09-09T01:46:40.250Z it happened export="{printable(odd)}" plain=disk number=7 empty=""'
    ).replace('a "b"', 'a \\"b\\"')
    assert line.isprintable()
    document = json.loads(JsonForm().format(record(export=odd, number=7)))
    assert document == {
        "time": "2001-09-09T01:46:40.250Z",
        "level": "info",
        "event": "it happened",
        "export": printable(odd),
        "number": 7,
    }


def test_a_log_that_nobody_reads() -> None:
    """Lines are dropped and counted; whoever logs never waits, and the end comes all the same."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    handler = BackgroundHandler(writing)
    handler.setFormatter(TextForm())
    logger = logging.Logger("full", logging.INFO)
    logger.addHandler(handler)
    begin = time.monotonic()
    for _ in range(2000):
        event(logger, logging.INFO, "x" * 1000)
    assert time.monotonic() - begin < 2
    seen = b""
    # 256 wait, and a pipe of 64 KiB holds 64 more; when the writer began decides which line tells how many
    while sum(map(int, re.findall(rb"(\d+) lines were dropped", seen))) < 2000 - WAITING_LINES - 70:
        try:
            seen += os.read(reading, 1 << 16)
        except BlockingIOError:
            event(logger, logging.INFO, "one more")
            time.sleep(0.01)
        assert time.monotonic() - begin < DEADLINE
    handler.close()
    os.close(reading)
    os.close(writing)


def test_the_running_service(tmp_path: Path) -> None:
    """JSON lines, statistics on SIGUSR1, a file with the process number, all gone at the end."""
    pidfile, log = tmp_path / "pid", tmp_path / "log"
    options = ["--log", "json", "--pidfile", str(pidfile), "--unix", str(tmp_path / "s"), "a=memory:1M"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command_line.PROGRAM, "serve", "--no-io-flusher", *options],
            stdout=subprocess.PIPE,
            stderr=sink,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening on ")
            assert pidfile.read_text() == f"{process.pid}\n"
            with Client(Address(path=str(tmp_path / "s"))) as client:
                client.read_into(0, ROOM)
                process.send_signal(signal.SIGUSR1)
                deadline = time.monotonic() + DEADLINE
                while b"statistics of an export" not in log.read_bytes():
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            process.terminate()
            assert process.wait(DEADLINE) == 0
    assert not pidfile.exists()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (about,) = [line for line in lines if line["event"] == "statistics of an export"]
    assert (about["export"], about["connections"], about["reads"]) == ("a", 1, 1)
    assert [line["event"] for line in lines][:2] == ["connection accepted", "export entered"]
    assert lines[0]["client"] == f"pid {os.getpid()} uid {os.getuid()}"


def test_a_heap_and_a_reserve(tmp_path: Path) -> None:
    """The reserve is locked, also where nothing else is; the heap has one more of so many bytes touched."""

    def memory(*options: str) -> tuple[int, int]:
        with command_line.serving(*options, "--memory", "1M", "--unix", str(tmp_path / "s")) as (process, _):
            status = Path(f"/proc/{process.pid}/status").read_text()
            process.terminate()
            assert process.wait(DEADLINE) == 0
        found = dict(line.split(":\t", 1) for line in status.splitlines())
        return int(found["VmLck"].split()[0]), int(found["RssAnon"].split()[0])

    locked, resident = memory()
    assert locked == 0
    more_locked, more_resident = memory("--heap", "32M", "--reserve", "2M")
    assert more_locked == 2048
    assert 32 << 10 <= more_resident - resident <= 40 << 10


@pytest.mark.parametrize("backend", ["memory:1M", "slow:memory:1M"])
def test_buffers_beforehand_or_not(backend: str) -> None:
    """A connection's are there when it begins, those of all its workers; with --no-prefault none is."""

    def brought(*options: str) -> int:
        """KiB of memory that a first connection brings, with one READ."""
        arguments = ["--backend", backend, "--max-payload", "2M", "--tcp", "127.0.0.1:0", *options]
        with command_line.serving(*arguments) as (process, address):
            status = Path(f"/proc/{process.pid}/status")

            def resident() -> int:
                return int(status.read_text().split("RssAnon:")[1].split()[0])

            describe(address)  # which loads what is needed once
            before = resident()
            with Client(address) as client:
                client.read_into(0, ROOM)
                return resident() - before

    buffers = 16 << 10 if backend.startswith("slow") else 2 << 10
    assert buffers <= brought() < buffers + 1024
    assert brought("--no-prefault") < 1024


def test_a_pidfile_of_another_stays(tmp_path: Path) -> None:
    """What a server that took our place has written is not removed."""
    pidfile = tmp_path / "pid"
    options = ["--pidfile", str(pidfile), "--unix", str(tmp_path / "s"), "--memory", "1M"]
    with command_line.serving(*options) as (process, _):
        pidfile.write_text("1\n")
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert pidfile.read_text() == "1\n"


def test_metrics(server: Server) -> None:
    """Counts by export and command, as Prometheus reads them."""
    server.add_export("second", MemoryBackend(SIZE))
    port, end = serve_metrics(server.statistics, "127.0.0.1", 0)
    try:
        with Client(server.listen_tcp()) as client:
            client.write(0, ROOM)
            client.read_into(0, ROOM[:100])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
                text = answer.read().decode()
    finally:
        end()
    for line in (
        'ioflusher_nbd_connections{export="disk"} 1.0',
        'ioflusher_nbd_connections{export="second"} 0.0',
        'ioflusher_nbd_requests_total{command="reads",export="disk"} 1.0',
        'ioflusher_nbd_bytes_total{direction="written",export="disk"} 4096.0',
        'ioflusher_nbd_bytes_total{direction="read",export="disk"} 100.0',
        "ioflusher_nbd_clients_total 1.0",
    ):
        assert line in text.splitlines()
    with pytest.raises(NbdError, match="cannot serve metrics"):
        serve_metrics(server.statistics, "192.0.2.1", 1)


def test_metrics_on_the_command_line(tmp_path: Path) -> None:
    """--metrics serves them beside the devices."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--metrics", f"127.0.0.1:{port}", "--unix", str(tmp_path / "s"), "--memory", "1M"]
    url = f"http://127.0.0.1:{port}/metrics"
    with command_line.serving(*options), urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        assert b"ioflusher_nbd_clients_total 0.0" in answer.read()


@pytest.mark.needs("nbdinfo")
def test_libnbd_starts_the_server(tmp_path: Path) -> None:
    """Socket activation by nbdinfo: the server gets a listening socket and needs no address."""
    serve = [*command_line.PROGRAM, "serve", "--no-io-flusher", "--memory", "3M"]
    assert run("nbdinfo", "--size", "--", "[", *serve, "]") == f"{3 << 20}\n"


def test_listeners_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors for another process are left alone; those that do not listen are refused."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_listeners() == []
    ended = subprocess.run(
        [*command_line.PROGRAM, "serve", "--no-io-flusher", "--memory", "1M"],
        env={**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (ended.returncode, "not for this process" in ended.stderr) == (2, True)
    code = (
        "import os, socket, sys; a, b = socket.socketpair(); os.dup2(a.fileno(), 3);"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())};"
        "from ioflusher.nbd.server.systemd import inherited_listeners; inherited_listeners()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert "NbdError: file descriptor 3 of LISTEN_FDS is no socket that listens" in ended.stderr


def test_what_the_service_manager_hears(tmp_path: Path) -> None:
    """Ready, signs of life at half of the time that it asked for, and the end."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(DEADLINE)
        command = [*command_line.PROGRAM, "serve", "--no-io-flusher", "--memory", "1M"]
        process = subprocess.Popen(
            [*command, "--unix", str(tmp_path / "s")],
            env={**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"},
            stdout=subprocess.DEVNULL,
        )
        with process:
            assert manager.recv(100) == b"READY=1"
            begin = time.monotonic()
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert 0.15 < time.monotonic() - begin < 5
            assert describe(Address(path=str(tmp_path / "s"))).size == SIZE
            process.terminate()
            heard = set()
            while b"STOPPING=1" not in heard:
                heard.add(manager.recv(100))
            assert process.wait(DEADLINE) == 0


def test_no_service_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without one nothing is said, and one that is gone holds up nobody."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for socket_path in ("", str(tmp_path / "gone")):
        monkeypatch.setenv("NOTIFY_SOCKET", socket_path)
        notifier = Notifier()
        notifier.tell("READY=1")
        assert notifier.interval is None
        notifier.close()
