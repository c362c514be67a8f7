"""Addresses and their URI form."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.address import Address, AddressError, parse_uri
from ioflusher.nbd.tls import ClientTls


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("nbd://127.0.0.1:4711/", Address(host="127.0.0.1", port=4711)),
        ("nbd://example.org:10809/a%20disk", Address(host="example.org", export="a disk")),
        ("nbd://[::1]:4711/x", Address(host="::1", port=4711, export="x")),
        ("nbd+unix:///?socket=/run/nbd.sock", Address(path="/run/nbd.sock")),
        ("nbd+unix:///a%2Fb?socket=/tmp/a%20%26b%2Bc", Address(path="/tmp/a &b+c", export="a/b")),
        ("nbds://example.org:10809/x", Address(host="example.org", export="x", tls=ClientTls())),
        (
            "nbds://me%40here@[::1]:1/?tls-psk-file=/etc/a%20key",
            Address(host="::1", port=1, tls=ClientTls(psk="/etc/a key", user="me@here")),
        ),
        (
            "nbds+unix:///x?socket=/s&tls-certificates=/etc/pki&tls-hostname=example.org&tls-verify-peer=0",
            Address(
                path="/s",
                export="x",
                tls=ClientTls(certificates="/etc/pki", hostname="example.org", verify=False),
            ),
        ),
        ("nbds+unix://me@/?socket=/s", Address(path="/s", tls=ClientTls(user="me"))),
    ],
)
def test_golden(uri: str, address: Address) -> None:
    """Both directions."""
    assert parse_uri(uri) == address
    assert address.uri == uri


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("nbd://example.org", Address(host="example.org")),
        ("nbd+unix:///?socket=/tmp/a+b", Address(path="/tmp/a+b")),
        ("nbd+unix:///x?other=1&socket=relative", Address(path="relative", export="x")),
    ],
)
def test_other_forms(uri: str, address: Address) -> None:
    """What other programs write: no port, a plus sign that means itself, further parameters."""
    assert parse_uri(uri) == address


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/dev/nbd0",
        "http://example.org/",
        "nbds+vsock://2/",
        "nbd:///x",
        "nbd://example.org:0/x",
        "nbd+unix:///x",
        "nbd+unix:///?socket=",
        "nbd://host:port/",
        "nbd://host:99999/",
        "nbd://[::1/",
        "nbd+vsock://2/",
    ],
)
def test_what_is_no_address(uri: str) -> None:
    """Other schemes and missing parts are refused with the forms that would do."""
    with pytest.raises(AddressError) as caught:
        parse_uri(uri)
    assert "nbd+unix:///" in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("nbd://example.org/?tls-certificates=/etc/pki", "TLS parameters without TLS"),
        ("nbds://example.org/?tls-certificate=/etc/pki", "unknown parameter 'tls-certificate'"),
        ("nbds://example.org/?tls-verify-peer=maybe", "tls-verify-peer is 0 or 1"),
        ("nbds://example.org/?tls-type=anon", "nobody is authenticated"),
        ("nbds://example.org/?tls-type=psk", "psk with tls-psk-file"),
        ("nbds://example.org/?tls-type=x509&tls-psk-file=/k", "tls-type is x509"),
        ("nbds://example.org/?tls-certificates=/c&tls-psk-file=/k", "both certificates and pre-shared keys"),
    ],
)
def test_encryption_that_cannot_be(uri: str, complaint: str) -> None:
    """A parameter that was meant to make a connection safe is never passed over."""
    with pytest.raises(AddressError, match=complaint):
        parse_uri(uri)


def test_parameters_that_others_ignore() -> None:
    """tls-type where it says what is said anyway, and experiments (x-) of others."""
    address = parse_uri("nbds://example.org/?tls-type=x509&x-other=1&tls-verify-peer=true")
    assert address.tls == ClientTls()


def test_paths_need_not_be_text() -> None:
    """A path of bytes that are no UTF-8 survives its URI as the system gave it."""
    address = Address(path="/tmp/\udcff")
    assert address.uri == "nbd+unix:///?socket=/tmp/%FF"
    assert parse_uri(address.uri) == address


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(TEXT, TEXT.filter(bool), st.integers(1, 65535))
def test_every_address_survives_its_uri(export: str, path: str, port: int) -> None:
    """Export names and paths with anything in them come back as they were."""
    for address in (Address(path=path, export=export), Address(host="::1", port=port, export=export)):
        assert parse_uri(address.uri) == address


@given(st.text(max_size=80))
def test_fuzz(text: str) -> None:
    """Invariant: any text is an address or an AddressError."""
    for uri in (text, f"nbd://{text}", f"nbd+unix://{text}"):
        with contextlib.suppress(AddressError):
            assert parse_uri(uri).uri
