"""Other projects' tests, built and run against our server, and a table of what came out.

    python -m tests.nbd.interop [--suite NAME] [--libnbd DIR] [--nbd DIR] [--python PROGRAM]
        [--only WORD]

The sources and the programs come from a suite of the distribution (apt; see archive.py) or, the sources, from
folders that are given. All is built and kept in build/interop; the table is also left there. Exit status 1:
a test failed.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.nbd.interop.archive import Archive
from tests.nbd.test_tls import make_pki

from ioflusher.nbd.address import Address, parse_uri
from ioflusher.nbd.backends import RemoteBackend
from ioflusher.nbd.client import Client
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag
from ioflusher.nbd.tls.contexts import PSK_NEEDS

HERE = Path(__file__).parent
TOP = HERE.parents[2]
DEADLINE = 900.0  # seconds for any one test
SKIPPED = 77  # automake's exit status for it
SERVE = ["-m", "ioflusher", "nbd", "serve", "--no-io-flusher"]
PLACES = [str(TOP / "src"), str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(PLACES)}
NBD_CONFIG = """
#define SIZEOF_UNSIGNED_SHORT_INT 2
#define SIZEOF_UNSIGNED_INT 4
#define SIZEOF_UNSIGNED_LONG_INT 8
#define SIZEOF_UNSIGNED_LONG_LONG_INT 8
#define HAVE_FDATASYNC 1
#define HAVE_MKSTEMP 1
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test came to: "pass", "FAIL" or "skip", and why."""

    judge: str
    test: str
    result: str
    why: str = ""


class Failed(Exception):
    """A test's complaint."""


class Skipped(Exception):
    """Why a test cannot be run here."""


Test = tuple[str, Callable[[], None]]


