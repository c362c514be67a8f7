"""What a command would add to a machine: `mount`, `swapon`, `losetup` and `attach` as records.

Only commands whose effect on the storage graph is known from their words alone are understood; all others are
errors, for a prediction that overlooks an option is worse than none.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from ioflusher.errors import IoflusherError
from ioflusher.machine.peers import join_address

NBD_PORT = "10809"
_UNDERSTOOD = (
    "understood are mount [-t TYPE] [-o OPTIONS] [--bind] [-r] SOURCE POINT, swapon FILE, "
    "losetup DEVICE FILE, attach DEVICE nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH, and "
    "nbd-client HOST [PORT] DEVICE or -unix PATH DEVICE"
)


class HypothesisError(IoflusherError):
    """A command that would add something is not understood, or does not fit the machine."""


@dataclass(frozen=True, slots=True)
class WouldMount:
    """`mount`: source and mount point as given; fstype None where the command names none."""

    source: str
    point: str
    fstype: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    bind: bool = False
    loop: bool = False


@dataclass(frozen=True, slots=True)
class WouldSwap:
    """`swapon` of a device or a file."""

    path: str


@dataclass(frozen=True, slots=True)
class WouldLoop:
    """`losetup`: device None where the command leaves the choice to the kernel (-f)."""

    file: str
    device: str | None = None


@dataclass(frozen=True, slots=True)
class WouldAttach:
    """The kernel's NBD client on a device; `address`: "host:port", or the path of a Unix socket."""

    device: str
    address: str


Addition = WouldMount | WouldSwap | WouldLoop | WouldAttach


