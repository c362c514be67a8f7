"""More of other people's NBD programs as judges of the handshake and of what they make of several exports.

They come from the Debian packages libnbd-bin, python3-libnbd, qemu-utils, nbd-client and fio.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.nbd import fuzz_server
from tests.nbd import test_cli as command_line
from tests.nbd.test_judges import DEADLINE, run
from tests.needs import need

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import FileBackend, MemoryBackend
from ioflusher.nbd.backends.specification import open_backend
from ioflusher.nbd.server import Server

pytestmark = pytest.mark.live

SIZE = 1 << 20


@pytest.fixture
def address(tmp_path: Path) -> Iterator[Address]:
    """A file with a hole in its middle, as `disk`, and memory, as `tape`."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.write(b"a" * 65536)
        file.truncate(SIZE)
        file.seek(SIZE - 65536)
        file.write(b"b" * 65536)
    with (
        FileBackend(image) as disk,
        MemoryBackend(2 * SIZE) as tape,
        Server(disk, export="disk", description="the \N{SNOWMAN} disk") as server,
    ):
        server.add_export("tape", tape)
        bound = server.listen_unix(str(tmp_path / "s"))
        server.start()
        yield bound


@pytest.fixture
def debians_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """nbdsh is `python3 -m nbd`, and only the distribution's Python has that module."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def test_nbdinfo_lists_several_exports(address: Address) -> None:
    """Names, sizes, descriptions and contexts of both."""
    found = json.loads(run("nbdinfo", "--json", "--list", "--no-content", address.with_export("").uri))
    first, second = found["exports"]
    assert (first["export-name"], first["description"]) == ("disk", "the \N{SNOWMAN} disk")
    assert (second["export-name"], second["export-size"]) == ("tape", 2 * SIZE)
    assert "description" not in second
    assert first["contexts"] == second["contexts"] == ["base:allocation"]
    assert found["structured"] is True


def test_nbdinfo_maps_a_hole(address: Address) -> None:
    """Block status of a file: data, hole, data, to the byte."""
    extents = json.loads(run("nbdinfo", "--json", "--map", address.uri))
    found = [(each["offset"], each["length"], each["type"]) for each in extents]
    assert found == [(0, 65536, 0), (65536, SIZE - 131072, 3), (SIZE - 65536, 65536, 0)]


def test_nbddump_skips_the_hole(address: Address) -> None:
    """Block status and structured READs together show what is there."""
    shown = run("nbddump", address.uri)
    assert shown.splitlines()[0].startswith("0000000000: 61 61 61")
    assert "00000f0000: 62 62" in shown


@pytest.mark.usefixtures("debians_python")
def test_nbdsh_haggles(address: Address) -> None:
    """Every option by hand: what is granted, in which order it matters, and what is refused."""
    script = (
        "h.set_opt_mode(True)",
        "h.set_full_info(True)",
        "h.add_meta_context('base:allocation')",
        f"h.connect_uri({address.uri!r})",
        "names = []",
        "h.opt_list(lambda name, text: names.append((name, text)))",
        "contexts = []",
        "h.opt_list_meta_context(lambda name: contexts.append(name))",
        "h.opt_info()",
        "print(h.get_size(), h.get_structured_replies_negotiated(), contexts, names[1])",
        "h.set_export_name('tape')",
        "h.opt_info()",
        "print(h.get_size(), h.get_canonical_export_name())",
        "h.set_export_name('drum')",
        "\ntry:\n    h.opt_info()\nexcept nbd.Error as error:\n    print(error.errnum)",
        "h.set_export_name('disk')",
        "h.opt_go()",
        "print(h.pread(3, 65534))",
        "h.shutdown()",
    )
    words = [word for line in script for word in ("-c", line)]
    size, other, refused, data = run("nbdsh", *words).splitlines()
    assert size == f"{SIZE} True ['base:allocation'] ('tape', '')"
    assert other == f"{2 * SIZE} tape"
    assert refused == "2"  # ENOENT
    assert "aa" in data


def test_qemu_io_writes_and_verifies(address: Address) -> None:
    """QEMU's own patterns: writes, zeroes, discards, unaligned pieces, each read back."""
    steps = ("write -P 7 1000 70000", "write -z 2000 3000", "discard 65536 65536", "flush")
    checks = ("read -P 7 1000 1000", "read -P 0 2000 3000", "read -P 7 5000 60000")
    words = [word for step in (*steps, *checks) for word in ("-c", step)]
    said = run("qemu-io", "-f", "raw", *words, address.with_export("tape").uri)
    assert "verification failed" not in said


