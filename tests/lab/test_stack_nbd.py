"""When an nbd server is taken to be ready."""

import socket
from pathlib import Path

from ioflusher.lab.guest.network import listens_at


def test_a_socket_that_is_bound_but_not_listening_is_not_ready(tmp_path: Path) -> None:
    # a client that comes between bind and listen is refused, which a slow guest met
    path = str(tmp_path / "nbd.sock")
    assert not listens_at(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert not listens_at(path)
        server.listen()
        assert listens_at(path)
        assert not listens_at(path + "x")
    assert Path(path).is_socket()
    assert not listens_at(path)