def parse_command(text: str) -> Addition:
    """What one command would add.

    Raises:
        HypothesisError: the command is not understood.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _unknown(text, str(error)) from error
    if words[:2] == ["ioflusher", "nbd"]:
        words = words[2:]
    name = words[0].rpartition("/")[2] if words else ""
    parsers: dict[str, Callable[[list[str]], Addition]] = {
        "mount": _mount,
        "swapon": _swapon,
        "losetup": _losetup,
        "attach": _attach,
        "nbd-client": _nbd_client,
    }
    parse = parsers.get(name)
    if parse is None:
        raise _unknown(text, f"the command {name!r:.40} is none of these")
    try:
        return parse(words[1:])
    except _WordsError as error:
        raise _unknown(text, str(error)) from error


class _WordsError(ValueError):
    """The words of a command are not understood."""


def _unknown(text: str, why: str) -> HypothesisError:
    return HypothesisError(f"cannot predict {text!r:.200}: {why}", hint=_UNDERSTOOD)


@dataclass(frozen=True, slots=True)
class _Words:
    """Options, each with its value or an empty one, and the words beside them."""

    options: dict[str, str]
    plain: tuple[str, ...]


def _split(words: list[str], valued: dict[str, str], flags: dict[str, str]) -> _Words:
    """The words of a command; `valued` and `flags` name the long form of each option."""
    options: dict[str, str] = {}
    plain: list[str] = []
    left = iter(words)
    for word in left:
        key, equals, value = word.partition("=")
        short = word[:2]
        if word == "--":
            plain += left
        elif word in flags:
            options[flags[word]] = ""
        elif equals and key in valued and key.startswith("--"):
            options[valued[key]] = value
        elif word in valued:
            following = next(left, None)
            if following is None:
                raise _WordsError(f"{word} needs a value")
            options[valued[word]] = following
        elif short in valued and not word.startswith("--") and len(word) > 2:
            options[valued[short]] = word[2:]
        elif word.startswith("-") and word != "-":
            raise _WordsError(f"the option {word!r:.40} is not known here")
        else:
            plain.append(word)
    return _Words(options, tuple(plain))


def _mount(words: list[str]) -> WouldMount:
    valued = {"-t": "types", "--types": "types", "-o": "options", "--options": "options"}
    flags = {
        "--bind": "bind",
        "-B": "bind",
        "-r": "ro",
        "--read-only": "ro",
        "-w": "rw",
        "-v": "v",
        "-n": "n",
    }
    found = _split(words, valued, flags)
    if len(found.plain) != 2:
        raise _WordsError(f"mount needs a source and a mount point, found {len(found.plain)} words")
    source, point = found.plain
    if not point.startswith("/"):
        raise _WordsError(f"the mount point {point!r:.80} does not begin with /")
    given = [entry for entry in found.options.get("options", "").split(",") if entry]
    for entry in given:
        if entry in ("remount", "move", "rbind"):
            raise _WordsError(f"{entry} changes mounts and adds none that can be predicted")
    options = dict(entry.partition("=")[::2] for entry in given)
    fstype = found.options.get("types")
    if fstype is not None and fstype.partition(".")[0] in ("fuse", "fuseblk"):
        raise _WordsError("the daemon of a FUSE file system is started by its mount: it is not there yet")
    read_only = "ro" in found.options or "ro" in options
    kept = {"ro" if read_only else "rw": "", **{key: value for key, value in options.items() if value}}
    return WouldMount(
        source,
        point.rstrip("/") or "/",
        fstype,
        tuple(kept.items()),
        bind="bind" in found.options or "bind" in options,
        loop="loop" in options,
    )


def _swapon(words: list[str]) -> WouldSwap:
    valued = {"-p": "priority", "--priority": "priority"}
    flags = {"-d": "discard", "--discard": "discard", "-f": "fix", "--fixpgsz": "fix", "-v": "v"}
    found = _split(words, valued, flags)
    if len(found.plain) != 1 or not found.plain[0].startswith("/"):
        raise _WordsError("swapon needs one device or file, by its whole path")
    return WouldSwap(found.plain[0])


def _losetup(words: list[str]) -> WouldLoop:
    valued = {"-o": "offset", "--offset": "offset", "--sizelimit": "size", "-b": "block"}
    flags = {
        **{"-f": "find", "--find": "find", "--show": "show", "-P": "scan", "--partscan": "scan"},
        **{"-r": "ro", "--read-only": "ro", "-fP": "find", "-Pf": "find", "-v": "v"},
    }
    found = _split(words, valued, flags)
    wanted = 1 if "find" in found.options else 2
    if len(found.plain) != wanted or not all(word.startswith("/") for word in found.plain):
        raise _WordsError("losetup needs a device, or -f, and a file, by their whole paths")
    device = None if wanted == 1 else _device(found.plain[0], "loop")
    return WouldLoop(found.plain[-1], device)


def _attach(words: list[str]) -> WouldAttach:
    found = _split(
        words, {"--timeout": "timeout", "--connections": "c"}, {"--netlink": "n", "--read-only": "r"}
    )
    if len(found.plain) != 2:
        raise _WordsError(f"attach needs a device and a URI, found {len(found.plain)} words")
    device, uri = found.plain
    parts = urlsplit(uri)
    if parts.scheme == "nbd+unix":
        path = parse_qs(parts.query).get("socket", [""])[0]
        if not path:
            raise _WordsError(f"{uri!r:.80} names no socket")
        return WouldAttach(_device(device, "nbd"), path)
    try:
        host, port = parts.hostname, str(parts.port or NBD_PORT)
    except ValueError as error:
        raise _WordsError(f"{uri!r:.80}: {error}") from error
    if parts.scheme != "nbd" or not host:
        raise _WordsError(f"expected nbd://HOST[:PORT]/ or nbd+unix:///?socket=PATH, found {uri!r:.80}")
    return WouldAttach(_device(device, "nbd"), join_address(unquote(host), port))


def _nbd_client(words: list[str]) -> WouldAttach:
    valued = {
        "-unix": "unix",
        "-u": "unix",
        "-N": "name",
        "-name": "name",
        "-b": "block",
        "-C": "c",
        "-t": "t",
    }
    flags = {"-nonetlink": "n", "-L": "n", "-persist": "p", "-p": "p", "-swap": "s", "-s": "s"}
    found = _split(words, valued, flags)
    if "unix" in found.options:
        if len(found.plain) != 1:
            raise _WordsError("nbd-client -unix PATH needs one device")
        return WouldAttach(_device(found.plain[0], "nbd"), found.options["unix"])
    if len(found.plain) not in (2, 3):
        raise _WordsError("nbd-client needs a host and a device")
    host, port = found.plain[0], found.plain[1] if len(found.plain) == 3 else NBD_PORT
    if not port.isdecimal():
        raise _WordsError(f"{port!r:.40} is no port")
    return WouldAttach(_device(found.plain[-1], "nbd"), join_address(host, port))


def _device(path: str, kind: str) -> str:
    """The name of a device of this kind."""
    name = path.removeprefix("/dev/")
    if name == path or not name.removeprefix(kind).isdecimal() or not name.startswith(kind):
        raise _WordsError(f"expected /dev/{kind} with a number, found {path!r:.80}")
    return name
