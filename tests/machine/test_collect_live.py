"""collect() on this machine."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.collect import sockets as collect_sockets
from ioflusher.machine.collect.machine import collect, collect_serving
from ioflusher.machine.endpoints import Family
from ioflusher.machine.process import FileKind

pytestmark = pytest.mark.live


def test_this_process(tmp_path: Path) -> None:
    """Its threads, files and connections are as the process itself knows them."""
    near, far = socket.socketpair()
    with near, far, (tmp_path / "a log").open("ab") as log:
        snapshot = collect(extra_pids=frozenset({os.getpid()}))
        inodes = {os.fstat(near.fileno()).st_ino, os.fstat(far.fileno()).st_ino}
    assert load_snapshot(dump_snapshot(snapshot)) == snapshot
    (own,) = (process for process in snapshot.processes if process.pid == os.getpid())
    assert own.exe == os.readlink("/proc/self/exe")
    assert own.uid == os.geteuid()
    assert own.arguments is None
    # they come by number, and numbers begin again at the bottom: the main thread may stand anywhere
    assert os.getpid() in {thread.tid for thread in own.threads}
    uses = {(use.path, use.kind) for use in own.files or ()}
    assert {(log.name, FileKind.LOG), (own.exe, FileKind.EXECUTABLE)} <= uses
    pairs = [{end.inode for end in c.ends} for c in snapshot.connections if c.family is Family.UNIX]
    assert inodes in pairs


def test_processes_that_come_and_go() -> None:
    """While programs start and end all the time, snapshots are made and nothing is noted of those."""
    loop = subprocess.Popen(["sh", "-c", "while :; do /bin/true & /bin/true; done"])
    try:
        for _ in range(3):
            snapshot = collect()
            assert any(process.pid == loop.pid for process in snapshot.processes)
            assert not [item for item in snapshot.unreadable if "No such" in item.why]
    finally:
        loop.kill()
        loop.wait(timeout=30)


def test_peers_of_unix_sockets(tmp_path: Path) -> None:
    """A path of any bytes, an abstract name, a datagram socket that is named from one side alone."""
    path = os.fsencode(tmp_path) + b"/a\xff\n.sock"
    with (
        socket.socket(socket.AF_UNIX) as by_path,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as third,
    ):
        for server, name in ((by_path, path), (abstract, b"\0ioflusher %d" % os.getpid())):
            server.bind(name)
            server.listen()
        log.bind(str(tmp_path / "log"))
        accepted = []
        for client, server in ((first, by_path), (second, abstract)):
            client.connect(server.getsockname())
            accepted.append(server.accept()[0])
        third.connect(log.getsockname())
        snapshot = collect(extra_pids=frozenset({os.getpid()}))
        inodes = [os.fstat(s.fileno()).st_ino for s in (first, second, third)]
        for end in accepted:
            end.close()
    names = {
        near.inode: far.address
        for connection in snapshot.connections
        for near, far in (connection.ends, connection.ends[::-1])
    }
    assert [names[inode] for inode in inodes] == [
        path.decode("utf-8", "backslashreplace"),
        f"@ioflusher {os.getpid()}",
        str(tmp_path / "log"),
    ]


@pytest.mark.needs("root")  # only root can become somebody else
def test_unprivileged() -> None:
    """Another user gets a snapshot too; what it could not read is said once a kind."""
    # loaded first: this installation may lie where only root may read
    code = (
        "import os, sys; from ioflusher.machine.serving.infer import services;"
        "from ioflusher.machine.collect.machine import collect; services(collect());"
        "from ioflusher.machine.codec import dump_snapshot;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.stdout.buffer.write(dump_snapshot(collect()))"
    )
    with subprocess.Popen(["sleep", "300"]) as sleeper:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        sleeper.kill()
    assert done.returncode == 0, done.stderr
    snapshot = load_snapshot(done.stdout)
    assert not snapshot.system.privileged
    other = next(process for process in snapshot.processes if process.pid == sleeper.pid)
    assert (other.comm, other.uid, other.exe) == ("sleep", 0, None)
    denied = [item.what for item in snapshot.unreadable if item.why == "Permission denied"]
    assert any(what.startswith("/proc/PID/fd of ") for what in denied)
    assert len(denied) == len(set(denied))
    assert len(snapshot.unreadable) < 20


def test_without_sock_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel or a container refuses it, sockets come from /proc and the lack of peers is said."""

    def refuse(seconds: float) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(collect_sockets, "unix_sockets", refuse)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0ioflusher without {os.getpid()}")
        server.listen()
        snapshot = collect(extra_pids=frozenset({os.getpid()}))
    said = {item.what: item.why for item in snapshot.unreadable}
    assert said["Unix sockets by sock_diag"] == "Operation not permitted"
    assert "peers of Unix sockets" in said
    assert f"@ioflusher without {os.getpid()}" in {item.end.address for item in snapshot.listeners}


def test_who_listens_is_looked_at_where_that_is_asked_for(tmp_path: Path) -> None:
    """It serves nothing, and could."""
    with socket.socket(socket.AF_UNIX) as server, (tmp_path / "store").open("w+b"):
        server.bind(str(tmp_path / "socket"))
        server.listen()
        snapshot = collect_serving(listeners=True).snapshot
        (own,) = (process for process in snapshot.processes if process.pid == os.getpid())
        assert (str(tmp_path / "store"), FileKind.WRITTEN) in {
            (file.path, file.kind) for file in own.files or ()
        }
        (own,) = (process for process in collect().processes if process.pid == os.getpid())
        assert own.files is None
