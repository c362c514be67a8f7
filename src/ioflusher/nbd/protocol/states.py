"""The protocol's state machine as a table: which message may come in which state, and what state follows.

The table knows no role. `SPEAKER` has who sends what; `connection` checks each message against both.
"""

from enum import Enum, auto

from ioflusher.nbd.protocol.messages import MessageKind


class NbdRole(Enum):
    """Which end of the connection one is."""

    CLIENT = auto()
    SERVER = auto()


class ConnectionState(Enum):
    """What the connection waits for."""

    GREETING = auto()
    CLIENT_FLAGS = auto()
    OPTION = auto()  # the client asks
    OPTION_REPLY = auto()  # the server answers
    TLS = auto()  # nobody speaks plainly any more: `NbdConnection.encrypted` goes on
    EXPORT_REPLY = auto()  # the server answers NBD_OPT_EXPORT_NAME
    TRANSMISSION = auto()  # both send at will
    CLOSING = auto()  # after NBD_CMD_DISC: answers to what was asked before may still come
    CLOSED = auto()


SPEAKER: dict[MessageKind, NbdRole] = {
    MessageKind.GREETING: NbdRole.SERVER,
    MessageKind.CLIENT_FLAGS: NbdRole.CLIENT,
    MessageKind.OPTION: NbdRole.CLIENT,
    MessageKind.EXPORT_NAME: NbdRole.CLIENT,
    MessageKind.PART_REPLY: NbdRole.SERVER,
    MessageKind.LAST_REPLY: NbdRole.SERVER,
    MessageKind.GO_REPLY: NbdRole.SERVER,
    MessageKind.ABORT_REPLY: NbdRole.SERVER,
    MessageKind.TLS_REPLY: NbdRole.SERVER,
    MessageKind.EXPORT_REPLY: NbdRole.SERVER,
    MessageKind.REQUEST: NbdRole.CLIENT,
    MessageKind.DISCONNECT: NbdRole.CLIENT,
    MessageKind.REPLY: NbdRole.SERVER,
}

TRANSITIONS: dict[ConnectionState, dict[MessageKind, ConnectionState]] = {
    ConnectionState.GREETING: {MessageKind.GREETING: ConnectionState.CLIENT_FLAGS},
    ConnectionState.CLIENT_FLAGS: {MessageKind.CLIENT_FLAGS: ConnectionState.OPTION},
    ConnectionState.OPTION: {
        MessageKind.OPTION: ConnectionState.OPTION_REPLY,
        MessageKind.EXPORT_NAME: ConnectionState.EXPORT_REPLY,
    },
    ConnectionState.OPTION_REPLY: {
        MessageKind.PART_REPLY: ConnectionState.OPTION_REPLY,
        MessageKind.LAST_REPLY: ConnectionState.OPTION,
        MessageKind.GO_REPLY: ConnectionState.TRANSMISSION,
        MessageKind.ABORT_REPLY: ConnectionState.CLOSED,
        MessageKind.TLS_REPLY: ConnectionState.TLS,
    },
    ConnectionState.TLS: {},
    ConnectionState.EXPORT_REPLY: {MessageKind.EXPORT_REPLY: ConnectionState.TRANSMISSION},
    ConnectionState.TRANSMISSION: {
        MessageKind.REQUEST: ConnectionState.TRANSMISSION,
        MessageKind.REPLY: ConnectionState.TRANSMISSION,
        MessageKind.DISCONNECT: ConnectionState.CLOSING,
    },
    ConnectionState.CLOSING: {MessageKind.REPLY: ConnectionState.CLOSING},
    ConnectionState.CLOSED: {},
}
