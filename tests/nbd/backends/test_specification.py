"""Back ends described in a line, and those of the user's own."""

import errno
from pathlib import Path

import pytest
from tests.nbd.backends.model import content

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend, BackendError, FailingBackend, MemoryBackend, open_backend
from ioflusher.nbd.backends.specification import KINDS

OWN = """
from ioflusher.nbd.backends import Backend, MemoryBackend

class Counting(Backend):
    def __init__(self, size: int = 4096, first: int = 0) -> None:
        self._size, self._first = size, first

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = bytes((self._first + offset + index) % 256 for index in range(len(view)))
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("memory:64K", 64 << 10),
        ("memory,give_back:64K", 64 << 10),
        ("concat:memory:4K + memory:8K", 12 << 10),
        ("part,offset=4K,size=8K:memory:64K", 8 << 10),
        ("part,offset=4K:concat:memory:4K + slow,read=0.5:memory:8K", 8 << 10),
        ("failing,error=ENOSPC,on=write:memory:4K", 4 << 10),
    ],
)
def test_what_a_text_describes(text: str, size: int) -> None:
    """Kinds with values and options, one on another."""
    with open_backend(text) as backend:
        assert backend.size == size


def test_options_reach_the_class() -> None:
    """Words, numbers and switches, as the class wants them."""
    with open_backend("failing,error=ENOSPC,rate=1,on=write:memory,give_back:4K") as backend:
        assert isinstance(backend, FailingBackend)
        assert backend.can_trim
        with pytest.raises(OSError, match="on purpose") as caught:
            backend.write(0, memoryview(b"x"))
        assert caught.value.errno == errno.ENOSPC
        assert content(backend, 0, 1) == b"\0"


def test_a_file(tmp_path: Path) -> None:
    """A path may have any character behind the first colon."""
    path = tmp_path / "a:b,c=d"
    path.write_bytes(b"hello")
    with open_backend(f"file,readonly:{path}") as backend:
        assert content(backend) == b"hello"
        assert not backend.can_write


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory", "is no back end; expected one of memory"),
        ("floppy:1M", "is no back end"),
        ("memory:1X", "not a size: '1X'"),
        ("memory,fast:1M", "'fast' is not one of its options; expected memory"),
        ("memory,give_back,give_back:1M", "'give_back' is there twice"),
        ("memory,give_back=1:1M", "give_back takes no value"),
        ("part,offset:memory:1M", "offset needs a value"),
        ("part,offset=x:memory:1M", "offset: not a size"),
        ("part:memory:1M", "missing a required argument: 'offset'"),
        ("part,offset=2M:memory:1M", "a part of -1048576 bytes"),
        ("slow,read=soon:memory:1M", "read: expected a number, found 'soon'"),
        ("slow,read=-1:memory:1M", "expected none below 0"),
        ("failing,error=OOPS:memory:1M", "no error 'OOPS'"),
        ("failing,error=EIO,rate=2:memory:1M", "expected a number from 0 to 1"),
        ("failing,on=reading:memory:1M", "no kind of request 'reading'"),
        ("concat:", "is no back end"),
        ("file:/nonexistent", "No such file or directory"),
        ("remote:http://x/", "no address of an NBD server"),
        ("nomodule:Class", "cannot load 'nomodule': ModuleNotFoundError"),
        ("python:/nonexistent.py", "cannot load '/nonexistent.py': FileNotFoundError"),
        ("python:ioflusher.nbd.backends:Extent", "has no class 'Extent' that is"),
        ("python:ioflusher.nbd.backends.trouble", "defines 3 classes"),
    ],
)
def test_what_describes_nothing(text: str, complaint: str) -> None:
    """A sentence that says what is wrong, and what is expected."""
    with pytest.raises(IoflusherError) as caught:
        open_backend(text)
    assert complaint in f"{caught.value} {caught.value.hint}"


def test_what_stands_below_is_closed_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays open of a description that fails at the end."""
    closed: list[int] = []
    monkeypatch.setattr(MemoryBackend, "close", lambda self: closed.append(self.size))
    with pytest.raises(BackendError):
        open_backend("concat:memory:4K + memory:8K + file:/nonexistent")
    with pytest.raises(BackendError):
        open_backend("part,offset=1G:memory:16K")
    assert closed == [4096, 8192, 16384]


def test_a_class_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path, by path and name, as a module that lies here; with options."""
    path = tmp_path / "own_disk.py"
    path.write_text(OWN)
    for text in (f"python:{path}", f"python:{path}:Counting"):
        with open_backend(text) as backend:
            assert (backend.size, content(backend, 1, 3)) == (4096, b"\1\2\3")
    with open_backend(f"python,size=8K,first=5:{path}") as backend:
        assert (backend.size, content(backend, 1, 3)) == (8192, b"\6\7\x08")
    monkeypatch.chdir(tmp_path)
    for text in ("own_disk:Counting", "python:own_disk:Counting", "slow,read=0:own_disk:Counting"):
        with open_backend(text) as backend:
            assert content(backend, 0, 2) == b"\0\1"


def test_errors_of_the_users_code(tmp_path: Path) -> None:
    """They are told as theirs."""
    path = tmp_path / "broken.py"
    path.write_text("def (")
    with pytest.raises(BackendError, match="SyntaxError"):
        open_backend(f"python:{path}")
    path.write_text(OWN + "\nclass Second(Counting): pass\n")
    with pytest.raises(BackendError, match="defines 2 classes") as caught:
        open_backend(f"python:{path}")
    assert "CLASS" in (caught.value.hint or "")


def test_every_kind_has_its_class() -> None:
    """The table names what exists."""
    for kind in KINDS.values():
        assert issubclass(kind.load(), Backend)
