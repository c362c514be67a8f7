"""Packages by way of apt, which checks signatures and hashes: of this machine's lists, or another suite's.

Another suite's lists get a directory of their own: that needs neither root nor a change of this machine's
sources. Which mirror this machine uses is read from its own sources; no host is known here.
"""

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.series import ARCHIVES, KEYRINGS, Archive, Suite
from ioflusher.support.programs import ProgramError, ProgramFailedError, call, find_program, run
from ioflusher.support.temporary import OwnedDirectory, sweep

LISTS_PREFIX = "ioflusher-apt-"
MIRROR_VARIABLE = "IOFLUSHER_MIRROR"
LISTS_DEADLINE_S = 300.0
DOWNLOAD_DEADLINE_S = 1800.0
_QUERY_DEADLINE_S = 120.0
KEYRING_FILES = Path("/usr/share/keyrings")  # of this machine
_KEYRINGS_IN_PACKAGES = Path("usr/share/keyrings")
_GIVE_A_MIRROR = (
    f"set {MIRROR_VARIABLE} to a mirror below which both debian and ubuntu lie, "
    "or give a bzImage with --kernel FILE, its modules beside it in lib/modules/RELEASE"
)
# whatever this machine's own configuration says: no package without a signature behind it
_CHECKED = {
    "APT::Architecture": "amd64",
    "APT::Get::AllowUnauthenticated": "false",
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
}


@dataclass(frozen=True, slots=True)
class Apt:
    """apt as this machine has it, or with a root of its own.

    Attributes:
        origin: whose lists these are, for people.
        configuration: a file of apt.conf(5) besides this machine's; None for none.
    """

    origin: str
    configuration: Path | None = None

    def names(self, pattern: str) -> list[str]:
        """The names of all packages that match a regular expression."""
        found = self._run("apt-cache", "search", "--names-only", pattern)
        return [line.split(" ")[0] for line in found.splitlines()]

    def size_bytes(self, package: str) -> int:
        """How much there is to download for a package; 0 where that is not known."""
        record = self._run("apt-cache", "show", "--no-all-versions", package)
        found = re.search(r"^Size: (\d+)$", record, re.MULTILINE)
        return int(found[1]) if found else 0

    def unpack(self, package: str, directory: Path) -> None:
        """Download a package and unpack its files below the directory, without installing it.

        Raises:
            ProgramError: it cannot be downloaded, or is not what the signed lists say.
        """
        find_program("dpkg-deb", package="dpkg")
        with OwnedDirectory(".package-", directory) as owned:
            work = owned.path
            self._run("apt-get", "download", package, deadline_s=DOWNLOAD_DEADLINE_S, cwd=work)
            (archive,) = work.glob("*.deb")
            run(["dpkg-deb", "-x", str(archive), str(directory)], deadline_s=300)

    def update(self) -> None:
        """Fetch the lists anew, and have their signatures checked."""
        self._run("apt-get", "update", "-q", deadline_s=LISTS_DEADLINE_S)

    def _run(
        self, program: str, *words: str, deadline_s: float = _QUERY_DEADLINE_S, cwd: Path | None = None
    ) -> str:
        """What apt printed; of what it complains about, the lines that say so, and not all that it tried."""
        more = ("-c", str(self.configuration)) if self.configuration else ()
        argv = [find_program(program, package="apt"), *more, *words]
        done = call(argv, deadline_s=deadline_s, cwd=cwd)
        if done.status:
            said = "\n".join(_complaints(done.errors) or done.errors.splitlines()[-3:])
            raise ProgramFailedError(f"`{shlex.join([program, *words])}` failed:\n{said}", status=done.status)
        return done.output


def _complaints(errors: str) -> list[str]:
    """The lines of apt's errors, without those that only follow from others."""
    lines = [line for line in errors.splitlines() if line.startswith("E: ")]
    return [
        line for line in lines if "Some index files failed" not in line and "Unable to fetch some" not in line
    ]


OWN_LISTS = Apt("this machine's package lists")


