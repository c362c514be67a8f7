"""`ioflusher nbd` as its users meet it: usage, refusals, readiness, signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
import pytest
from tests.cli.program import call

from ioflusher import flag
from ioflusher.cli.host_port import host_port
from ioflusher.cli.nbd_serve import put_state
from ioflusher.cli.size_parameter import size
from ioflusher.flag import FlagError, StateUnreadableError
from ioflusher.flag import state as flag_state
from ioflusher.harden import HardenError, RealtimePolicy
from ioflusher.kernel.task_flags import PF_IO_FLUSHER, TaskFlags
from ioflusher.nbd.address import Address, parse_uri
from ioflusher.nbd.client import Client, describe
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag

pytestmark = pytest.mark.live

DEADLINE = 60.0  # seconds
PROGRAM = [sys.executable, "-m", "ioflusher", "nbd"]


def ioflusher_nbd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=DEADLINE)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """A server that says that it is ready; ended at the end, if it has not ended by itself."""
    command = [*PROGRAM, "serve", "--no-io-flusher", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on ")
            yield process, parse_uri(line.removeprefix("listening on ").strip())
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1K", 1024),
        ("64m", 64 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("64MiB", 64 << 20),
    ],
)
def test_sizes(text: str, number: int) -> None:
    """Plain bytes, and suffixes for powers of 1024."""
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5G", "1X", "1KK", "\N{SUPERSCRIPT TWO}", "0x10"])
def test_what_is_no_size(text: str) -> None:
    """Anything else is refused as a wrong parameter, never taken for another size."""
    with pytest.raises(click.BadParameter, match="not a size"):
        size(text)


def test_hosts_and_ports() -> None:
    """Names, addresses of both families, and what is neither."""
    assert host_port("localhost:0") == ("localhost", 0)
    assert host_port("[::1]:10809") == ("::1", 10809)
    for text in ("10809", ":10809", "host:", "host:x", "host:65536", "host:-1"):
        with pytest.raises(click.BadParameter, match="is no address"):
            host_port(text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--unix", "/tmp/x"], "one of --memory, --file, --remote, --backend and --python"),
        (
            ["--memory", "1M", "--file", "/tmp/y", "--unix", "/tmp/x"],
            "one of --memory, --file, --remote, --backend and --python",
        ),
        (["--memory", "1M"], "give --unix or --tcp"),
        (["a=memory:1M", "--memory", "1M", "--unix", "/tmp/x"], "or exports as NAME=KIND:VALUE"),
        (["a=memory:1M", "--export", "b", "--unix", "/tmp/x"], "--export names what --memory"),
        (["--memory", "1M", "--stdio", "--unix", "/tmp/x"], "goes with neither --unix nor --tcp"),
        (["memory", "--unix", "/tmp/x"], "'memory' has no name; expected NAME=KIND:VALUE"),
        (["a=memory:1M", "--describe", "b=text", "--unix", "/tmp/x"], "'b', which is no export here"),
        (["--memory", "1M", "--unix", "/tmp/x", "--tls-optional"], "go with --tls-certificates"),
        (["--memory", "1M", "--unix", "/tmp/x", "--tls-psk", "k", "--tls-verify-peer"], "instead of cert"),
        (["--memory", "1M", "--direct", "--unix", "/tmp/x"], "go with --file"),
        (["--memory", "1X", "--unix", "/tmp/x"], "not a size: '1X'"),
        (["--memory", "1M", "--tcp", "10809"], "expected HOST:PORT"),
        (["--memory", "1M", "--unix", "/tmp/x", "--realtime", "100"], "100 is not in the range"),
        (
            ["--memory", "1M", "--unix", "/tmp/x", "--policy", "rr", "--priority", "0"],
            "0 is not in the range",
        ),
        (
            ["--memory", "1M", "--unix", "/tmp/x", "--realtime", "5", "--policy", "rr", "--priority", "1"],
            "give one of them",
        ),
        (["--memory", "1M", "--unix", "/tmp/x", "--priority", "5"], "go together"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    """Exit status 2 and a sentence that names the option."""
    done = ioflusher_nbd("serve", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


@pytest.mark.refused  # the guest's test has the rest
def test_no_server_without_the_state(tmp_path: Path) -> None:
    """By default a server that cannot set the state does not start, and says what would do."""
    path = tmp_path / "socket"
    done = ioflusher_nbd("serve", "--memory", "1M", "--unix", str(path))
    assert done.returncode == 2
    assert "CAP_SYS_RESOURCE" in done.stderr
    assert "--no-io-flusher" in done.stderr
    assert done.stdout == ""
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """With a client connected, SIGTERM and SIGINT end it with status 0, and its socket is gone."""
    path = tmp_path / "socket"
    with serving("--memory", "1M", "--unix", str(path), "--export", "a disk") as (process, address):
        assert address == Address(path=str(path), export="a disk")
        with Client(address) as client:
            client.write(0, memoryview(b"x"))
            process.send_signal(number)
            assert process.wait(DEADLINE) == 0
    assert not path.exists()


def test_servers_in_a_row(tmp_path: Path) -> None:
    """A forwarding server stores into a file's server, over TCP; the file has the data."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with (
        serving("--file", str(image), "--direct", "--tcp", "127.0.0.1:0") as (_, first),
        serving("--remote", first.uri, "--tcp", "127.0.0.1:0") as (_, second),
        Client(second) as client,
    ):
        assert client.export.block_size.minimum == 4096
        client.write(8192, memoryview(b"y" * 4096))
    assert image.read_bytes()[8191:12289] == b"\0" + b"y" * 4096 + b"\0"


