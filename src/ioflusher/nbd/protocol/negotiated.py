"""What both ends agreed on before transmission."""

from dataclasses import dataclass

from ioflusher.nbd.protocol.extents import MetaContext


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the handshake turned on; the form of requests and replies follows from it.

    Attributes:
        structured_replies: READ and BLOCK_STATUS are answered in chunks (NBD_OPT_STRUCTURED_REPLY).
        extended_headers: requests and replies have 64-bit lengths (NBD_OPT_EXTENDED_HEADERS).
        contexts: what BLOCK_STATUS reports (NBD_OPT_SET_META_CONTEXT); none: it may not be asked.
    """

    structured_replies: bool = False
    extended_headers: bool = False
    contexts: tuple[MetaContext, ...] = ()
