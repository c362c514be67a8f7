"""What the lab looks at before it boots anything."""

import tempfile
from pathlib import Path

import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.session import SUN_PATH_BYTES, check_socket_paths
from ioflusher.lab.vm import CONTROL_SOCKET, DIRECTORY_PREFIX


def test_a_directory_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest name that fits is taken, one byte more is refused with the directory and what to do."""
    behind = len(f"/{DIRECTORY_PREFIX}12345678/{CONTROL_SOCKET}")
    fits = "/" + "d" * (SUN_PATH_BYTES - 1 - behind - 1)
    monkeypatch.setattr(tempfile, "tempdir", fits)
    check_socket_paths()
    monkeypatch.setattr(tempfile, "tempdir", fits + "d")
    with pytest.raises(LabError, match=f"too long a name for sockets: {fits}d") as caught:
        check_socket_paths()
    assert caught.value.hint == "set TMPDIR to a shorter one"


def test_the_limit_is_the_systems(tmp_path: Path) -> None:
    """A socket with a name of 107 bytes can be bound, one of 108 cannot."""
    import socket

    for length, fits in ((SUN_PATH_BYTES - 1, True), (SUN_PATH_BYTES, False)):
        with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as sock:
            name = f"{directory}/".ljust(length, "s")
            if fits:
                sock.bind(name)
            else:
                with pytest.raises(OSError, match="too long"):
                    sock.bind(name)
