"""The guest's first file system: module order and the archive that its own busybox reads."""

import subprocess
from pathlib import Path

import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.initramfs import load_order, newc
from ioflusher.lab.kernels import busybox, is_static


def test_load_order_puts_needs_first() -> None:
    """Each module comes after what it needs, once; built-in ones are left out; unknown ones are named."""
    dep = "kernel/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\nkernel/c.ko.xz: kernel/d.ko.xz\nkernel/d.ko.xz:\n"
    order = load_order(dep, "kernel/virtio.ko\n", ["virtio", "a_b", "c"])
    assert order == ["kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/a-b.ko.xz"]
    with pytest.raises(LabError, match="no module xyz"):
        load_order(dep, "", ["xyz"])


@pytest.mark.live
def test_busybox_reads_the_archive_back(tmp_path: Path) -> None:
    """cpio, as the guest's own busybox has it, finds the names, modes and contents that went in."""
    entries = [("dir", 0o040755, b""), ("dir/file", 0o100600, b"content"), ("odd", 0o100755, b"12345")]
    program = str(busybox())
    subprocess.run(
        [program, "cpio", "-idm"],
        input=newc(entries),
        cwd=tmp_path,
        timeout=30,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "dir/file").read_bytes() == b"content"
    assert (tmp_path / "odd").stat().st_mode == 0o100755
    assert is_static(Path(program).read_bytes())