def test_a_read_only_file(tmp_path: Path) -> None:
    """--readonly is what a client is told."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    with serving("--file", str(image), "--readonly", "--tcp", "127.0.0.1:0") as (_, address):
        done = ioflusher_nbd("info", address.uri)
    assert done.returncode == 0
    assert "flags: HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_DF, CAN_MULTI_CONN, SEND_CACHE\n" in done.stdout


def test_ready_fd(tmp_path: Path) -> None:
    """--ready-fd gets the URI and is closed; standard output stays empty."""
    reading, writing = os.pipe()
    command = [*PROGRAM, "serve", "--no-io-flusher", "--memory", "1M", "--tcp", "127.0.0.1:0"]
    with (
        subprocess.Popen(
            [*command, "--ready-fd", str(writing)], pass_fds=[writing], stdout=subprocess.PIPE
        ) as process,
        os.fdopen(reading) as ready,
    ):
        os.close(writing)
        assert describe(parse_uri(ready.read().strip())).size == 1 << 20
        process.terminate()
        assert process.communicate(timeout=DEADLINE)[0] == b""


def test_a_ready_fd_that_is_not_open(tmp_path: Path) -> None:
    """A descriptor that cannot be written to is a clear error, and no socket stays."""
    path = tmp_path / "socket"
    done = ioflusher_nbd(
        "serve", "--no-io-flusher", "--memory", "1M", "--unix", str(path), "--ready-fd", "77"
    )
    assert done.returncode == 2
    assert "file descriptor 77" in done.stderr
    assert not path.exists()


def test_the_oom_score_is_set(tmp_path: Path) -> None:
    """--oom-score-adj holds for the server (a higher score needs no privilege)."""
    options = ["--memory", "1M", "--unix", str(tmp_path / "socket"), "--oom-score-adj", "700"]
    with serving(*options) as (process, _):
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "700\n"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--policy", "rr", "--priority", "5"], ("RR", 5)),
        (["--policy", "fifo", "--priority", "7"], ("FIFO", 7)),
        (["--realtime", "7"], ("FIFO", 7)),  # what scenarios and guests still call it
    ],
)
def test_real_time_scheduling_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: list[str], asked: tuple[str, int]
) -> None:
    """As for `ioflusher run`; the name that was first does the same."""
    calls: list[tuple[str, int]] = []

    def refuse(policy: RealtimePolicy, priority: int) -> NoReturn:
        calls.append((policy.name, priority))
        raise HardenError("enough")

    monkeypatch.setattr("ioflusher.harden.settings.set_realtime", refuse)
    ended = call("nbd", "serve", "--no-io-flusher", "--memory", "1M", "--tcp", "localhost:0", *options)
    assert (ended.status, ended.stderr, calls) == (2, "ioflusher: enough\n", [asked])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--no-io-flusher", "--file", "/nonexistent", "--tcp", "localhost:0"], "'/nonexistent'"),
        (
            ["serve", "--no-io-flusher", "--remote", "http://x/", "--tcp", "localhost:0"],
            "no address of an NBD",
        ),
        (["serve", "--no-io-flusher", "--memory", "1M", "--unix", "/nonexistent/socket"], "cannot listen"),
        (["info", "nbd+unix:///?socket=/nonexistent"], "cannot connect"),
        (["info", "x\x1b[31m"], "\\x1b[31m"),
        (["attach", "/dev/nbd-none", "nbd://localhost/"], "modprobe nbd"),
        (["attach", "--netlink", "/dev/nbd-none", "nbd://localhost/"], "expected /dev/nbdN"),
        (["attach", "/dev/null", "nbd://localhost/"], "no device of the nbd driver"),
        (["detach", "/dev/nbd-none"], "modprobe nbd"),
        (["attach", "--ioctl", "--backend", "x", "/dev/nbd0", "nbd://localhost/"], "need --netlink"),
        (["reconnect", "/dev/null", "nbd://localhost/"], "expected /dev/nbdN"),
        (["reconnect", "/dev/nbd4000", "nbd://localhost/"], "not attached to any server"),
        (["status", "/dev/nbd4000"], "modprobe nbd"),
    ],
)
def test_failures_are_told(arguments: list[str], complaint: str) -> None:
    """What cannot be done: exit status 2, one sentence, no traceback, nothing odd on the terminal."""
    done = ioflusher_nbd(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_info_as_json(tmp_path: Path) -> None:
    """One object with what the server says of the export."""
    with serving("--memory", "64M", "--unix", str(tmp_path / "s"), "--max-payload", "1M") as (_, address):
        done = ioflusher_nbd("info", address.uri, "--json")
    assert json.loads(done.stdout) == {
        "uri": address.uri,
        "export": "",
        "description": "",
        "size": 64 << 20,
        "flags": [
            *("HAS_FLAGS", "SEND_FLUSH", "SEND_FUA", "SEND_WRITE_ZEROES", "SEND_DF", "CAN_MULTI_CONN"),
            "SEND_FAST_ZERO",
        ],
        "minimum_block_size": 1,
        "preferred_block_size": 4096,
        "maximum_payload": 1 << 20,
        "contexts": ["base:allocation"],
    }


def test_several_exports(tmp_path: Path) -> None:
    """Each by its name and kind, on two sockets; clients that name none get the first."""
    image = tmp_path / "a,b=c:d"
    image.write_bytes(bytes(8192))
    options = ["--describe", "two=the \x1b[31msecond", "--unix", str(tmp_path / "s"), "--tcp", "127.0.0.1:0"]
    exports = ["one=memory:1M", f"two=file,direct,readonly:{image}"]
    with serving(*options, *exports) as (process, address):
        assert process.stdout is not None
        second = parse_uri(process.stdout.readline().removeprefix("listening on ").strip())
        assert (address.path, second.path, second.export) == (str(tmp_path / "s"), None, "one")
        assert describe(address.with_export("")).size == 1 << 20
        assert describe(second.with_export("two")).size == 8192
        listed = json.loads(ioflusher_nbd("info", "--list", "--json", address.uri).stdout)
        shown = ioflusher_nbd("info", "--list", address.uri).stdout
    found = [(each["export"], each["size"]) for each in listed["exports"]]
    assert found == [("one", 1 << 20), ("two", 8192)]
    assert "\n\nexport: two\ndescription: the \\x1b[31msecond\nsize: 8192\n" in shown


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a=tape:0", "'tape:0' is no back end; expected one of memory[,give_back]:SIZE, file"),
        ("a=memory", "'memory' is no back end"),
        ("a=file,fast:/x", "'fast' is not one of its options; expected file[,direct][,readonly]:PATH"),
        ("a=file,direct,direct:/x", "'direct' is there twice"),
        ("a=memory:1X", "not a size: '1X'"),
        (f"{'a' * 4097}=memory:1M", "a name or text of 4097 bytes"),
    ],
)
def test_exports_that_cannot_be(text: str, complaint: str) -> None:
    """A sentence that says what was expected."""
    ended = call("nbd", "serve", "--no-io-flusher", "--tcp", "localhost:0", text)
    assert (ended.status, complaint in ended.stderr) == (2, True), ended.stderr


def test_exports_of_one_name() -> None:
    """Two exports of one name could not be told apart."""
    ended = call("nbd", "serve", "--no-io-flusher", "--tcp", "localhost:0", "a=memory:1M", "a=memory:2M")
    assert ended.stderr.startswith("ioflusher: two exports of the name 'a'")


# Runs the command with the one system call replaced by a note, and lists the functions of this package
# that are called until the server is ready.
CALLS = """
import sys, threading
calls = []
def watch(frame, event, arg):
    name = frame.f_code.co_qualname
    if event == "call" and "/ioflusher/" in frame.f_code.co_filename and not name.startswith("<"):
        calls.append(name)
        if name == "_say_ready":
            sys.setprofile(None)
            print(threading.active_count(), *calls)
            raise SystemExit
