"""The server's part of the handshake, without I/O: the answers to a client's options.

Source: doc/proto.md, "Fixed newstyle negotiation", "TLS support", "Option types". What a client has
negotiated is forgotten when TLS begins: who sits between could have said it (CVE-2021-3716 of nbdkit).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from ioflusher.nbd.protocol import exports, metadata
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import Export, ExportQuery, ListedExport, MalformedData
from ioflusher.nbd.protocol.extents import MetaContext
from ioflusher.nbd.protocol.messages import ExportReply, Option, OptionReply
from ioflusher.nbd.protocol.metadata import MetaQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import HandshakeFlag, Info, Opt, Rep, TransmissionFlag

SERVER_FLAGS = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)

_SEND_DF = int(TransmissionFlag.SEND_DF)
_STATUS_PAYLOAD = int(TransmissionFlag.BLOCK_STATUS_PAYLOAD)


class TlsMode(Enum):
    """What a server does about TLS; the document's names are NOTLS, SELECTIVETLS, FORCEDTLS."""

    OFF = auto()
    ON = auto()  # clients may ask for it
    REQUIRE = auto()  # clients get nothing without it


@dataclass(frozen=True, slots=True)
class OptionAnswer:
    """A server's answer to an option.

    Attributes:
        messages: what to send, in this order.
        hang_up: the protocol leaves nothing but closing the connection.
        entered: set when the messages bring both ends into transmission.
    """

    messages: tuple[OptionReply | ExportReply, ...]
    hang_up: bool = False
    entered: EnteredExport | None = None


