"""Disks of a guest: what people write becomes a typed request, and each request a file that goes away."""

import os
from pathlib import Path

import pytest

from ioflusher.lab.disks import EmptyDisk, ImageDisk, guest_disks, parse_disk
from ioflusher.lab.errors import LabError


def test_a_size_is_a_size_whatever_files_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called 1048576 in the current directory does not become the disk; ./1048576 does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1048576").write_bytes(b"mine")
    (tmp_path / "64M").write_bytes(b"mine")
    assert parse_disk("1048576") == EmptyDisk(1 << 20)
    assert parse_disk("64M") == EmptyDisk(64 << 20)
    assert parse_disk("./64M") == ImageDisk(Path("./64M"))
    assert parse_disk(str(tmp_path / "1048576")) == ImageDisk(tmp_path / "1048576")


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    """The message has what was given, the hint what can be given."""
    with pytest.raises(LabError, match=r"not a disk: 'nowhere\.img'") as caught:
        parse_disk("nowhere.img")
    assert "512M" in (caught.value.hint or "")


def test_requests_become_disks_in_their_order(tmp_path: Path) -> None:
    """Empty disks have their size and go away with the block; an image is the file itself, and stays."""
    image = tmp_path / "image"
    image.write_bytes(b"content")
    with guest_disks([EmptyDisk(1 << 20, "store"), ImageDisk(image), EmptyDisk(512)]) as disks:
        store, given, small = disks
        assert os.path.getsize(store.location) == 1 << 20
        assert os.stat(store.location).st_blocks == 0, "sparse"
        assert (store.name, given.name, small.name) == ("store", "", "")
        assert given.location == str(image)
        assert os.path.getsize(small.location) == 512
        assert not any(disk.readonly for disk in disks)
    assert not os.path.exists(store.location)
    assert image.read_bytes() == b"content"