import ioflusher.flag
from ioflusher.cli.main import cli
from ioflusher.kernel.task_flags import TaskFlags
def set_io_flusher(state):
    assert threading.active_count() == 1
    calls.append(f"prctl({int(state)})")
ioflusher.flag.set_io_flusher = set_io_flusher
inherited = int(sys.argv.pop(1), 16)
ioflusher.flag.state.parse_flags = lambda stat: TaskFlags(inherited)
sys.setprofile(watch)
cli(sys.argv[1:], standalone_mode=False)
"""


def calls_of_serve(directory: Path, choice: str, inherited: int) -> list[str]:
    """The functions that `nbd serve` calls when it was started with those task flags."""
    options = ["--memory", "1M", "--unix", str(directory / "socket"), "--oom-score-adj", "1000"]
    done = subprocess.run(
        [sys.executable, "-c", CALLS, f"{inherited:x}", "nbd", "serve", choice, *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout.split()


def test_the_state_is_the_only_difference(tmp_path: Path) -> None:
    """With and without the state the server does the same, but for the one call, made before all else."""
    with_state, without = (
        calls_of_serve(tmp_path, choice, 0) for choice in ("--io-flusher", "--no-io-flusher")
    )
    assert "Server.listen_unix" in without
    extra = with_state.index("prctl(1)")
    assert with_state[:extra] + with_state[extra + 1 :] == without
    assert extra < with_state.index("MemoryBackend.__init__")


@pytest.mark.parametrize(
    ("choice", "inherited", "calls"),
    [
        ("--no-io-flusher", 0x400100, []),
        ("--no-io-flusher", 0x180000, ["prctl(0)"]),
        ("--no-io-flusher", 0x080000, ["prctl(0)"]),
        ("--no-io-flusher", 0x140000, ["prctl(0)"]),
        ("--io-flusher", 0x180000, []),
        ("--io-flusher", 0x140000, ["prctl(1)"]),
    ],
)
def test_an_inherited_state(tmp_path: Path, choice: str, inherited: int, calls: list[str]) -> None:
    """What was inherited, half of it too, is cleared where it is not wanted, before all else is done."""
    found = calls_of_serve(tmp_path, choice, inherited)
    assert [call for call in found if call.startswith("prctl")] == calls
    assert not calls or found.index(calls[0]) < found.index("MemoryBackend.__init__")


def test_without_proc_the_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can say what was inherited, the kernel is asked for what is wanted."""
    made: list[bool] = []

    def unreadable() -> TaskFlags:
        raise StateUnreadableError("/proc/thread-self/stat", OSError(2, "No such file or directory"))

    monkeypatch.setattr(flag_state, "own_task_flags", unreadable)
    monkeypatch.setattr(flag, "set_io_flusher", made.append)
    for wanted in (True, False):
        put_state(wanted)
    assert made == [True, False]


