"""Where an NBD server is and which of its exports is meant, and the URI form of that."""

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.tls.settings import ClientTls


class AddressError(NbdError):
    """The text is no NBD URI that we understand."""


_RAW = "surrogateescape"  # a path's bytes need not be UTF-8

_FORMS = "expected nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH, or nbds for TLS"
_SWITCH = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address and an export's name: a Unix socket when `path` is given, else TCP.

    The URI form is that of the NBD project's doc/uri.md, with libnbd's parameters `tls-certificates` and
    `tls-psk-file`.

    Attributes:
        tls: how the connection is encrypted; None: it is not.
    """

    path: str | None = None
    host: str = "localhost"
    port: int = wire.DEFAULT_PORT
    export: str = ""
    tls: ClientTls | None = None

    @property
    def uri(self) -> str:
        """`nbd://host:port/export` or `nbd+unix:///export?socket=path`; with TLS `nbds` instead of `nbd`."""
        export = quote(self.export, safe="", errors=_RAW)
        scheme = "nbd" if self.tls is None else "nbds"
        user = "" if self.tls is None or self.tls.user is None else quote(self.tls.user, safe="") + "@"
        fields = [] if self.tls is None else _tls_fields(self.tls)
        if self.path is not None:
            place = f"{scheme}+unix://{user}/{export}"
            fields.insert(0, ("socket", self.path))
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            place = f"{scheme}://{user}{host}:{self.port}/{export}"
        query = "&".join(f"{name}={quote(value, errors=_RAW)}" for name, value in fields)
        return f"{place}?{query}" if query else place

    def __str__(self) -> str:
        return self.uri

    def with_export(self, export: str) -> "Address":
        """The same server, another export."""
        return replace(self, export=export)


def _tls_fields(tls: ClientTls) -> list[tuple[str, str]]:
    """The parameters of a URI that say the same."""
    fields = [
        ("tls-certificates", tls.certificates),
        ("tls-psk-file", tls.psk),
        ("tls-hostname", tls.hostname),
        ("tls-verify-peer", None if tls.verify else "0"),
    ]
    return [(name, value) for name, value in fields if value is not None]


def parse_uri(text: str) -> Address:
    """The address that an NBD URI names.

    Raises:
        AddressError: not such a URI, or one of a kind that needs virtual sockets.
    """
    try:
        parts = urlsplit(text)
        port = wire.DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise AddressError(f"{text!r} is no URI: {error}", hint=_FORMS) from error
    export = unquote(parts.path.removeprefix("/"), errors=_RAW)
    # not parse_qs: in these URIs a plus sign is a plus sign
    pairs = (field.partition("=")[::2] for field in parts.query.split("&") if field)
    fields = {name: unquote(value, errors=_RAW) for name, value in pairs}
    tls = None
    if parts.scheme in ("nbds", "nbds+unix"):
        user = None if parts.username is None else unquote(parts.username)
        tls = _parse_tls(text, {**fields}, user)
    elif any(name.startswith("tls-") for name in fields):
        raise AddressError(f"{text!r} has TLS parameters without TLS", hint="begin it with nbds")
    if parts.scheme in ("nbd", "nbds") and parts.hostname and port > 0:
        return Address(host=parts.hostname, port=port, export=export, tls=tls)
    # a user's name may stand there, which only encrypted addresses have a use for
    nowhere = not parts.netloc or (tls is not None and not parts.hostname)
    if parts.scheme in ("nbd+unix", "nbds+unix") and nowhere and fields.get("socket"):
        return Address(path=fields["socket"], export=export, tls=tls)
    raise AddressError(f"{text!r} is no address of an NBD server; {_FORMS}")


def _parse_tls(text: str, fields: dict[str, str], user: str | None) -> ClientTls:
    """The parameters of an encrypted address; an unknown one could have been meant to make it safe."""
    fields.pop("socket", None)
    kind = fields.pop("tls-type", None)
    psk, certificates = fields.pop("tls-psk-file", None), fields.pop("tls-certificates", None)
    verify = _SWITCH.get(fields.pop("tls-verify-peer", "1").lower())
    hostname = fields.pop("tls-hostname", None)
    unknown = [name for name in fields if not name.startswith("x-")]
    if unknown:
        raise AddressError(f"{text!r} has the unknown parameter {unknown[0]!r}")
    if verify is None:
        raise AddressError(f"{text!r}: tls-verify-peer is 0 or 1")
    if kind not in (None, "x509", "psk") or (kind == "psk") > (psk is not None) or (psk and kind == "x509"):
        raise AddressError(
            f"{text!r}: tls-type is x509, or psk with tls-psk-file; without either nobody is authenticated"
        )
    if psk is not None and certificates is not None:
        raise AddressError(f"{text!r} has both certificates and pre-shared keys; expected one of them")
    return ClientTls(certificates, psk, user, hostname, verify)
