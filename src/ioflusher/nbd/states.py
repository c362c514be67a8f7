"""The conversation as a table: which message may come in which state, and what state follows.

The table knows no role. `SPEAKER` says who may say what; `connection` holds the two against each other.
"""

from enum import Enum, auto

from ioflusher.nbd.messages import Kind


class Role(Enum):
    """Which end of the connection one is."""

    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    """What the connection waits for."""

    GREETING = auto()
    CLIENT_FLAGS = auto()
    OPTION = auto()  # the client asks
    OPTION_REPLY = auto()  # the server answers
    EXPORT_REPLY = auto()  # the server answers NBD_OPT_EXPORT_NAME
    TRANSMISSION = auto()  # both speak at will
    CLOSING = auto()  # after NBD_CMD_DISC: answers to what was asked before may still come
    CLOSED = auto()


SPEAKER: dict[Kind, Role] = {
    Kind.GREETING: Role.SERVER,
    Kind.CLIENT_FLAGS: Role.CLIENT,
    Kind.OPTION: Role.CLIENT,
    Kind.EXPORT_NAME: Role.CLIENT,
    Kind.PART_REPLY: Role.SERVER,
    Kind.LAST_REPLY: Role.SERVER,
    Kind.GO_REPLY: Role.SERVER,
    Kind.ABORT_REPLY: Role.SERVER,
    Kind.EXPORT_REPLY: Role.SERVER,
    Kind.REQUEST: Role.CLIENT,
    Kind.DISCONNECT: Role.CLIENT,
    Kind.REPLY: Role.SERVER,
}

TRANSITIONS: dict[State, dict[Kind, State]] = {
    State.GREETING: {Kind.GREETING: State.CLIENT_FLAGS},
    State.CLIENT_FLAGS: {Kind.CLIENT_FLAGS: State.OPTION},
    State.OPTION: {Kind.OPTION: State.OPTION_REPLY, Kind.EXPORT_NAME: State.EXPORT_REPLY},
    State.OPTION_REPLY: {
        Kind.PART_REPLY: State.OPTION_REPLY,
        Kind.LAST_REPLY: State.OPTION,
        Kind.GO_REPLY: State.TRANSMISSION,
        Kind.ABORT_REPLY: State.CLOSED,
    },
    State.EXPORT_REPLY: {Kind.EXPORT_REPLY: State.TRANSMISSION},
    State.TRANSMISSION: {
        Kind.REQUEST: State.TRANSMISSION,
        Kind.REPLY: State.TRANSMISSION,
        Kind.DISCONNECT: State.CLOSING,
    },
    State.CLOSING: {Kind.REPLY: State.CLOSING},
    State.CLOSED: {},
}
