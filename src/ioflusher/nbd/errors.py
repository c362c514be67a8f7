"""What can go wrong on an NBD connection, told apart by whose fault it is."""

from ioflusher.errors import IoflusherError


class NbdError(IoflusherError):
    """Something of the `nbd` room failed."""


class ProtocolError(NbdError):
    """Bytes or messages that the protocol forbids; the connection cannot go on."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids here: a mistake of the caller."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids here."""


class NegotiationError(NbdError):
    """The server refused the export or the option that we asked for."""


class RequestError(NbdError):
    """The server answered a request with an error; `errno` is that error in Linux's numbers."""


class ConnectionLost(NbdError):
    """The peer went away in the middle of a conversation; `errno` is EIO where nothing better is known."""


def from_system(what: str, error: OSError | UnicodeError, *, hint: str | None = None) -> NbdError:
    """The error for a socket that could not be had: `what` failed, and why.

    Names that cannot be names are UnicodeError in Python; name services have error numbers of their own,
    negative ones, which are no errno.
    """
    reason = error.strerror if isinstance(error, OSError) else None
    number = error.errno if isinstance(error, OSError) else None
    return NbdError(f"{what}: {reason or error}", errno=number if number and number > 0 else None, hint=hint)