@pytest.mark.parametrize(("wanted", "hint"), [(True, "--no-io-flusher"), (False, "--io-flusher")])
def test_a_refusal_names_the_other_choice(monkeypatch: pytest.MonkeyPatch, wanted: bool, hint: str) -> None:
    """The kernel's refusal ends the daemon before it serves, in both directions."""

    def refuse(state: bool) -> None:
        raise FlagError("refused", hint="ask root")

    monkeypatch.setattr(flag_state, "own_task_flags", lambda: TaskFlags(0 if wanted else PF_IO_FLUSHER))
    monkeypatch.setattr(flag, "set_io_flusher", refuse)
    with pytest.raises(FlagError, match="refused") as caught:
        put_state(wanted)
    assert (caught.value.hint or "").startswith("ask root; or serve")
    assert (caught.value.hint or "").endswith(f" {hint}")


def test_serving_loads_nothing_heavy() -> None:
    """A server starts inside slow guests too: no module of reports, networks or pictures is loaded."""
    options = ["--no-io-flusher", "--file", "/nonexistent", "--tcp", "localhost:0"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "serve", *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "ioflusher" in loaded
    assert not loaded & {
        "rich",
        "jinja2",
        "matplotlib",
        "numpy",
        "asyncio",
        "ssl",
        "http",
        "json",
    }


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """The class of docs/nbd.md is served from a file of its own, by the command that stands there."""
    document = (Path(__file__).parents[2] / "docs" / "nbd.md").read_text()
    example = next(part for part in document.split("```python\n")[1:] if "class Disk" in part)
    code = example.partition("set_io_flusher(True)")[0]
    (tmp_path / "disk.py").write_text(code)
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    command = next(line for line in document.splitlines() if "disk.img:disk.py" in line)
    described = command.split()[command.split().index("--backend") + 1]
    described = described.replace("disk.img", str(image)).replace("disk.py", str(tmp_path / "disk.py"))
    with (
        serving("--backend", described, "--unix", str(tmp_path / "socket")) as (_, address),
        Client(address) as client,
    ):
        client.write(100, memoryview(b"hello"))
    assert image.read_bytes()[100:105] == b"hello"
    assert 20 <= len([line for line in example.partition("```")[0].splitlines() if line]) <= 26


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """--python serves the class that a file defines."""
    path = tmp_path / "own.py"
    path.write_text(
        "from ioflusher.nbd.backends import MemoryBackend\n"
        "class Small(MemoryBackend):\n"
        "    def __init__(self) -> None:\n"
        "        super().__init__(12345)\n"
    )
    with serving("--python", str(path), "--unix", str(tmp_path / "socket")) as (_, address):
        assert describe(address).size == 12345


def test_an_overlay_is_committed(tmp_path: Path) -> None:
    """What was written over a base is in it afterwards, and not before; the layer is empty then."""
    base, layer = tmp_path / "base", tmp_path / "layer"
    base.write_bytes(bytes(1 << 20))
    described = f"overlay,layer={layer},block=8K:file,readonly:{base}"
    with (
        serving("--backend", described, "--unix", str(tmp_path / "socket")) as (_, address),
        Client(address) as client,
    ):
        client.write(100, memoryview(b"hello"))
        client.command(Cmd.FLUSH)
    assert not any(base.read_bytes())
    done = ioflusher_nbd("commit", f"file:{base}", str(layer))
    assert (done.returncode, done.stdout) == (0, f"8 KiB written into file:{base}\n")
    assert base.read_bytes()[100:105] == b"hello"
    assert ioflusher_nbd("commit", f"file:{base}", str(layer)).stdout.startswith("0 B written")


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "there is no layer"), (b"x" * 8192, "is no layer of an overlay")]
)
def test_what_is_no_layer(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """It is told, and neither made nor changed."""
    layer = tmp_path / "layer"
    if content is not None:
        layer.write_bytes(content)
    done = ioflusher_nbd("commit", "memory:1M", str(layer))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert layer.exists() is (content is not None)


def test_a_client_that_resizes(tmp_path: Path) -> None:
    """--resize lets it, and nothing else does."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    where = ("--file", str(image), "--unix", str(tmp_path / "socket"))
    with serving(*where) as (_, address), Client(address) as client:
        assert not client.export.has(TransmissionFlag.SEND_RESIZE)
    (tmp_path / "socket").unlink()
    with serving("--resize", *where) as (_, address), Client(address) as client:
        client.resize(8192)
    assert image.stat().st_size == 8192
