"""SSLContext objects from settings; TLS 1.2 is the oldest that the NBD protocol wants."""

import getpass
import os
import ssl
from pathlib import Path

from ioflusher.nbd.tls.settings import ClientTls, ServerTls, TlsError

# Authentication by the key alone, with forward secrecy. TLS 1.2: in 1.3 a context that takes a key also
# takes any certificate, and nothing in Python tells which of both it was.
PSK_CIPHERS = "kECDHEPSK:kDHEPSK"
PSK_NEEDS = "pre-shared keys need Python 3.13 or newer"


def server_context(settings: ServerTls) -> ssl.SSLContext:
    """Raises TlsError: credentials that are missing, cannot be read or do not fit each other."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    if (settings.psk is None) == (settings.certificates is None):
        raise TlsError("TLS needs either a directory of certificates or a file of pre-shared keys")
    if settings.psk is not None:
        keys = read_keys(settings.psk)
        _only_psk(context)
        # an unknown user gets a key that nobody has, so that the time tells nothing
        context.set_psk_server_callback(lambda user: keys.get(user or "", os.urandom(32)))  # type: ignore[attr-defined]
        return context
    directory = Path(settings.certificates or "")
    _load_own(context, directory, "server")
    if settings.verify:
        _trust(context, directory)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """Raises as `server_context` does."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if settings.psk is not None:
        keys = read_keys(settings.psk)
        user = settings.user or getpass.getuser()
        if user not in keys:
            raise TlsError(
                f"{settings.psk!r} has no key of the user {user!r}", hint="name one: nbds://USER@HOST/"
            )
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the key says who both are
        _only_psk(context)
        context.set_psk_client_callback(lambda hint: (user, keys[user]))  # type: ignore[attr-defined]
        return context
    if settings.certificates is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        directory = Path(settings.certificates)
        if settings.verify:
            _trust(context, directory)
        if (directory / "client-cert.pem").exists():
            _load_own(context, directory, "client")
    if not settings.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nobody resumes a session with a disk
    return context


def _only_psk(context: ssl.SSLContext) -> None:
    if not hasattr(context, "set_psk_server_callback"):
        import platform

        raise TlsError(f"{PSK_NEEDS}; this is {platform.python_version()}", hint="use certificates")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(PSK_CIPHERS)


def _load_own(context: ssl.SSLContext, directory: Path, name: str) -> None:
    certificate, key = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    try:
        # the password: without this argument OpenSSL would ask on the terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TlsError(
            f"cannot use {str(certificate)!r} with {str(key)!r}: {_why(error)}",
            errno=getattr(error, "errno", None) if not isinstance(error, ssl.SSLError) else None,
            hint="both in PEM form, the key without a password",
        ) from error


def _trust(context: ssl.SSLContext, directory: Path) -> None:
    authority, revoked = directory / "ca-cert.pem", directory / "ca-crl.pem"
    try:
        context.load_verify_locations(authority)
        if revoked.exists():
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except OSError as error:
        raise TlsError(
            f"cannot use the authority {str(authority)!r}: {_why(error)}",
            hint="it is needed to see whether a peer's certificate is genuine",
        ) from error


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    return str(reason or getattr(error, "strerror", None) or error)


def read_keys(path: str) -> dict[str, bytes]:
    """The keys of a file of pre-shared keys, by user.

    Raises:
        TlsError: it cannot be read, or a line is not USER:KEY.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TlsError(f"cannot read the keys in {path!r}: {_why(error)}") from error
    keys = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, digits = line.rpartition(":")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        if not colon or not user or not key:
            # not the line itself: it may be a key
            raise TlsError(f"{path!r} line {number}: expected USER:KEY, the key in hexadecimal")
        keys[user] = key
    if not keys:
        raise TlsError(f"{path!r} has no key", hint="make one: psktool --username=USER --pskfile=FILE")
    return keys
