"""The guest's first file system: module order and the archive that its own busybox reads."""

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from ioflusher.lab.busybox import busybox, is_static
from ioflusher.lab.errors import LabError
from ioflusher.lab.initramfs import load_order, module_content, newc
from tests.needs import need


def test_load_order_puts_needs_first() -> None:
    """Each module comes after what it needs, once; built-in ones are left out; unknown ones are named."""
    dep = "kernel/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\nkernel/c.ko.xz: kernel/d.ko.xz\nkernel/d.ko.xz:\n"
    order = load_order(dep, "kernel/virtio.ko\n", ["virtio", "a_b", "c"])
    assert order == ["kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/a-b.ko.xz"]
    with pytest.raises(LabError, match="no module xyz"):
        load_order(dep, "", ["xyz"])


def test_modules_are_unpacked(tmp_path: Path) -> None:
    """busybox loads plain modules alone: each kind of compression that a distribution uses is undone."""
    content = b"\x7fELF" + bytes(1000)
    plain = tmp_path / "a.ko"
    plain.write_bytes(content)
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(content))
    (tmp_path / "a.ko.gz").write_bytes(gzip.compress(content))
    for name in ("a.ko", "a.ko.xz", "a.ko.gz"):
        assert module_content(tmp_path / name) == content
    (tmp_path / "a.ko.lz4").write_bytes(content)
    with pytest.raises(LabError, match=r"not supported: a\.ko\.lz4"):
        module_content(tmp_path / "a.ko.lz4")
    subprocess.run([need("zstd"), "-q", str(plain)], timeout=30, check=True)
    assert module_content(tmp_path / "a.ko.zst") == content


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
