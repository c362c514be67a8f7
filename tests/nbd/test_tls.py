"""TLS: who is trusted and who is not, on both ends; other people's programs as judges; nothing leaks."""

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from tests.nbd import test_cli as command_line
from tests.nbd.test_judges import run
from tests.needs import need

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import MemoryBackend, RemoteBackend
from ioflusher.nbd.client import Client, describe, list_exports
from ioflusher.nbd.errors import ConnectionLost, NbdError, NegotiationError
from ioflusher.nbd.kernel_client.connections import connect_sockets
from ioflusher.nbd.kernel_client.device import AttachError
from ioflusher.nbd.protocol.messages import ClientFlags, Option
from ioflusher.nbd.protocol.wire import Opt
from ioflusher.nbd.server import Server
from ioflusher.nbd.tls import ClientTls, ServerTls, TlsError
from ioflusher.nbd.tls.contexts import PSK_NEEDS, client_context, read_keys, server_context
from ioflusher.nbd.tls.stream import TlsSocket

SIZE = 1 << 20
PROMPT = 5.0  # seconds


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as QEMU, libnbd and nbdkit want it; the server is "localhost"."""
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of another authority."""
    return make_pki(tmp_path_factory.mktemp("strangers"))


def make_pki(directory: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca-cert.pem")
    for name, identity in (("server", "localhost"), ("client", "client.example.org")):
        issued = authority.issue_cert(identity)
        issued.cert_chain_pems[0].write_to_path(directory / f"{name}-cert.pem")
        issued.private_key_pem.write_to_path(directory / f"{name}-key.pem")
    return directory


def trusting(directory: Path, **more: object) -> ClientTls:
    return replace(ClientTls(certificates=str(directory)), **more)  # type: ignore[arg-type]


@contextmanager
def serving(tls: ServerTls, path: Path | None = None) -> Iterator[tuple[Server, Address]]:
    """A server, and its address on the loopback or a Unix socket."""
    with MemoryBackend(SIZE) as backend, Server(backend, export="disk", tls=tls) as server:
        address = server.listen_tcp("localhost") if path is None else server.listen_unix(str(path))
        server.start()
        yield server, address if path is not None else replace(address, host="localhost")


def of(directory: Path, **more: object) -> ServerTls:
    return replace(ServerTls(certificates=str(directory)), **more)  # type: ignore[arg-type]


def test_encrypted_storage(pki: Path) -> None:
    """What is written is read back, over four connections whose threads send and receive at once."""
    with serving(of(pki)) as (server, address):
        assert address.uri.startswith("nbds://localhost:")
        address = replace(address, tls=trusting(pki))
        data = memoryview(os.urandom(700_000))
        found = memoryview(bytearray(len(data)))
        with RemoteBackend(address) as backend:
            backend.write(4096, data)
            backend.flush()
            backend.read_into(4096, found)
        assert found == data
        assert server.counters().errors == 0


def test_nothing_goes_over_the_wire_in_the_clear(pki: Path) -> None:
    """Behind the grant of NBD_OPT_STARTTLS there is neither a name nor a byte of data to be read."""
    secret = b"a secret of the disk" * 40
    with serving(of(pki)) as (_, address), socket.create_server(("localhost", 0)) as listener:
        seen: list[bytes] = []

        def relay() -> None:
            near, _ = listener.accept()
            with near, socket.create_connection((address.host, address.port)) as far:
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                back.join()

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):  # the other direction was quicker
                while data := source.recv(1 << 16):
                    seen.append(data)
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=relay)
        thread.start()
        through = replace(address, port=listener.getsockname()[1], tls=trusting(pki))
        with Client(through) as client:
            client.write(0, memoryview(secret))
            found = memoryview(bytearray(len(secret)))
            client.read_into(0, found)
            assert bytes(found) == secret
        thread.join(PROMPT)
    whole = b"".join(seen)
    assert len(whole) > 2 * len(secret)
    assert b"secret" not in whole
    assert b"disk" not in whole


