"""What a handshake leads to."""

from dataclasses import dataclass

from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.negotiated import Negotiated


@dataclass(frozen=True, slots=True)
class EnteredExport:
    """The export that the client entered, and what was negotiated for it."""

    export: Export
    negotiated: Negotiated