HUGE = (6 << 30) + 4096  # bytes
DATA = range(1 << 20, 129 << 20)  # where the huge file has data
LONGEST = (1 << 32) - 1  # bytes; of a request's length field


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A file of 6 GiB that is a hole but for 128 MiB."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(HUGE)
        file.seek(DATA.start)
        for _ in range(len(DATA) >> 20):
            file.write(b"d" * (1 << 20))
    return path


@pytest.fixture
def huge_address(huge: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Address]:
    """A server of the file, by what its back end is called with the path in it; "remote": forwarded."""
    forwarded = request.param == "remote"
    with ExitStack() as stack:
        where = ""
        for text in ("file:{}", "remote:{}") if forwarded else (request.param,):
            backend = stack.enter_context(open_backend(text.format(where or huge)))
            server = stack.enter_context(Server(backend))
            address = server.listen_unix(str(tmp_path / f"huge-{bool(where)}"))
            server.start()
            where = address.uri
        yield address


# alone, with a layer in blocks beside, put together from parts, and through a filter
ON_FILES = [
    "file:{0}",
    "overlay:file:{0}",
    "concat:part,offset=0,size=64M:file:{0} + part,offset=64M:file:{0}",
    "slow,seconds=0:file:{0}",
]


@pytest.mark.parametrize("huge_address", ON_FILES, indirect=True)
@pytest.mark.usefixtures("debians_python")
def test_block_status_of_the_longest_range(huge_address: Address) -> None:
    """Known bugs of others: a length one too long (CVE-2025-47711), an overflow of 32 bits (CVE-2025-47712).

    libnbd asks for 4 GiB less one byte, at an odd place too, and for as much as there is at the end. What it
    gets begins with the right extent, covers no more than was asked, and the connection goes on.
    """
    script = f"""
def ask(length, offset):
    found = []
    h.block_status(length, offset, lambda name, at, entries, error: found.extend(entries) or 0)
    lengths, kinds = found[::2], found[1::2]
    print(sum(lengths) <= length and min(lengths) > 0, lengths[0], kinds[0])
ask({LONGEST}, 0)
ask({LONGEST}, {DATA.start} + 1)
ask({LONGEST}, {HUGE} - {LONGEST})
ask({LONGEST}, {DATA.stop})
ask(1, {HUGE} - 1)
print(h.pread(4, {DATA.start}))
"""
    connect = f"h.add_meta_context('base:allocation'); h.connect_uri({huge_address.uri!r})"
    said = run("nbdsh", "-c", connect, "-c", script).splitlines()
    assert said[0] == f"True {DATA.start} 3"
    assert said[1] == f"True {len(DATA) - 1} 0"
    for line in said[2:4]:
        good, length, kind = line.split()
        assert (good, kind) == ("True", "3")
        assert LONGEST - (64 << 10) <= int(length) <= LONGEST, "a layer's blocks are of 64 KiB"
    assert said[4] == "True 1 3"
    assert "dddd" in said[5]


@pytest.mark.parametrize("huge_address", [*ON_FILES, "remote"], indirect=True)
@pytest.mark.usefixtures("debians_python")
def test_zeroes_of_more_than_64_mib(huge_address: Address) -> None:
    """A known bug of others: of a longer request for zeroes 64 MiB were zeroed and all was acknowledged."""
    places = (0, 64 << 20, (64 << 20) - 4096, (100 << 20) - 1, 100 << 20)
    reads = "; ".join(f"print(h.pread(1, {DATA.start + place}))" for place in places)
    script = f"h.zero({100 << 20}, {DATA.start}); h.flush(); {reads}"
    said = run("nbdsh", "--uri", huge_address.uri, "-c", script).splitlines()
    assert said == [r"bytearray(b'\x00')"] * 4 + ["bytearray(b'd')"]