class Bench:
    """Where tests are built and run.

    Args:
        archive: the packages.
        place: a folder for what is built.
        python: what runs our server.
    """

    def __init__(self, archive: Archive, place: Path, python: str) -> None:
        self.archive = archive
        self.python = python
        self.cwd = place / "interop"  # tests look for ../tests/pki
        self._numbers = itertools.count()
        shutil.rmtree(place, ignore_errors=True)
        self.cwd.mkdir(parents=True)
        (place / "tests" / "pki").mkdir(parents=True)
        make_pki(place / "tests" / "pki")
        (place / "tests" / "keys.psk").write_text("alice:0123456789abcdef0123456789abcdef\n")

    def build(self, sources: list[Path], *options: str, config: str = "") -> list[str]:
        """Compile and link a test; returns the words that run it."""
        folder = self.cwd / f"build{next(self._numbers)}"
        folder.mkdir()
        (folder / "config.h").write_text(config)
        libraries = self.archive.libraries
        words = ["gcc", "-w", "-O1", f"-I{folder}", "-o", folder / "test", *sources]
        words += [f"-I{self.archive.root}/usr/include", *options]
        # the libraries want a newer C library than the one here, and get it when they run
        words += [f"-L{library}" for library in libraries]
        words += ["-Wl,--allow-shlib-undefined", *(f"-Wl,-rpath-link,{library}" for library in libraries)]
        words += [f"-l{word[2:]}" for word in options if word.startswith("-l")]
        self.run([str(word) for word in words])
        return self.archive.program(folder / "test")

    def run(self, words: list[str]) -> str:
        """Run something to its end; its output.

        Raises:
            Failed: it did not succeed.
            Skipped: it says that it cannot be run here.
        """
        try:
            result = subprocess.run(
                words,
                cwd=self.cwd,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DEADLINE,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"no end after {DEADLINE:g} s") from error
        said = (result.stdout + result.stderr).strip()
        if result.returncode == SKIPPED:
            raise Skipped(said.splitlines()[-1] if said else "it says so")
        if result.returncode:
            raise Failed(said[-2000:] or f"status {result.returncode}")
        return result.stdout

    @contextmanager
    def serving(self, *options: str, socket: str = "unix") -> Iterator[Address]:
        """Our server as a process of its own; it has an image of 50 MB where no other export is given."""
        image = self.cwd / "image"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(50 << 20)
        if not any("=" in option and not option.startswith("-") for option in options):
            options = ("--file", str(image), "--export", "disk", *options)
        path = self.cwd / "socket"
        where = ["--unix", str(path)] if socket == "unix" else ["--tcp", "127.0.0.1:0"]
        server = subprocess.Popen(
            [self.python, *SERVE, *where, *options],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            if words[:2] != ["listening", "on"]:
                raise Failed("the server did not start")
            yield parse_uri(words[2])
        finally:
            server.terminate()
            server.wait(DEADLINE)


def c_strings(words: list[str]) -> str:
    """Words as a list of C strings; TMPFILE stays the test's own."""
    return ", ".join(word if word == "TMPFILE" else json.dumps(word) for word in words)


def libnbd_tests(bench: Bench, sources: Path) -> Iterator[Test]:
    """What libnbd's interop folder has for servers that start on a socket that it hands over."""
    interop = sources / "interop"
    text = (interop / "interop.c").read_text()
    includes = [f"-I{sources}/common/include", f"-I{sources}/tests", f"-I{interop}", "-lnbd"]
    requires = next(path for path in (interop, sources / "tests") if (path / "requires.c").exists())
    certificates = json.dumps("../tests/pki") if "defined(CERTS)" in text else "1"
    keys = json.dumps("../tests/keys.psk") if "defined(PSK)" in text else "1"

    def compiled(name: str, parameters: list[str], *defines: str) -> list[str]:
        return bench.build(
            [interop / f"{name}.c", requires / "requires.c"],
            *includes,
            f"-DSERVER={json.dumps(bench.python)}",
            f"-DSERVER_PARAMS={c_strings([*SERVE, *parameters])}",
            "-DNEEDS_TMPFILE=1",
            *(f"-D{define}" for define in defines),
        )

    def ours(what: str, name: str, parameters: list[str], *defines: str) -> Test:
        return what, lambda: void(bench.run(compiled(name, parameters, *defines)))

    disk, stdio, active = ["--file", "TMPFILE"], ["--stdio"], "SOCKET_ACTIVATION=1"
    tls = ["--tls-certificates", "../tests/pki"]
    certified = (f"CERTS={certificates}", "TLS_MODE=LIBNBD_TLS_REQUIRE")
    for form, more in (("", []), (", extended headers", ["--extended-headers"])):
        yield ours(f"interop.c, --stdio{form}", "interop", stdio + disk + more)
        yield ours(f"interop.c, socket activation{form}", "interop", disk + more, active)
        yield ours(f"interop.c, TLS required{form}", "interop", stdio + disk + tls + more, *certified)
    yield ours(
        "interop.c, TLS required, client verified",
        "interop",
        [*stdio, *disk, *tls, "--tls-verify-peer"],
        *certified,
    )
    allowed = (f"CERTS={certificates}", "TLS_MODE=LIBNBD_TLS_ALLOW")
    yield ours("interop.c, TLS allowed and there", "interop", stdio + disk + tls, *allowed)
    yield ours("interop.c, TLS allowed and not there", "interop", stdio + disk, *allowed, "TLS_FALLBACK=1")
    if "EXPECT_FAIL" in text:
        fails = ("TLS_MODE=LIBNBD_TLS_REQUIRE", "EXPECT_FAIL=1")
        yield ours("interop.c, another CA", "interop", stdio + disk + tls, "CERTS=NULL", *fails)
        bad = 'TLS_HOSTNAME="this.is.bad.example.com"'
        yield ours(
            "interop.c, another host", "interop", stdio + disk + tls, f"CERTS={certificates}", bad, *fails
        )
    shared = ["--tls-psk", "../tests/keys.psk"]

    def with_key(*defines: str) -> Callable[[], None]:
        def test() -> None:
            if subprocess.run(
                [bench.python, "-c", "import sys; sys.exit(sys.version_info < (3, 13))"]
            ).returncode:
                raise Skipped(PSK_NEEDS)
            bench.run(compiled("interop", stdio + disk + shared, f"PSK={keys}", *defines))

        return test

    yield "interop.c, pre-shared key", with_key("TLS_MODE=LIBNBD_TLS_REQUIRE")
    exports = ["disk=memory:1M", "tape=memory:2M", "--describe", "tape=the last one"]
    names = ('EXPORTS="disk", "tape"', 'DESCRIPTIONS="", "the last one"')
    yield ours("list-exports.c, --stdio", "list-exports", stdio + exports, *names)
    yield ours("list-exports.c, socket activation", "list-exports", exports, *names, active)
    if (interop / "socket-activation.c").exists():
        yield ours("socket-activation.c", "socket-activation", ["--file", "TMPFILE"], "TMPFILE=tmpfile")
    bitmap, extended = "qemu:dirty-bitmap:bitmap0", ["--extended-headers"]
    for name, first, kind, more in (
        ("dirty-bitmap", [bitmap], "Dirty", []),
        ("opt-extended-headers", [], "Large", extended),
        ("block-status-64", [bitmap], "Large", extended),
        ("block-status-payload", [], "Large", extended),
    ):
        server = [bench.python, *SERVE, *more, "--python", f"{HERE / 'bitmaps.py'}:{kind}"]
        if (interop / f"{name}.c").exists():
            yield f"{name}.c", _with_arguments(bench, interop / f"{name}.c", includes, [*first, *server])


def _with_arguments(bench: Bench, source: Path, options: list[str], words: list[str]) -> Callable[[], None]:
    return lambda: void(bench.run([*bench.build([source], *options), *words]))


def nbd_tests(bench: Bench, sources: Path) -> Iterator[Test]:
    """nbd-tester-client as tests/run/simple_test of NetworkBlockDevice/nbd calls it."""
    folder = sources / "tests" / "run"
    built: list[str] = []

    def tester(*words: str) -> None:
        if not built:
            bench.archive.unpack_alone(
                "libgio-2.0-dev", "libglib2.0-dev"
            )  # the headers are in the first one there is
            glib = [f"-I{library}/glib-2.0/include" for library in bench.archive.libraries]
            built[:] = bench.build(
                [folder / "nbd-tester-client.c", sources / "cliserv.c"],
                f"-I{sources}",
                f"-I{bench.archive.root}/usr/include/glib-2.0",
                *glib,
                "-lglib-2.0",
                "-DISSERVER",  # without it there is no inetd test
                config=NBD_CONFIG,
            )
        bench.run([*built, "-N", "disk", *words])

    def over(socket: str, *words: str, options: tuple[str, ...] = ()) -> Callable[[], None]:
        def test() -> None:
            with bench.serving(*options, socket=socket) as address:
                where = (
                    ["-u", str(address.path)] if socket == "unix" else [str(address.host), str(address.port)]
                )
                tester(*words, *where)

        return test

    for socket in ("tcp", "unix"):
        yield f"cfg1, read, {socket}", over(socket)
        yield f"write, {socket}", over(socket, "-w")
        yield f"flush, {socket}", over(socket, "-w", "-f")
        yield f"handshake, {socket}", over(socket, "-h")
        yield f"integrity, {socket}", over(socket, "-i", "-t", str(folder / "integrity-test.tr"))
    yield "rowrite, tcp", over("tcp", "-w", "-F", options=("--readonly",))
    yield "cfgsize, requests of more than 1 MiB, tcp", over("tcp", "-o")
    huge = ("-i", "-t", str(folder / "integrityhuge-test.tr"))
    yield "integrityhuge, --max-payload 64M, tcp", over("tcp", *huge, options=("--max-payload", "64M"))

    def inetd() -> None:
        image = bench.cwd / "image"
        with image.open("wb") as file:
            file.truncate(50 << 20)
        server = [bench.python, *SERVE, "--stdio", "--export", "disk", "--file", str(image)]
        tester("-I", "--", *server)

    yield "inetd, --stdio", inetd


def program_tests(bench: Bench) -> Iterator[Test]:
    """Clients that speak extended headers, and a server that does, where the suite is new enough."""
    extended = ("--extended-headers",)

    def client(program: str, *words: str) -> str:
        return bench.run([*bench.archive.program(f"usr/bin/{program}"), *words])

    def nbdinfo() -> None:
        with bench.serving(*extended) as address:
            said = client("nbdinfo", address.uri)
        if "using extended packets" not in said:
            raise Skipped("it does not speak them")

    def nbdinfo_map() -> None:
        exports = (*extended, f"disk=python:{HERE / 'bitmaps.py'}:Large")
        with bench.serving(*exports) as address:
            said = client("nbdinfo", "--map", "--json", address.uri)
        found = [(entry["offset"], entry["length"], entry["type"]) for entry in json.loads(said)]
        if found != [(0, 65536, 0), (65536, (5 << 30) - 65536, 3)]:
            raise Failed(f"it found {found}")

    def nbdcopy() -> None:
        data = bench.cwd / "random"
        data.write_bytes(os.urandom(50 << 20))
        back = bench.cwd / "back"
        with bench.serving(*extended) as address:
            client("nbdcopy", "--flush", str(data), address.uri)
            client("nbdcopy", address.uri, str(back))
        if back.read_bytes() != data.read_bytes():
            raise Failed("what comes back is not what was sent")

    def qemu_io() -> None:
        with bench.serving(*extended, "disk=memory:8G") as address:
            commands = ("write -P 7 1M 1M", "write -z -n 0 6G", "read -P 0 0 2M", "write -P 9 6G 64k")
            words = [word for command in commands for word in ("-c", command)]
            client("qemu-io", "-f", "raw", *words, "-c", "read -P 9 6G 64k", address.uri)
            said = json.loads(client("qemu-img", "map", "--output=json", "-f", "raw", address.uri))
        found = [(entry["start"], entry["length"]) for entry in said if entry["data"]]
        if (6 << 30, 64 << 10) not in found:
            raise Failed(f"it found data at {found}")

    def our_client() -> None:
        image, path = bench.cwd / "disk.qcow2", bench.cwd / "qemu"
        client("qemu-img", "create", "-q", "-f", "qcow2", str(image), "5G")
        client("qemu-img", "bitmap", "--add", "--enable", "-f", "qcow2", str(image), "bitmap0")
        options = ["--fork", "-k", str(path), "-f", "qcow2", "-A", "-B", "bitmap0", "-x", "disk", str(image)]
        wishes = Wishes(structured_replies=True, extended_headers=True, all_contexts=True)
        subprocess.run([*bench.archive.program("usr/bin/qemu-nbd"), *options], check=True, timeout=DEADLINE)
        with Client(Address(path=str(path), export="disk"), wishes=wishes) as asker:
            if not asker._connection.negotiated.extended_headers:
                raise Skipped("it does not speak them")
            asker.write(1 << 20, memoryview(b"7" * (1 << 20)))
            asker.command(Cmd.WRITE_ZEROES, 2 << 20, (5 << 30) - (2 << 20))
            asker.command(Cmd.FLUSH)
            found = memoryview(bytearray(3 << 20))
            asker.read_into(0, found)
            if found != bytes(1 << 20) + b"7" * (1 << 20) + bytes(1 << 20):
                raise Failed("what comes back is not what was sent")
            status = asker.block_status(0, 5 << 30)
            lengths = {name: sum(extent.length for extent in extents) for name, extents in status.items()}
            if set(lengths) != {BASE_ALLOCATION, "qemu:allocation-depth", "qemu:dirty-bitmap:bitmap0"}:
                raise Failed(f"it reports {lengths}")
            if not asker.export.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD):
                raise Failed("no block status of chosen contexts")
            for name in status:
                alone = asker.block_status(0, 5 << 30, contexts=[name])
                if alone != {name: status[name]}:
                    raise Failed(f"{name} alone is {alone}; with the others it was {status[name]}")

    def our_remote() -> None:
        image, path = bench.cwd / "remote.qcow2", bench.cwd / "qemu-remote"
        client("qemu-img", "create", "-q", "-f", "qcow2", str(image), "5G")
        options = ["--fork", "-k", str(path), "-f", "qcow2", "-A", "-x", "disk", str(image)]
        subprocess.run([*bench.archive.program("usr/bin/qemu-nbd"), *options], check=True, timeout=DEADLINE)
        with RemoteBackend(Address(path=str(path), export="disk")) as remote:
            remote.write(1 << 20, memoryview(b"7" * (1 << 20)))
            remote.flush()
            found = memoryview(bytearray(3 << 20))
            remote.read_into(0, found)
            if found != bytes(1 << 20) + b"7" * (1 << 20) + bytes(1 << 20):
                raise Failed("what comes back is not what was sent")
            data = [(1 << 20, 3), (1 << 20, 0)]
            allocated = [(extent.length, int(extent.flags)) for extent in remote.extents(0, 5 << 30)]
            if allocated[:2] != data or remote.contexts != ("qemu:allocation-depth",):
                raise Failed(f"it reports {allocated[:4]} and {remote.contexts}")

    yield "nbdinfo, extended headers", nbdinfo
    yield "nbdinfo --map of 5 GiB in one answer", nbdinfo_map
    yield "nbdcopy there and back, extended headers", nbdcopy
    yield "qemu-io zeroes 6 GiB, qemu-img map, extended headers", qemu_io
    yield "qemu-nbd, asked by our client with extended headers", our_client
    yield "qemu-nbd, behind the back end remote", our_remote


