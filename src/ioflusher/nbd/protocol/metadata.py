"""The data of the options about metadata contexts, and which contexts a query means (pure functions).

Source: doc/proto.md, "Metadata querying", NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.nbd.protocol import exports, wire
from ioflusher.nbd.protocol.exports import MalformedData
from ioflusher.nbd.protocol.extents import MetaContext


@dataclass(frozen=True, slots=True)
class MetaQuery:
    """The data of both options: an export's name, and queries of the form NAMESPACE:LEAF."""

    export: str
    queries: tuple[str, ...] = ()

    def pack(self) -> bytes:
        return b"".join(
            [
                exports.pack_string(self.export),
                wire.LENGTH.pack(len(self.queries)),
                *(exports.pack_string(query) for query in self.queries),
            ]
        )

    @classmethod
    def parse(cls, data: bytes) -> "MetaQuery":
        """Raises MalformedData when lengths and content disagree."""
        export, rest = exports.counted_string(data)
        if len(rest) < wire.LENGTH.size:
            raise MalformedData(f"{len(rest)} bytes behind the name; expected a number of queries")
        (count,) = wire.LENGTH.unpack_from(rest)
        rest = rest[wire.LENGTH.size :]
        # each query has a length: a number that cannot be true is refused before anything is gathered
        if count * wire.LENGTH.size > len(rest):
            raise MalformedData(f"{count} queries announced in {len(rest)} bytes")
        queries = []
        for _ in range(count):
            query, rest = exports.counted_string(rest)
            queries.append(query)
        if rest:
            raise MalformedData(f"{len(rest)} bytes behind the last query")
        return cls(export, tuple(queries))


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """The payload of NBD_CMD_BLOCK_STATUS (extended headers): the length asked about, and contexts' numbers.

    Source: doc/proto.md of the branch extension-ext-header, NBD_FLAG_BLOCK_STATUS_PAYLOAD.
    """

    length: int
    contexts: tuple[int, ...]

    def pack(self) -> bytes:
        return wire.STATUS_LENGTH.pack(self.length) + b"".join(map(wire.CONTEXT_NUMBER.pack, self.contexts))

    @classmethod
    def parse(cls, data: bytes | memoryview) -> "StatusQuery":
        """Raises MalformedData for a length that no query has, or one that names nothing or a thing twice."""
        rest = len(data) - wire.STATUS_LENGTH.size
        if rest <= 0 or rest % wire.CONTEXT_NUMBER.size:
            raise MalformedData(f"a query of {len(data)} bytes; expected a length of 8 and numbers of 4")
        (length,) = wire.STATUS_LENGTH.unpack_from(data)
        found = wire.CONTEXT_NUMBER.iter_unpack(data[wire.STATUS_LENGTH.size :])
        contexts = tuple(number for (number,) in found)
        if len(set(contexts)) < len(contexts):
            raise MalformedData(f"a query that names a metadata context twice: {contexts}")
        return cls(length, contexts)


def pack_context(context: MetaContext) -> bytes:
    """NBD_REP_META_CONTEXT's data."""
    return wire.CONTEXT_NUMBER.pack(context.number) + context.name.encode()


def parse_context(data: bytes) -> MetaContext:
    """The context in NBD_REP_META_CONTEXT's data; raises MalformedData."""
    if len(data) < wire.CONTEXT_NUMBER.size:
        raise MalformedData(
            f"a metadata context of {len(data)} bytes; expected {wire.CONTEXT_NUMBER.size} or more"
        )
    (number,) = wire.CONTEXT_NUMBER.unpack_from(data)
    return MetaContext(number, exports.parse_string(data[wire.CONTEXT_NUMBER.size :]))


def listed(queries: Iterable[str], available: Iterable[str]) -> tuple[str, ...]:
    """What NBD_OPT_LIST_META_CONTEXT names: all when nothing is asked; `base:` means a whole namespace."""
    asked = set(queries)
    return tuple(
        name for name in available if not asked or name in asked or name.partition(":")[0] + ":" in asked
    )


def selected(queries: Iterable[str], available: Iterable[str]) -> tuple[MetaContext, ...]:
    """What NBD_OPT_SET_META_CONTEXT selects: contexts named in full; the numbers are the server's own."""
    asked = set(queries)
    return tuple(MetaContext(number, name) for number, name in enumerate(available, 1) if name in asked)