def test_qemu_nbd_is_a_client(address: Address, tmp_path: Path) -> None:
    """QEMU's block layer between libnbd and our server: what is copied in comes out, at ours as well."""
    ours = address.with_export("tape").uri
    content = tmp_path / "content"
    content.write_bytes(b"c" * SIZE + bytes(SIZE))
    middle = tmp_path / "q"
    argv = [need("qemu-nbd"), "--format=raw", "--persistent", "--shared=4", f"--socket={middle}", ours]
    with subprocess.Popen(argv) as qemu:
        try:
            deadline = time.monotonic() + DEADLINE
            while not middle.is_socket():
                assert qemu.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            run("nbdcopy", "--flush", str(content), f"nbd+unix:///?socket={middle}")
            run("nbdcopy", f"nbd+unix:///?socket={middle}", str(tmp_path / "through"))
        finally:
            qemu.terminate()
            qemu.wait(DEADLINE)
    run("nbdcopy", ours, str(tmp_path / "direct"))
    assert (tmp_path / "through").read_bytes() == content.read_bytes()
    assert (tmp_path / "direct").read_bytes() == content.read_bytes()


def test_fio_verifies(address: Address) -> None:
    """fio's nbd engine: writes of mixed lengths, 32 at once, each with a checksum, all read and compared."""
    job = ["--ioengine=nbd", f"--uri={address.with_export('tape').uri}", "--rw=randwrite"]
    job += ["--bsrange=512-65536", "--iodepth=32", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"]
    job += ["--verify_state_save=0"]
    said = run("fio", "--name=verify", *job)
    assert "err= 0" in said
    assert "READ: " in said, "all was read back"


def test_nbd_client_lists(tmp_path: Path) -> None:
    """The reference implementation's client, over TCP and NBD_OPT_LIST."""
    exports = ["a=memory:1M", "b=memory:2M"]
    with command_line.serving("--tcp", "127.0.0.1:0", *exports) as (_, bound):
        said = run("nbd-client", "-l", "127.0.0.1", str(bound.port))
    assert {"a", "b"} <= set(said.split())


@pytest.mark.usefixtures("debians_python")
def test_a_server_on_standard_input() -> None:
    """As inetd starts one: nbdsh hands over a socket; the server ends with its client, status 0."""
    serve = [*command_line.PROGRAM, "serve", "--no-io-flusher", "--stdio", "--memory", "3M"]
    script = f"h.connect_command({serve!r}); print(h.get_size()); h.shutdown()"
    assert run("nbdsh", "-c", script) == f"{3 << 20}\n"


def test_standard_input_that_is_no_socket() -> None:
    """It is said, and what goes with it is not asked twice."""
    ended = subprocess.run(
        [*command_line.PROGRAM, "serve", "--no-io-flusher", "--stdio", "--memory", "1M"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, "standard input is no socket" in ended.stderr) == (2, True)


def test_nbdkits_seeds(tmp_path: Path) -> None:
    """The conversations that nbdkit gives its fuzzer, undamaged: each is answered as it should be."""
    greeting, entered, read = 18, 20 + 12 + 20, 16 + 512
    with fuzz_server.served() as (where, failed):
        heard = {name: fuzz_server.say(where, data) for name, data in fuzz_server.SEEDS.items()}
    assert not failed
    assert heard["flags"] == greeting
    assert heard["export name"] == heard["export name, 4 reads"] == greeting, "there is no export '/'"
    assert heard["go, read"] - heard["go"] == read
    assert heard["go, 4 reads"] - heard["go"] == 4 * read
    assert heard["go, write"] - heard["go"] == 16
    assert heard["go"] >= greeting + entered


def test_fuzz_the_whole_server() -> None:
    """The invariant of tests/nbd/fuzz_server.py, for as many conversations as a second has room for."""
    fuzz_server.fuzz(300, 0)