def test_a_unix_socket_has_no_name(pki: Path, tmp_path: Path) -> None:
    """There the authority is enough, unless a name is asked for, which must be right."""
    with serving(of(pki), tmp_path / "s") as (_, address):
        for hostname in (None, "localhost"):
            assert describe(replace(address, tls=trusting(pki, hostname=hostname))).size == SIZE
        with pytest.raises(TlsError, match=r"certificate verify failed: .*example\.org"):
            describe(replace(address, tls=trusting(pki, hostname="example.org")))


def test_a_server_that_cannot_be_trusted(pki: Path, strangers: Path) -> None:
    """Another authority is refused by the client, unless it was told not to verify."""
    with serving(of(strangers)) as (server, address):
        with pytest.raises(TlsError, match="certificate verify failed: unable to get local issuer"):
            Client(replace(address, tls=trusting(pki)))
        with pytest.raises(TlsError, match="certificate verify failed"):
            Client(replace(address, tls=ClientTls()))  # the authorities that this machine trusts
        assert describe(replace(address, tls=trusting(pki, verify=False))).size == SIZE
        assert server.counters().reads == 0


def test_clients_with_certificates(pki: Path, strangers: Path, tmp_path: Path) -> None:
    """A server that verifies serves those of its own authority; not strangers, not who shows nothing."""
    anonymous = tmp_path / "anonymous"
    anonymous.mkdir()
    (anonymous / "ca-cert.pem").write_bytes((pki / "ca-cert.pem").read_bytes())
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "ca-cert.pem").write_bytes((pki / "ca-cert.pem").read_bytes())
    for name in ("client-cert.pem", "client-key.pem"):
        (mixed / name).write_bytes((strangers / name).read_bytes())
    with serving(of(pki, verify=True)) as (_, address):
        assert describe(replace(address, tls=trusting(pki))).size == SIZE
        for directory in (anonymous, mixed):
            # in TLS 1.3 the client has finished before the server has looked at its certificate
            with pytest.raises((TlsError, ConnectionLost)):
                describe(replace(address, tls=trusting(directory)))
        assert describe(replace(address, tls=trusting(pki))).size == SIZE


def test_a_revoked_certificate(pki: Path, tmp_path: Path) -> None:
    """`ca-crl.pem` beside the authority counts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca-cert.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server-cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server-key.pem")
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    mine = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    now = mine.not_valid_before_utc
    entry = x509.RevokedCertificateBuilder().serial_number(mine.serial_number).revocation_date(now).build()
    listed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(mine.not_valid_after_utc)
    )
    with serving(of(tmp_path)) as (_, address):
        address = replace(address, tls=trusting(tmp_path))
        for revoked in (False, True):
            builder = listed.add_revoked_certificate(entry) if revoked else listed
            crl = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
            (tmp_path / "ca-crl.pem").write_bytes(crl.public_bytes(serialization.Encoding.PEM))
            if not revoked:
                assert describe(address).size == SIZE
        with pytest.raises(TlsError, match="certificate revoked"):
            describe(address)


def test_plain_clients(pki: Path) -> None:
    """Where TLS is required they get nothing and are told; where it is not they are served."""
    with serving(of(pki)) as (_, address):
        plain = replace(address, tls=None)
        with pytest.raises(NegotiationError, match="NBD_REP_ERR_TLS_REQD"):
            Client(plain)
        with pytest.raises(NegotiationError, match="NBD_REP_ERR_TLS_REQD"):
            list_exports(plain)
    with serving(of(pki, required=False)) as (_, address):
        assert address.tls is None
        assert describe(address).size == SIZE
        assert describe(replace(address, tls=trusting(pki))).size == SIZE


def test_a_server_without_tls(server: Server) -> None:
    """A client that wants it goes no further."""
    with pytest.raises(NegotiationError, match="refused TLS: NBD_REP_ERR_POLICY"):
        Client(replace(server.listen_tcp(), tls=ClientTls()))


def greeted(address: Address) -> socket.socket:
    """A connection on which the client's flags are still to be sent."""
    sock = socket.create_connection((address.host, address.port), timeout=PROMPT)
    assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
    return sock


