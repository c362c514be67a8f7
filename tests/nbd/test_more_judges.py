"""More of other people's NBD programs as judges of the handshake and of what they make of several exports.

They come from the Debian packages libnbd-bin, python3-libnbd, qemu-utils and nbd-client.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.nbd import test_cli as command_line
from tests.nbd.fuzz_handshake import fuzz
from tests.nbd.test_judges import run

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import FileBackend, MemoryBackend
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


def test_fuzz_both_ends_of_the_handshake() -> None:
    """The invariant of tests/nbd/fuzz_handshake.py, for as many inputs as a second has room for."""
    fuzz(800, 0)
