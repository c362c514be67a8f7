"""Packages of the distribution, of any of its suites, beside those that this machine has installed.

apt fetches them, from where this machine's own packages come, into a folder of ours; nothing is installed and
nothing needs root. Programs run with the C library of their own suite.
"""

import os
import re
import subprocess
import tarfile
from pathlib import Path

DEADLINE = 1800.0  # seconds for apt and for a compiler; a busy machine is slow
SOURCES = Path("/etc/apt")


class Archive:
    """One suite.

    Args:
        suite: its name, such as trixie.
        place: a folder for all that is fetched; what is there is not fetched again.
    """

    def __init__(self, suite: str, place: Path) -> None:
        self.suite = suite
        self.place = place
        self.root = place / "root"
        self._packages = place / "packages"
        for folder in ("lists/partial", "cache/archives/partial", "parts", "packages", "root"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        (place / "status").touch()  # of a machine that has nothing: all that is needed comes along
        self._config = place / "apt.conf"
        self._config.write_text(
            f'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{place}/parts";\n'
            f'Dir::State::lists "{place}/lists";\n'
            f'Dir::State::status "{place}/status";\n'
            f'Dir::Cache "{place}/cache";\n'
            'Acquire::Languages "none";\n'
            'APT::Sandbox::User "root";\n'
        )
        (place / "parts" / "suite.sources").write_text(stanza_for(suite))
        if not any(place.glob("lists/*Release*")):
            self._apt("update")

    @property
    def libraries(self) -> list[Path]:
        """The folders that have this suite's libraries."""
        return [folder for lib in ("usr/lib", "lib") for folder in self.root.glob(f"{lib}/*-linux-gnu*")]

    def program(self, path: str | Path) -> list[str]:
        """The words that run one of this suite's programs, or one that was linked with its libraries."""
        loaders = [found for folder in self.libraries for found in folder.glob("ld-linux-*.so.*")]
        if not loaders:
            raise RuntimeError(f"the packages of {self.suite} have no C library")
        return [str(loaders[0]), "--library-path", ":".join(map(str, self.libraries)), str(self.root / path)]

    def unpack(self, *names: str) -> None:
        """Have these packages, with all that they depend on, in `root`."""
        done = self.place / f"unpacked-{'-'.join(names)}"
        if done.exists():
            return
        self._apt("--no-install-recommends", "--download-only", "--yes", "install", *names)
        self._extract(self.place / "cache" / "archives")
        done.touch()

    def unpack_alone(self, *names: str) -> None:
        """Have the first of these packages that there is in `root`, without what it depends on."""
        done = self.place / f"unpacked-alone-{'-'.join(names)}"
        if done.exists():
            return
        there = self._apt("pkgnames", program="apt-cache").split()
        self._apt("download", next(name for name in names if name in there), folder=self._packages)
        self._extract(self._packages)
        done.touch()

    def source(self, name: str) -> Path:
        """The sources of a package as their authors released them, without the distribution's patches."""
        folder = self.place / "sources" / name
        if not any(folder.glob("*.orig.tar.*")):
            folder.mkdir(parents=True, exist_ok=True)
            self._apt("--download-only", "--only-source", "source", name, folder=folder)
        (archive,) = (path for path in folder.glob("*.orig.tar.*") if path.suffix != ".asc")
        unpacked = folder / "unpacked"
        if not unpacked.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        (top,) = unpacked.iterdir()
        return top

    def version(self, package: str) -> str:
        """Of a package of this suite."""
        shown = self._apt("--no-all-versions", "show", package, program="apt-cache")
        found = re.search(r"^Version: (?:\d+:)?([^-+\s]+)", shown, re.MULTILINE)
        return found[1] if found else "unknown"

    def _extract(self, folder: Path) -> None:
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, self.root], check=True, timeout=DEADLINE)

    def _apt(self, *words: str, folder: Path | None = None, program: str = "apt-get") -> str:
        result = subprocess.run(
            [program, "-qq", *words],
            cwd=folder or self.place,
            env={**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        if result.returncode:
            raise RuntimeError(f"{program} {' '.join(words)}:\n{result.stdout}{result.stderr}")
        return result.stdout


def own_suite() -> str:
    """The suite that this machine runs."""
    found = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("/etc/os-release names no suite of a distribution that apt serves")
    return found[1]


def stanza_for(suite: str, folder: Path = SOURCES) -> str:
    """Where this machine's packages come from, told of another suite, with its sources."""
    own = own_suite()
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^(\S+):[ \t]*(.*)$", stanza, re.MULTILINE))
            if own in fields.get("Suites", "").split():
                fields |= {"Types": "deb deb-src", "Suites": suite}
                return "".join(f"{name}: {value}\n" for name, value in fields.items())
    for path in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            found = re.match(rf"deb\s+(?:\[.*?\]\s+)?(\S+)\s+{own}\s+(.+)$", line)
            if found:
                return f"Types: deb deb-src\nURIs: {found[1]}\nSuites: {suite}\nComponents: {found[2]}\n"
    raise RuntimeError(f"no source of packages for {own} in {folder}; give folders with the sources instead")