def test_what_was_put_behind_starttls_is_not_heard(pki: Path) -> None:
    """Options in the same packet as NBD_OPT_STARTTLS, by whoever sits between, end the connection."""
    injected = Option(Opt.LIST).pack() + Option(Opt.STRUCTURED_REPLY).pack()
    with serving(of(pki, required=False)) as (_, address), greeted(address) as sock:
        sock.sendall(ClientFlags(3).pack() + Option(Opt.STARTTLS).pack() + injected)
        answer = b""
        with suppress(ConnectionError):  # it may be reset, as what we sent was not read to the end
            while data := sock.recv(4096):
                answer += data
        granted, rest = answer[:20], answer[20:]
        assert granted.hex() == "0003e889045565a9" + "00000005" + "00000001" + "00000000"
        assert b"disk" not in rest
        assert bytes.fromhex("0003e889045565a9") not in rest
        assert not rest or rest[0] == 21  # a TLS alert
        assert describe(address).size == SIZE


def test_what_was_put_behind_the_grant_is_not_heard(pki: Path) -> None:
    """A client takes what follows the grant for TLS and nothing else."""
    with socket.create_server(("localhost", 0)) as listener:

        def impostor() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"NBDMAGICIHAVEOPT\0\3")
                sock.recv(20, socket.MSG_WAITALL)
                grant = bytes.fromhex("0003e889045565a9" + "00000005" + "00000001" + "00000000")
                sock.sendall(grant + bytes.fromhex("0003e889045565a9" + "00000008" + "00000001" + "00000000"))
                sock.recv(1 << 16)

        thread = threading.Thread(target=impostor)
        thread.start()
        address = Address(host="localhost", port=listener.getsockname()[1], tls=trusting(pki))
        with pytest.raises(TlsError, match=r"TLS failed: (packet length too long|wrong version number)"):
            Client(address)
        thread.join(PROMPT)


def test_a_tls_handshake_takes_only_so_long(pki: Path) -> None:
    """A client that asks for TLS and then says nothing, or trickles bytes, is cut off like any other."""
    with (
        MemoryBackend(SIZE) as backend,
        Server(backend, tls=of(pki), handshake_timeout=0.3) as server,
    ):
        address = server.listen_tcp("localhost")
        server.start()
        begin = time.monotonic()
        with greeted(address) as sock:
            sock.sendall(ClientFlags(3).pack() + Option(Opt.STARTTLS).pack())
            sock.recv(20, socket.MSG_WAITALL)
            with suppress(ConnectionError):
                while time.monotonic() - begin < 2 * PROMPT:
                    sock.sendall(b"\x16")
                    time.sleep(0.05)
        assert time.monotonic() - begin < PROMPT


def test_a_server_ends_encrypted_connections(pki: Path) -> None:
    """A clean shutdown drains and ends clients with TLS, at once; afterwards a request fails."""
    with serving(of(pki)) as (server, address), Client(replace(address, tls=trusting(pki))) as client:
        client.write(0, memoryview(b"x"))
        begin = time.monotonic()
        server.close()
        assert time.monotonic() - begin < 1.0
        with pytest.raises(ConnectionLost):
            client.write(0, memoryview(b"y"))


def test_both_directions_at_once(pki: Path) -> None:
    """One thread receives while others send, on one TLS socket, and nothing is mixed up."""
    near, far = socket.socketpair()
    ends = [TlsSocket(near.detach()), TlsSocket(far.detach())]
    contexts = [server_context(of(pki)), client_context(trusting(pki))]
    for end in ends:
        end.settimeout(PROMPT)
    threads = [
        threading.Thread(
            target=ends[number].begin,
            args=(contexts[number],),
            kwargs={"server": number == 0, "hostname": "localhost", "seconds": PROMPT},
        )
        for number in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(end.encrypted for end in ends)
    data = os.urandom(1 << 20)
    received = [memoryview(bytearray(2 * len(data))) for _ in ends]

    def take(number: int) -> None:
        assert ends[number].recv_into(received[number], 0, socket.MSG_WAITALL) == 2 * len(data)

    def give(number: int) -> None:
        for piece in (data[:100], data[100:]):
            ends[number].sendall(piece)
        assert ends[number].sendmsg([data[:5], memoryview(data)[5:]]) == len(data)

    workers = [threading.Thread(target=work, args=(n,)) for work in (take, give) for n in (0, 1)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert all(bytes(each) == 2 * data for each in received)
    ends[0].close()
    assert ends[1].recv_into(bytearray(1)) == 0
    ends[1].close()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (ServerTls(), "either a directory of certificates or a file of pre-shared keys"),
        (ServerTls(certificates="/nonexistent"), "cannot use '/nonexistent/server-cert.pem' .*No such file"),
        (ServerTls(psk="/nonexistent"), "cannot read the keys in '/nonexistent': No such file"),
    ],
)
def test_credentials_that_are_not_there(settings: ServerTls, complaint: str) -> None:
    """The server does not start, and says which file."""
    with MemoryBackend(1) as backend, pytest.raises(TlsError, match=complaint):
        Server(backend, tls=settings)


