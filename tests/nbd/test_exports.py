"""The data of options and their replies: golden bytes, round trips, and what is malformed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.protocol import exports
from ioflusher.nbd.protocol.exports import (
    BlockSize,
    CanonicalName,
    Description,
    Export,
    ExportFacts,
    ExportQuery,
    ListedExport,
    MalformedData,
)
from ioflusher.nbd.protocol.wire import Info

EXPORT = Export("disk", 1 << 20, 0x6D, BlockSize(512, 4096, 32 << 20))

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def test_golden_query() -> None:
    """NBD_OPT_GO's data is name length, name, number of types, types."""
    query = ExportQuery("\N{SNOWMAN}x", (3, 1))
    data = bytes.fromhex("00000004e2988378000200030001")
    assert query.pack() == data
    assert ExportQuery.parse(data) == query


def test_golden_information() -> None:
    """NBD_INFO_EXPORT and NBD_INFO_BLOCK_SIZE, both directions."""
    about_export = bytes.fromhex("00000000000000100000006d")
    about_blocks = bytes.fromhex("0003000002000000100002000000")
    assert exports.pack_export_info(EXPORT.size, EXPORT.flags) == about_export
    assert exports.pack_block_size_info(EXPORT.block_size) == about_blocks
    assert exports.parse_info(about_export) == ExportFacts(1 << 20, 0x6D)
    assert exports.parse_info(about_blocks) == EXPORT.block_size


def test_other_information_is_passed_over() -> None:
    """A type that does not exist yet is no error."""
    assert exports.parse_info(bytes.fromhex("7777")) is None


def test_golden_texts() -> None:
    """NBD_INFO_NAME and NBD_INFO_DESCRIPTION, both directions."""
    assert exports.pack_text_info(Info.NAME, "disk") == bytes.fromhex("0001") + b"disk"
    assert exports.parse_info(bytes.fromhex("0001") + b"disk") == CanonicalName("disk")
    assert exports.parse_info(bytes.fromhex("0002") + b"a disk") == Description("a disk")


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        (ListedExport("disk"), bytes.fromhex("00000004") + b"disk"),
        (ListedExport("", "a disk"), bytes.fromhex("00000000") + b"a disk"),
    ],
)
def test_golden_server_entry(entry: ListedExport, data: bytes) -> None:
    """NBD_REP_SERVER's data is name length, name, and a description that may be missing."""
    assert entry.pack() == data
    assert ListedExport.parse(data) == entry


@given(NAMES, st.lists(st.integers(0, 0xFFFF), max_size=20))
def test_queries_survive_the_wire(name: str, infos: list[int]) -> None:
    """Every query reads back as itself."""
    query = ExportQuery(name, tuple(infos))
    assert ExportQuery.parse(query.pack()) == query


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes.fromhex("000000"),
        bytes.fromhex("00000005") + b"disk",  # name longer than the data
        bytes.fromhex("ffffffff") + b"disk",
        bytes.fromhex("00000004") + b"disk",  # no number of types
        bytes.fromhex("00000004") + b"disk" + bytes.fromhex("0001"),  # one type announced, none there
        bytes.fromhex("00000004") + b"disk" + bytes.fromhex("00000003"),  # one more than announced
        bytes.fromhex("00000004") + b"disk" + bytes.fromhex("000100"),
        bytes.fromhex("00000002") + b"\xff\xfe" + bytes.fromhex("0000"),  # not UTF-8
        bytes.fromhex("00000002") + b"a\0" + bytes.fromhex("0000"),
        bytes.fromhex("00001001") + b"a" * 4097 + bytes.fromhex("0000"),  # above the limit for strings
    ],
)
def test_malformed_queries(data: bytes) -> None:
    """Lengths that disagree and names that are no strings are refused as malformed."""
    with pytest.raises(MalformedData):
        ExportQuery.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytes.fromhex("000000"),
        bytes.fromhex("0001ff"),  # a name that is not UTF-8
        bytes.fromhex("000200"),  # a description with a NUL
        bytes.fromhex("00030000020000001000"),
        bytes.fromhex("0003000000000000100002000000"),  # minimum 0
        bytes.fromhex("0003000003000000100002000000"),  # not a power of two
        bytes.fromhex("0003000010000000020002000000"),  # preferred below the minimum
        bytes.fromhex("0003000010000000100000000200"),  # maximum below the minimum
    ],
)
def test_malformed_information(data: bytes) -> None:
    """Information of a wrong length or with impossible sizes is refused as malformed."""
    with pytest.raises(MalformedData):
        exports.parse_info(data)


@given(st.binary(max_size=64))
def test_fuzz(data: bytes) -> None:
    """Invariant: any bytes parse to a value or raise MalformedData, nothing else."""
    for parse in (ExportQuery.parse, exports.parse_info, exports.parse_string, ListedExport.parse):
        with contextlib.suppress(MalformedData):
            parse(data)
