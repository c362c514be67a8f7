"""Make the signed archives of tests/lab/archive anew: `python -m tests.lab.archive`; needs gpg and dpkg-deb.

They are a mirror as apt sees one, with packages of a few bytes: below `mirror` a Debian archive, which has a
kernel of the newer form and the keyring of the other distribution, and that other one's, which has 5.8. Each
is signed by a key of its own that was thrown away; `keyrings` has a public one, and one that signed nothing.
"""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "archive"
MIRROR = ARCHIVE / "mirror"
KEYRINGS = ARCHIVE / "keyrings"

MADE = "20240101T000000"  # apt refuses what is dated after its machine's clock

# suite of an archive -> package -> its files
DEBIAN_NEWEST = "7.3.4+deb13-cloud-amd64"
UBUNTU_5_8 = "5.8.0-63-generic"
_MODULES = f"lib/modules/{UBUNTU_5_8}"
SUITES: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {
    ("debian", "trixie-backports"): {
        f"linux-image-{DEBIAN_NEWEST}": {},
        f"linux-base-{DEBIAN_NEWEST}": {f"usr/lib/modules/{DEBIAN_NEWEST}/modules.builtin": b""},
        f"linux-binary-{DEBIAN_NEWEST}": {f"usr/lib/modules/{DEBIAN_NEWEST}/vmlinuz": b"image 7.3"},
        f"linux-modules-{DEBIAN_NEWEST}": {f"usr/lib/modules/{DEBIAN_NEWEST}/kernel/README": b"modules"},
        # names no kernel, and one that is older
        "linux-image-cloud-amd64": {},
        "linux-image-6.18.15+deb13-cloud-amd64": {},
    },
    ("ubuntu", "focal-updates"): {
        f"linux-image-{UBUNTU_5_8}": {f"boot/vmlinuz-{UBUNTU_5_8}": b"image 5.8"},
        f"linux-modules-{UBUNTU_5_8}": {f"{_MODULES}/kernel/README": b"modules"},
        "linux-image-5.8.0-55-generic": {},
        "linux-image-5.8.0-1043-azure": {},
        "linux-image-unsigned-5.8.0-64-generic": {},
    },
}


def make() -> None:
    """Write all of it; nothing of the keys that sign is kept."""
    shutil.rmtree(ARCHIVE, ignore_errors=True)
    KEYRINGS.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o700)
        try:
            for key in ("debian", "ubuntu", "stranger"):
                gpg(home, "--passphrase", "", "--quick-gen-key", key, "ed25519", "sign", "never")
                (KEYRINGS / f"{key}-archive-keyring.gpg").write_bytes(gpg(home, "--export", key))
            keyring = (KEYRINGS / "ubuntu-archive-keyring.gpg").read_bytes()
            files = {"usr/share/keyrings/ubuntu-archive-keyring.gpg": keyring}
            write_suite(home, "debian", "trixie", {"ubuntu-keyring": files})
            for (archive, suite), packages in SUITES.items():
                write_suite(home, archive, suite, packages)
        finally:
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    (KEYRINGS / "ubuntu-archive-keyring.gpg").unlink()  # it is to be had from the package


def gpg(home: Path, *words: str, data: bytes = b"") -> bytes:
    """What gpg says, with a home of its own."""
    argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--faked-system-time", MADE, *words]
    return subprocess.run(argv, input=data, check=True, capture_output=True).stdout


def write_suite(home: Path, archive: str, suite: str, packages: dict[str, dict[str, bytes]]) -> None:
    """A suite with its packages, signed with the archive's key."""
    root = MIRROR / archive
    pool = root / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    stanzas = []
    for name, files in packages.items():
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: none\n"
        deb = build(control, files, pool / f"{name}.deb")
        stanzas.append(f"{control}Filename: pool/{name}.deb\nSize: {len(deb)}\nSHA256: {sha256(deb)}\n")
    text = "\n".join(stanzas).encode()
    place = root / "dists" / suite / "main" / "binary-amd64" / "Packages.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(gzip.compress(text, mtime=0))
    release = (
        f"Origin: test\nSuite: {suite}\nCodename: {suite}\nDate: Mon, 01 Jan 2024 00:00:00 UTC\n"
        "Architectures: amd64\nComponents: main\nSHA256:\n"
        # apt wants to know the unpacked one, too
        f" {sha256(text)} {len(text)} main/binary-amd64/Packages\n"
        f" {sha256(place.read_bytes())} {place.stat().st_size} main/binary-amd64/Packages.gz\n"
    )
    signed = gpg(home, "--local-user", archive, "--clearsign", "--output", "-", data=release.encode())
    (root / "dists" / suite / "InRelease").write_bytes(signed)


def sha256(data: bytes) -> str:
    """As the lists have it."""
    return hashlib.sha256(data).hexdigest()


def build(control: str, files: dict[str, bytes], deb: Path) -> bytes:
    """A package with these files."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        (root / "DEBIAN").mkdir(parents=True)
        root.chmod(0o755)
        (root / "DEBIAN" / "control").write_text(control)
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        argv = ["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", str(root), str(deb)]
        subprocess.run(argv, check=True, capture_output=True)
    return deb.read_bytes()


if __name__ == "__main__":
    make()