def test_credentials_that_do_not_fit(pki: Path, strangers: Path, tmp_path: Path) -> None:
    """A key of another certificate, an authority that is none, and none where clients shall be verified."""
    for name, source in (("server-cert.pem", pki), ("server-key.pem", strangers)):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(TlsError, match="KEY_VALUES_MISMATCH"):
        server_context(of(tmp_path))
    (tmp_path / "server-key.pem").write_bytes((pki / "server-key.pem").read_bytes())
    with pytest.raises(TlsError, match=r"cannot use the authority .*ca-cert.pem"):
        server_context(of(tmp_path, verify=True))
    (tmp_path / "ca-cert.pem").write_text("nothing")
    with pytest.raises(TlsError, match=r"cannot use the authority"):
        client_context(trusting(tmp_path))


def test_files_of_keys(tmp_path: Path) -> None:
    """As psktool writes them; what is wrong is told by its line, never by its text."""
    path = tmp_path / "keys"
    path.write_text("# users\nalice:0102\n\nbob:with:colon:ff\n")
    assert read_keys(str(path)) == {"alice": b"\1\2", "bob:with:colon": b"\xff"}
    for text, complaint in (
        ("", "has no key"),
        ("alice:x1", "line 1"),
        ("alice:", "line 1"),
        (":ff", "line 1"),
    ):
        path.write_text(text)
        with pytest.raises(TlsError, match=complaint) as caught:
            read_keys(str(path))
        assert "x1" not in str(caught.value)


