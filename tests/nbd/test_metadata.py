"""The data of the options about metadata contexts: golden bytes, round trips, what a query means."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.protocol import metadata
from ioflusher.nbd.protocol.exports import MalformedData
from ioflusher.nbd.protocol.extents import MetaContext
from ioflusher.nbd.protocol.metadata import MetaQuery

AVAILABLE = ("base:allocation", "x-ours:journal", "x-ours:age")
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)


def test_golden_query() -> None:
    """Length and name of the export, the number of queries, length and text of each."""
    query = MetaQuery("disk", ("base:", "x:y"))
    data = bytes.fromhex("00000004") + b"disk" + bytes.fromhex("0000000200000005") + b"base:"
    data += bytes.fromhex("00000003") + b"x:y"
    assert query.pack() == data
    assert MetaQuery.parse(data) == query


def test_golden_context() -> None:
    """A number and a name."""
    data = bytes.fromhex("00000007") + b"base:allocation"
    assert metadata.pack_context(MetaContext(7, "base:allocation")) == data
    assert metadata.parse_context(data) == MetaContext(7, "base:allocation")


@given(TEXTS, st.lists(TEXTS, max_size=9))
def test_queries_survive_the_wire(export: str, queries: list[str]) -> None:
    """Every query reads back as itself."""
    query = MetaQuery(export, tuple(queries))
    assert MetaQuery.parse(query.pack()) == query


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("", "expected a length"),
        ("00000000", "expected a number of queries"),
        ("00000000ffffffff", "4294967295 queries announced in 0 bytes"),
        ("000000000000000200000000", "2 queries announced in 4 bytes"),
        ("000000000000000100000002ff", "2 bytes announced, 1 found"),
        ("000000000000000100000001ff", "not UTF-8"),
        ("000000000000000000", "1 bytes behind the last query"),
    ],
)
def test_malformed_queries(data: str, complaint: str) -> None:
    """Numbers that disagree with what is there, before anything is allocated for them."""
    with pytest.raises(MalformedData, match=complaint):
        MetaQuery.parse(bytes.fromhex(data))


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\1\xff"])
def test_malformed_contexts(data: bytes) -> None:
    """Too short for a number, or a name that is none."""
    with pytest.raises(MalformedData):
        metadata.parse_context(data)


@pytest.mark.parametrize(
    ("queries", "listed", "selected"),
    [
        ((), AVAILABLE, ()),
        (("base:",), AVAILABLE[:1], ()),
        (("x-ours:",), AVAILABLE[1:], ()),
        (("base:allocation",), AVAILABLE[:1], ((1, "base:allocation"),)),
        (
            ("x-ours:age", "base:allocation", "base:allocation"),
            (AVAILABLE[0], AVAILABLE[2]),
            ((1, "base:allocation"), (3, "x-ours:age")),
        ),
        (("base:nothing", "qemu:dirty-bitmap:x", "allocation", "base", ":"), (), ()),
    ],
)
def test_what_queries_mean(
    queries: tuple[str, ...], listed: tuple[str, ...], selected: tuple[tuple[int, str], ...]
) -> None:
    """A namespace alone lists and selects nothing; what is unknown is passed over."""
    assert metadata.listed(queries, AVAILABLE) == listed
    assert metadata.selected(queries, AVAILABLE) == tuple(MetaContext(*each) for each in selected)


@given(st.binary(max_size=64))
def test_fuzz(data: bytes) -> None:
    """Invariant: any bytes parse to a value or raise MalformedData, nothing else."""
    for parse in (MetaQuery.parse, metadata.parse_context):
        with contextlib.suppress(MalformedData):
            parse(data)