class ServerHandshake:
    """What a server knows of one client during its handshake.

    Args:
        offered: the exports by name.
        default: the name of the export that the empty name means; None: there is none.
        tls: whether the server has TLS to offer, or insists on it.
        structured_replies: whether they are granted, and with them metadata contexts.
        extended_headers: whether these are, which the document has as experimental.

    Attributes:
        closing: the server is about to end; set it at any time, and options are refused from then on.
    """

    def __init__(
        self,
        offered: Mapping[str, Export],
        default: str | None,
        *,
        tls: TlsMode = TlsMode.OFF,
        structured_replies: bool = True,
        extended_headers: bool = False,
    ) -> None:
        self.closing = False
        self._offered = offered
        self._default = default
        self._tls = tls
        self._grants_structured_replies = structured_replies
        self._grants_extended_headers = extended_headers and structured_replies
        self._encrypted = False
        self._forget()

    def _forget(self) -> None:
        self._structured_replies = False
        self._extended_headers = False
        self._contexts: tuple[MetaContext, ...] = ()
        self._contexts_of: str | None = None  # the name that they were selected for, as the client wrote it

    def encrypted(self) -> None:
        """TLS has begun: nothing that was said before holds."""
        self._encrypted = True
        self._forget()

    def answer(self, option: Option, *, fixed_newstyle: bool = True, zeroes: bool = False) -> OptionAnswer:
        """The answer to one option.

        Args:
            option: what the client asks.
            fixed_newstyle: whether the client said NBD_FLAG_C_FIXED_NEWSTYLE; without, it gets no TLS.
            zeroes: whether the answer to NBD_OPT_EXPORT_NAME carries the 124 reserved bytes.
        """
        kind, data = option.option, option.data
        must_encrypt = self._tls is TlsMode.REQUIRE and not self._encrypted
        if kind == Opt.ABORT:  # whatever data it carries is ignored
            return OptionAnswer((OptionReply(kind, Rep.ACK),))
        if kind == Opt.EXPORT_NAME:
            refused = must_encrypt or self.closing or self._extended_headers
            return OptionAnswer((), hang_up=True) if refused else self._enter_by_name(data, zeroes)
        if self.closing:
            return _refuse(kind, Rep.ERR_SHUTDOWN, "this server is about to end")
        if kind == Opt.STARTTLS:
            return self._start_tls(data, fixed_newstyle)
        if must_encrypt:
            return _refuse(kind, Rep.ERR_TLS_REQD, "this server serves nobody without TLS")
        if kind == Opt.SET_META_CONTEXT:  # what was selected before is gone, also when this fails
            self._contexts, self._contexts_of = (), None
        answer = _ANSWERS.get(kind)
        if answer is None:
            return _refuse(kind, Rep.ERR_UNSUP, "this server does not know the option")
        if data is None:
            return _refuse(kind, Rep.ERR_TOO_BIG, "more data than the option can need")
        try:
            return answer(self, kind, data)
        except MalformedData as error:
            return _refuse(kind, Rep.ERR_INVALID, str(error))

    def _find(self, name: str) -> Export | None:
        name = self._default if not name and self._default is not None else name
        return self._offered.get(name)

    def _enter(self, export: Export, name: str) -> EnteredExport:
        contexts = self._contexts if self._contexts_of == name else ()
        return EnteredExport(export, Negotiated(self._structured_replies, self._extended_headers, contexts))

    def _flags(self, export: Export) -> int:
        """Two depend on what was agreed on: the document wants them clear where they are of no use."""
        if self._extended_headers and self._contexts:
            return export.flags | _STATUS_PAYLOAD
        return export.flags if self._structured_replies else export.flags & ~_SEND_DF

    def _enter_by_name(self, data: bytes | None, zeroes: bool) -> OptionAnswer:
        """The answer to NBD_OPT_EXPORT_NAME, which knows no error reply."""
        try:
            name = None if data is None else exports.parse_string(data)
        except MalformedData:
            name = None
        export = None if name is None else self._find(name)
        if name is None or export is None:
            return OptionAnswer((), hang_up=True)
        reply = ExportReply(export.size, self._flags(export), zeroes)
        return OptionAnswer((reply,), entered=self._enter(export, name))

    def _start_tls(self, data: bytes | None, fixed_newstyle: bool) -> OptionAnswer:
        if data or data is None:
            return _refuse(Opt.STARTTLS, Rep.ERR_INVALID, "NBD_OPT_STARTTLS carries no data")
        if self._encrypted:
            return _refuse(Opt.STARTTLS, Rep.ERR_INVALID, "this connection is encrypted already")
        if self._tls is TlsMode.OFF or not fixed_newstyle:
            return _refuse(Opt.STARTTLS, Rep.ERR_POLICY, "there is no TLS here")
        return OptionAnswer((OptionReply(Opt.STARTTLS, Rep.ACK),))

    def _list(self, kind: int, data: bytes) -> OptionAnswer:
        if data:
            raise MalformedData("NBD_OPT_LIST carries no data")
        entries = (ListedExport(export.name, export.description) for export in self._offered.values())
        return OptionAnswer(
            (*(OptionReply(kind, Rep.SERVER, entry.pack()) for entry in entries), OptionReply(kind, Rep.ACK))
        )

    def _describe(self, kind: int, data: bytes) -> OptionAnswer:
        """The answer to NBD_OPT_INFO and NBD_OPT_GO.

        The block sizes are sent unasked, as the protocol allows: who does not read them and sends a request
        that is not aligned gets EINVAL for it.
        """
        query = ExportQuery.parse(data)
        export = self._find(query.name)
        if export is None:
            return _refuse(kind, Rep.ERR_UNKNOWN, "no such export here")
        pieces = [
            exports.pack_export_info(export.size, self._flags(export)),
            exports.pack_block_size_info(export.block_size),
        ]
        if Info.NAME in query.infos:
            pieces.append(exports.pack_text_info(Info.NAME, export.name))
        if Info.DESCRIPTION in query.infos and export.description:
            pieces.append(exports.pack_text_info(Info.DESCRIPTION, export.description))
        return OptionAnswer(
            (*(OptionReply(kind, Rep.INFO, piece) for piece in pieces), OptionReply(kind, Rep.ACK)),
            entered=self._enter(export, query.name) if kind == Opt.GO else None,
        )

    def _structure_replies(self, kind: int, data: bytes) -> OptionAnswer:
        if not self._grants_structured_replies:
            return _refuse(kind, Rep.ERR_UNSUP, "this server answers with simple replies")
        if data:
            raise MalformedData("NBD_OPT_STRUCTURED_REPLY carries no data")
        if self._extended_headers:
            return _refuse(kind, Rep.ERR_EXT_HEADER_REQD, "extended headers are agreed on")
        self._structured_replies = True
        return OptionAnswer((OptionReply(kind, Rep.ACK),))

    def _extend_headers(self, kind: int, data: bytes) -> OptionAnswer:
        if not self._grants_extended_headers:
            return _refuse(kind, Rep.ERR_UNSUP, "this server does not know the option")
        if data:
            raise MalformedData("NBD_OPT_EXTENDED_HEADERS carries no data")
        if self._extended_headers:
            return _refuse(kind, Rep.ERR_INVALID, "they are agreed on already")
        self._extended_headers = self._structured_replies = True
        return OptionAnswer((OptionReply(kind, Rep.ACK),))

    def _list_contexts(self, kind: int, data: bytes) -> OptionAnswer:
        if not self._grants_structured_replies:
            return _refuse(kind, Rep.ERR_UNSUP, "this server answers with simple replies")
        query = MetaQuery.parse(data)
        export = self._find(query.export)
        if export is None:
            return _refuse(kind, Rep.ERR_UNKNOWN, "no such export here")
        found = (MetaContext(0, name) for name in metadata.listed(query.queries, export.contexts))
        return _name_contexts(kind, found)

    def _select_contexts(self, kind: int, data: bytes) -> OptionAnswer:
        if not self._grants_structured_replies:
            return _refuse(kind, Rep.ERR_UNSUP, "this server answers with simple replies")
        if not self._structured_replies:
            return _refuse(kind, Rep.ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY comes first")
        query = MetaQuery.parse(data)
        export = self._find(query.export)
        if export is None:
            return _refuse(kind, Rep.ERR_UNKNOWN, "no such export here")
        self._contexts = metadata.selected(query.queries, export.contexts)
        self._contexts_of = query.export
        return _name_contexts(kind, self._contexts)


def _name_contexts(kind: int, contexts: Iterable[MetaContext]) -> OptionAnswer:
    pieces = (OptionReply(kind, Rep.META_CONTEXT, metadata.pack_context(context)) for context in contexts)
    return OptionAnswer((*pieces, OptionReply(kind, Rep.ACK)))


def _refuse(option: int, error: Rep, why: str) -> OptionAnswer:
    return OptionAnswer((OptionReply(option, error, why.encode()),))


_ANSWERS: dict[int, Callable[[ServerHandshake, int, bytes], OptionAnswer]] = {
    Opt.LIST: ServerHandshake._list,
    Opt.INFO: ServerHandshake._describe,
    Opt.GO: ServerHandshake._describe,
    Opt.STRUCTURED_REPLY: ServerHandshake._structure_replies,
    Opt.EXTENDED_HEADERS: ServerHandshake._extend_headers,
    Opt.LIST_META_CONTEXT: ServerHandshake._list_contexts,
    Opt.SET_META_CONTEXT: ServerHandshake._select_contexts,
}