def test_pre_shared_keys(tmp_path: Path) -> None:
    """A key both ends have, where this Python knows how; elsewhere a sentence that says what is needed."""
    path = tmp_path / "keys"
    path.write_text("alice:00112233445566778899aabbccddeeff\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("alice:ffeeddccbbaa99887766554433221100\nbob:00\n")
    client = ClientTls(psk=str(path), user="alice")
    if not hasattr(ssl.SSLContext, "set_psk_server_callback"):
        with pytest.raises(TlsError, match=PSK_NEEDS) as caught:
            server_context(ServerTls(psk=str(path)))
        assert caught.value.hint == "use certificates"
        with pytest.raises(TlsError, match=PSK_NEEDS):
            client_context(client)
        return
    with serving(ServerTls(psk=str(path)), tmp_path / "s") as (_, address):
        assert describe(replace(address, tls=client)).size == SIZE
        for other in (ClientTls(psk=str(wrong), user="alice"), ClientTls(psk=str(wrong), user="bob")):
            with pytest.raises((TlsError, ConnectionLost)):
                describe(replace(address, tls=other))
        uri = f"nbds+unix://alice@/disk?socket={address.path}&tls-psk-file={path}"
        assert json.loads(run("nbdinfo", "--json", uri))["TLS"] is True


def test_a_user_without_a_key(tmp_path: Path) -> None:
    """It is said before anything is sent."""
    path = tmp_path / "keys"
    path.write_text("alice:00\n")
    with pytest.raises(TlsError, match="no key of the user 'bob'"):
        client_context(ClientTls(psk=str(path), user="bob"))


def test_the_kernel_cannot_encrypt(pki: Path) -> None:
    """Handing it an encrypted socket would send plain requests into it: refused, with the way around."""
    with serving(of(pki)) as (_, address):
        with pytest.raises(AttachError, match="cannot speak") as caught:
            connect_sockets(replace(address, tls=trusting(pki)), 1)
        assert "--remote" in (caught.value.hint or "")


def test_the_command_line(pki: Path, tmp_path: Path) -> None:
    """`nbd serve` with certificates, and `nbd info` by the address that it prints and what a client adds."""
    options = ["--tls-certificates", str(pki), "--tls-verify-peer", "--unix", str(tmp_path / "s")]
    with command_line.serving("--memory", "1M", *options) as (_, address):
        assert address.tls == ClientTls()
        refused = command_line.ioflusher_nbd("info", replace(address, tls=None).uri)
        assert (refused.returncode, "begin the address with nbds" in refused.stderr) == (2, True)
        done = command_line.ioflusher_nbd("info", replace(address, tls=trusting(pki)).uri)
        assert (done.returncode, "size: 1048576\n" in done.stdout) == (0, True), done.stderr


# Judges: GnuTLS on the other end.


def test_libnbd_over_tls(pki: Path, tmp_path: Path) -> None:
    """nbdinfo and nbdcopy with a certificate of their own, over TCP; no image is changed on the way."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(SIZE))
    with serving(of(pki, verify=True)) as (server, address):
        uri = replace(address, tls=trusting(pki)).uri
        found = json.loads(run("nbdinfo", "--json", "--no-content", uri))
        assert (found["TLS"], found["exports"][0]["export-size"]) == (True, SIZE)
        run("nbdcopy", "--flush", str(image), uri)
        run("nbdcopy", uri, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == image.read_bytes()
        assert server.counters().errors == 0


def test_libnbd_refuses_a_stranger(pki: Path, strangers: Path) -> None:
    """GnuTLS does not trust a server of another authority; ours notices and goes on."""
    with serving(of(strangers)) as (_, address):
        uri = replace(address, tls=trusting(pki)).uri
        done = subprocess.run(
            [need("nbdinfo"), uri], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode != 0
        assert "certificate" in done.stderr
        assert describe(replace(address, tls=trusting(strangers))).size == SIZE


def test_qemu_over_tls(pki: Path, tmp_path: Path) -> None:
    """QEMU's client with its own credentials object."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(SIZE))
    with serving(of(pki, verify=True)) as (_, address):
        server = f"server.type=inet,server.host=localhost,server.port={address.port}"
        target = f"driver=nbd,{server},export=disk,tls-creds=tls0"
        secret = f"tls-creds-x509,id=tls0,endpoint=client,dir={pki}"
        common = ["--object", secret, "-n", "-f", "raw"]
        run("qemu-img", "convert", *common, "--target-image-opts", str(image), target)
        other = f"driver=nbd,{server},export=disk,tls-creds=tls0"
        said = run(
            *("qemu-img", "compare", "--object", secret, "--image-opts"),
            *(f"driver=raw,file.driver=file,file.filename={image}", other),
        )
        assert "identical" in said


def test_our_client_of_nbdkit_over_tls(pki: Path, strangers: Path, tmp_path: Path) -> None:
    """A foreign server with certificates that verifies its clients."""
    path = tmp_path / "nbdkit"
    pid = tmp_path / "pid"
    arguments = ["--tls=require", f"--tls-certificates={pki}", "--tls-verify-peer", "memory", str(SIZE)]
    process = subprocess.Popen(
        [need("nbdkit"), "--foreground", f"--unix={path}", f"--pidfile={pid}", *arguments],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not pid.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        address = Address(path=str(path), tls=trusting(pki))
        with Client(address) as client:
            data = memoryview(os.urandom(300_000))
            client.write(0, data)
            found = memoryview(bytearray(len(data)))
            client.read_into(0, found)
            assert found == data
        with pytest.raises(NbdError):
            describe(replace(address, tls=trusting(strangers)))
        with pytest.raises(NegotiationError, match="TLS_REQD"):
            describe(replace(address, tls=None))
    finally:
        process.terminate()
        process.wait(60)


def test_a_forwarding_server_connects_again_encrypted(pki: Path) -> None:
    """Requests of several threads on two connections, cut in between: all are done, and encrypted."""
    with (
        serving(of(pki)) as (server, address),
        RemoteBackend(replace(address, tls=trusting(pki)), connections=2) as backend,
    ):
        room = memoryview(bytearray(4096))
        backend.write(0, memoryview(b"x" * 4096))
        for peer in list(server._peers):
            peer.hang_up(socket.SHUT_RDWR)
        backend.read_into(0, room)
        assert bytes(room) == b"x" * 4096
