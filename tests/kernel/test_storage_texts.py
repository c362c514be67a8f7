"""Texts and answers of the kernel about storage: mountinfo, swaps, devices, dm tables, names of targets."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.kernel.devices import parse_block_majors
from ioflusher.kernel.dm import DM_BUFFER_FULL_FLAG, parse_table, table_request
from ioflusher.kernel.mountinfo import MountLine, parse_mount, unescape
from ioflusher.kernel.swaps import parse_swap
from ioflusher.kernel.target import parse_uio_name, wwid_suffix

NAMES = st.binary().map(lambda data: data.replace(b"\0", b"/"))


def escape(data: bytes, also: bytes = b"") -> bytes:
    """As fs/seq_file.c, mangle_path, writes a name: what would break the line is octal."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" + also else bytes((byte,)) for byte in data)


@settings(deadline=None)
@given(
    root=NAMES,
    point=NAMES,
    fstype=NAMES.filter(lambda name: name != b"-"),
    source=NAMES,
    optional=st.lists(st.sampled_from([b"shared:1", b"master:22", b"propagate_from:3", b"unbindable"])),
    options=st.lists(st.sampled_from([b"rw", b"ro", b"nosuid", b"errors=continue", b"addr=::1"]), min_size=1),
    numbers=st.tuples(*[st.integers(0, 1 << 31)] * 4),
)
def test_a_mount_comes_back_as_it_was(
    root: bytes,
    point: bytes,
    fstype: bytes,
    source: bytes,
    optional: list[bytes],
    options: list[bytes],
    numbers: tuple[int, int, int, int],
) -> None:
    """Whatever bytes a name, a source or a type holds, the line is read as the kernel meant it."""
    mount_id, parent, major, minor = numbers
    head = b"%d %d %d:%d" % (mount_id, parent, major, minor)
    words = [head, escape(root), escape(point), b"rw", *optional, b"-", escape(fstype), escape(source, b"#")]
    line = b" ".join([*words, b",".join(options)])
    assert parse_mount(line) == MountLine(
        mount_id, parent, f"{major}:{minor}", root, point, (b"rw",), fstype, source, tuple(options)
    )


@settings(deadline=None)
@given(line=st.binary() | st.text("0123456789:-/ \\rwext4", max_size=80).map(str.encode))
def test_a_line_that_is_no_mount_is_refused(line: bytes) -> None:
    """Any bytes give a record or ValueError, nothing else; a device number is always two numbers."""
    with suppress(ValueError):
        assert parse_mount(line).number.replace(":", "").isdecimal()


def test_a_source_may_be_empty_and_options_may_hold_spaces() -> None:
    """Two spaces in a row are an empty source; a space that was not escaped stays in its option."""
    found = parse_mount(b"36 35 0:50 / /mnt rw - tmpfs  rw,comment=a b,size=1k")
    assert (found.source, found.super_options) == (b"", (b"rw", b"comment=a b", b"size=1k"))


def test_unescape_takes_octal_numbers_only() -> None:
    """A backslash that begins no number of a byte stands for itself."""
    assert unescape(rb"a\040b\134\011\777\08 \x") == b"a b\\\t" + rb"\777\08 \x"


@pytest.mark.parametrize(
    ("line", "path", "is_file", "kib"),
    [
        (b"/dev/zram0                              partition\t16380\t\t12\t\t5", b"/dev/zram0", False, 16380),
        (b"/run/a\\040b                  file\t\t8180\t\t0\t\t-2", b"/run/a b", True, 8180),
        (b"/swap\\040(deleted)   file 10 5 -3", b"/swap (deleted)", True, 10),
    ],
)
def test_swaps(line: bytes, path: bytes, is_file: bool, kib: int) -> None:
    """Devices and files, with spaces in their names."""
    found = parse_swap(line)
    assert (found.path, found.is_file, found.size_kib) == (path, is_file, kib)


@settings(deadline=None)
@given(line=st.binary())
def test_a_line_that_is_no_swap_is_refused(line: bytes) -> None:
    """Any bytes give a record or ValueError, nothing else."""
    with suppress(ValueError):
        assert parse_swap(line).is_file in (True, False)


def test_block_majors() -> None:
    """Only what stands below the heading of block devices counts."""
    text = b"Character devices:\n  7 vcs\n\nBlock devices:\n  7 loop\n 43 nbd\n259 blkext\nx y\n"
    assert parse_block_majors(text) == {7: "loop", 43: "nbd", 259: "blkext"}
    assert parse_block_majors(b"") == {}


def table(*types: bytes, arguments: bytes = b"secret", flags: int = 0) -> bytearray:
    """An answer as drivers/md/dm-ioctl.c, retrieve_status, lays it out."""
    body = b""
    for name in types:
        size = 40 + -(-(len(arguments) + 1) // 8) * 8
        spec = struct.pack("=QQiI16s", 0, 8, 0, len(body) + size, name)
        body += (spec + arguments).ljust(size, b"\0")
    answer = table_request(253, 1, 312 + len(body))
    struct.pack_into("=II", answer, 16, 312, len(types))
    struct.pack_into("=I", answer, 28, flags)
    answer[312:] = body
    return answer


def test_table_request_names_the_device() -> None:
    """The device number is in the form that the kernel unfolds again (huge_decode_dev)."""
    (device,) = struct.unpack_from("=Q", table_request(253, 0x12345, 312), 40)
    assert (device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00) == (253, 0x12345)


def test_tables() -> None:
    """Types in order; an answer that did not fit is told apart from an empty table."""
    assert parse_table(table(b"linear", b"crypt")) == ("linear", "crypt")
    assert parse_table(table()) == ()
    assert parse_table(table(b"linear", flags=DM_BUFFER_FULL_FLAG)) is None


@settings(deadline=None)
@given(
    count=st.integers(0, (1 << 32) - 1),
    following=st.integers(0, (1 << 32) - 1),
    start=st.integers(0, 1 << 12),
)
def test_a_table_that_leads_astray_is_refused(count: int, following: int, start: int) -> None:
    """Offsets that lead back or out of the answer give ValueError, never a loop."""
    answer = table(b"linear", b"linear")
    if start + 24 <= len(answer):
        struct.pack_into("=I", answer, start + 20, following)
    struct.pack_into("=II", answer, 16, start, count)  # the last, as a table at 0 lies in the header
    with suppress(ValueError):
        assert len(parse_table(answer) or ()) in (count, 0)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tcm-user/0/disk/qcow//a/b", ("0", "disk")),
        ("tcm-user/12/d", ("12", "d")),
        ("tcm-user/x/d/f", None),
        ("tcm-user/1", None),
        ("uio_pci_generic", None),
    ],
)
def test_uio_names(name: str, found: tuple[str, str] | None) -> None:
    """HBA and device of the target's own uio devices; nothing for others."""
    assert parse_uio_name(name) == found


@pytest.mark.parametrize(
    ("serial", "suffix"),
    [
        ("3b5c1a2e-0000-4000-8000-123456789abc", "3b5c1a2e00004000800012345"),  # seen in a guest
        ("beef", "beef000000000000000000000"),
        ("xyz", "0" * 25),
        ("", "0" * 25),  # seen in a guest
    ],
)
def test_names_of_lio_disks(serial: str, suffix: str) -> None:
    """The digits of the unit serial that come at the end of the disk's world-wide name."""
    assert wwid_suffix(f"T10 VPD Unit Serial Number: {serial}\n") == suffix
    assert wwid_suffix(serial) is None
