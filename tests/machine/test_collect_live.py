"""collect() on this machine."""

import os
import socket
from pathlib import Path

import pytest

from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.collect import collect
from ioflusher.machine.process import FileKind
from ioflusher.machine.services import Family

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
    assert own.threads[0].tid == os.getpid()
    uses = {use.path: use for use in own.files or ()}
    assert uses[log.name].kind is FileKind.LOG
    assert uses[own.exe].kind is FileKind.EXECUTABLE
    pairs = [{end.inode for end in c.ends} for c in snapshot.connections if c.family is Family.UNIX]
    assert inodes in pairs