def void(_: object) -> None:
    """A test's output, which says nothing when all is well."""


def judge(name: str, test: Test) -> Verdict:
    """Run a test."""
    what, run = test
    try:
        run()
    except Skipped as skipped:
        return Verdict(name, what, "skip", str(skipped))
    except Exception as error:
        return Verdict(name, what, "FAIL", f"{type(error).__name__}: {error}")
    return Verdict(name, what, "pass")


def judged(name: str, tests: Iterable[Test], only: str) -> Iterator[Verdict]:
    """Run the tests that have `only` in their names, and say what came out as it comes."""
    for test in tests:
        if only in test[0]:
            verdict = judge(name, test)
            print(f"{verdict.result}: {name}: {verdict.test} {verdict.why}", flush=True)
            yield verdict


def table(verdicts: list[Verdict]) -> str:
    """All of it as a table in Markdown."""
    rows = ["| judge | test | result |", "|---|---|---|"]
    for each in verdicts:
        why = f" ({each.why.splitlines()[-1]})" if each.why else ""
        rows.append(f"| {each.judge} | {each.test} | {each.result}{why} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie", help="whose packages and sources are the judges")
    parser.add_argument("--libnbd", type=Path, metavar="DIR", help="its sources, in place of the suite's")
    parser.add_argument("--nbd", type=Path, metavar="DIR", help="NetworkBlockDevice/nbd's sources")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM", help="what runs our server")
    parser.add_argument("--only", default="", metavar="WORD", help="tests that have this in their names")
    options = parser.parse_args()
    place = TOP / "build" / "interop" / options.suite
    archive = Archive(options.suite, place)
    archive.unpack("libnbd-bin", "libnbd-dev", "qemu-utils")
    bench = Bench(archive, place / "bench", options.python)
    verdicts: list[Verdict] = []
    for name, given, tests in (
        ("libnbd", options.libnbd, libnbd_tests),
        ("nbd", options.nbd, nbd_tests),
    ):
        try:
            sources = given or archive.source(name)
        except RuntimeError as error:
            verdicts.append(Verdict(name, "all", "skip", f"no sources: {error}"))
            continue
        verdicts += judged(sources.name, tests(bench, sources), options.only)
    programs = f"libnbd {archive.version('libnbd-bin')}, QEMU {archive.version('qemu-utils')}"
    verdicts += judged(programs, program_tests(bench), options.only)
    text = table(verdicts)
    (place / "table.md").write_text(text)
    print(f"\n{text}")
    return int(any(each.result == "FAIL" for each in verdicts))


if __name__ == "__main__":
    sys.exit(main())