@contextmanager
def lists_of(suite: Suite, mirror: str | None = None) -> Iterator[Apt]:
    """The package lists of a suite, fetched and checked, until the end of the block.

    Args:
        suite: which.
        mirror: URI below which the archives lie; None: where this machine's own sources point to.

    Raises:
        LabError: no mirror is known, it does not have the suite, or a signature or hash is wrong.
    """
    base = archive_base(suite.archive, () if mirror else own_bases(), mirror)
    sweep(LISTS_PREFIX)
    with OwnedDirectory(LISTS_PREFIX) as owned:
        root = owned.path
        keyring = KEYRING_FILES / suite.archive.keyring
        if not keyring.is_file():
            keyring = _fetch_keyring(suite.archive, root / "keyring", mirror)
        yield _private(root / "apt", base, suite, keyring)


def _private(root: Path, base: str, suite: Suite, keyring: Path) -> Apt:
    """apt with a root of its own that knows one suite; its lists are up to date."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (root / part).mkdir(parents=True)
    status = root / "status"  # nothing is installed
    status.touch()
    sources = root / "one.sources"
    sources.write_text(
        f"Types: deb\nURIs: {base}\nSuites: {suite.name}\nComponents: main\nSigned-By: {keyring}\n"
    )
    options = {
        **_CHECKED,
        "Dir::State": str(root / "state"),
        "Dir::State::status": str(status),
        "Dir::Cache": str(root / "cache"),
        "Dir::Etc::sourcelist": str(sources),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the directory is not everybody's to enter
        "APT::Update::Error-Mode": "any",  # else a suite that cannot be had is a warning
    }
    configuration = root / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in options.items()))
    apt = Apt(suite.title, configuration)
    try:
        apt.update()
    except ProgramError as error:
        raise LabError(
            f"the package lists of {suite.title} cannot be had from {base}: {error}", hint=_GIVE_A_MIRROR
        ) from error
    return apt


def _fetch_keyring(archive: Archive, work: Path, mirror: str | None) -> Path:
    """The keyring of another distribution, from a package that the keys of this one vouch for."""
    work.mkdir()
    file = work / _KEYRINGS_IN_PACKAGES / archive.keyring
    trusted = KEYRINGS.archive
    if archive.keyring == trusted.keyring or not (KEYRING_FILES / trusted.keyring).is_file():
        raise LabError(
            f"the keys of {trusted.name}'s archive are missing: {KEYRING_FILES / trusted.keyring}",
            hint=f"install the package {trusted.keyring_package}",
        )
    exactly = f"^{re.escape(archive.keyring_package)}$"
    if not mirror and OWN_LISTS.names(exactly):
        OWN_LISTS.unpack(archive.keyring_package, work)
    else:
        with lists_of(KEYRINGS, mirror) as lists:
            lists.unpack(archive.keyring_package, work)
    if not file.is_file():
        raise LabError(
            f"the package {archive.keyring_package} has no /{_KEYRINGS_IN_PACKAGES / archive.keyring}"
        )
    return file


def own_bases() -> tuple[str, ...]:
    """The URIs of the archives that this machine's sources name, without the / at their end."""
    if shutil.which("apt-get") is None:
        return ()
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    lines = run(argv, deadline_s=_QUERY_DEADLINE_S).splitlines()
    return tuple(dict.fromkeys(line.strip().rstrip("/") for line in lines if line.strip()))


def archive_base(archive: Archive, own: Iterable[str], mirror: str | None) -> str:
    """Where an archive is: on the mirror, where this machine's sources have it, or beside what they have.

    Raises:
        LabError: none of it is known.
    """
    if mirror:
        if not re.fullmatch(r"(https?|file)://\S*|file:/\S*", mirror):
            raise LabError(
                f"not the URI of a mirror: {mirror!r}",
                hint=f"expected such as http://mirror.example, below which {archive.path} lies",
            )
        return f"{mirror.rstrip('/')}/{archive.path}"
    bases = {base.rpartition("/")[2]: base for base in reversed(list(own))}
    if archive.path in bases:
        return bases[archive.path]
    for other in ARCHIVES:
        if other.path in bases:
            return f"{bases[other.path].rpartition('/')[0]}/{archive.path}"
    known = " or ".join(sorted({other.name for other in ARCHIVES}))
    raise LabError(
        f"this machine's package sources name no archive of {known}, so {archive.name}'s is not known",
        hint=_GIVE_A_MIRROR,
    )
