"""What is said about TLS in an address or on a command line; nothing here loads the ssl module.

The names of files are those of QEMU, libnbd and nbdkit, so that one directory serves all: in it are
`ca-cert.pem`, `server-cert.pem` and `server-key.pem`, `client-cert.pem` and `client-key.pem`, and perhaps
`ca-crl.pem`. A file of pre-shared keys has a line USER:KEY for each user, the key in hexadecimal, as
psktool(1) writes it.
"""

from dataclasses import dataclass

from ioflusher.nbd.errors import NbdError


class TlsError(NbdError):
    """Credentials that cannot be used, or a peer that could not be trusted."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client finds out whom it talks to, and says who it is.

    Attributes:
        certificates: a directory. None: the authorities that this machine trusts, and no certificate of ours.
        psk: a file of pre-shared keys, instead of certificates.
        user: whose key of that file is meant; None: who runs this program.
        hostname: the name that the server's certificate must have; None: the host that was connected to,
            and on a Unix socket any.
        verify: whether the server's certificate is looked at.
    """

    certificates: str | None = None
    psk: str | None = None
    user: str | None = None
    hostname: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server shows to its clients, and asks of them.

    Attributes:
        certificates: a directory.
        psk: a file of pre-shared keys, instead of certificates.
        verify: whether clients must have a certificate that the authority of that directory has signed.
        required: whether clients get nothing without TLS.
    """

    certificates: str | None = None
    psk: str | None = None
    verify: bool = False
    required: bool = True
