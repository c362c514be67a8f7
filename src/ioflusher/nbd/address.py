"""Where an NBD server is and which of its exports is meant, and the URI form of that."""

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.protocol import wire


class AddressError(NbdError):
    """The text is no NBD URI that we understand."""


_RAW = "surrogateescape"  # a path's bytes need not be UTF-8

_FORMS = "expected nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address and an export's name: a Unix socket when `path` is given, else TCP.

    The URI form is that of the NBD project's doc/uri.md.
    """

    path: str | None = None
    host: str = "localhost"
    port: int = wire.DEFAULT_PORT
    export: str = ""

    @property
    def uri(self) -> str:
        """`nbd://host:port/export` or `nbd+unix:///export?socket=path`."""
        export = quote(self.export, safe="", errors=_RAW)
        if self.path is not None:
            return f"nbd+unix:///{export}?socket={quote(self.path, errors=_RAW)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nbd://{host}:{self.port}/{export}"

    def __str__(self) -> str:
        return self.uri

    def with_export(self, export: str) -> "Address":
        """The same server, another export."""
        return replace(self, export=export)


def parse_uri(text: str) -> Address:
    """The address that an NBD URI names.

    Raises:
        AddressError: not such a URI, or one of a kind that needs TLS or virtual sockets.
    """
    try:
        parts = urlsplit(text)
        port = wire.DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise AddressError(f"{text!r} is no URI: {error}", hint=_FORMS) from error
    export = unquote(parts.path.removeprefix("/"), errors=_RAW)
    if parts.scheme == "nbd" and parts.hostname and port > 0:
        return Address(host=parts.hostname, port=port, export=export)
    if parts.scheme == "nbd+unix" and not parts.netloc:
        # not parse_qs: in these URIs a plus sign is a plus sign
        fields = dict(field.partition("=")[::2] for field in parts.query.split("&"))
        if fields.get("socket"):
            return Address(path=unquote(fields["socket"], errors=_RAW), export=export)
    raise AddressError(f"{text!r} is no address of an NBD server; {_FORMS}")
