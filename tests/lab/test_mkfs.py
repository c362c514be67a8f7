"""File systems that the guest's kernel can mount, whatever mkfs would do by itself."""

import pytest

from ioflusher.lab.guest.mkfs import mkfs_command

OLD_KERNEL = "5.8.0-63-generic"


def asked(version: str) -> list[str]:
    """The words between the ordinary options and the device, on an old kernel."""
    command = mkfs_command("xfs", "/dev/nbd0", OLD_KERNEL, lambda *argv: f"{argv[0]} version {version}\n")
    assert command[:4] == ["mkfs.xfs", "-q", "-K", "-f"]
    assert command[-1] == "/dev/nbd0"
    return command[4:-1]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("5.6.0", []),
        ("5.10.0", ["-m", "bigtime=0,inobtcount=0"]),
        ("6.1.0", ["-m", "bigtime=0,inobtcount=0", "-i", "nrext64=0"]),
        ("6.13.0", ["-m", "bigtime=0,inobtcount=0", "-i", "nrext64=0,exchange=0", "-n", "parent=0"]),
        ("of no number", []),
    ],
)
def test_an_old_kernel_gets_no_new_features(version: str, words: list[str]) -> None:
    """Each feature that the kernel lacks is switched off, if this mkfs.xfs knows its name."""
    assert asked(version) == words


def test_a_newer_kernel_keeps_what_it_has() -> None:
    """5.10 mounts bigtime and inobtcount, and lacks what came later."""
    command = mkfs_command("xfs", "/dev/nbd0", "5.10.0-46-cloud-amd64", lambda *argv: "version 6.1.0")
    assert command[4:-1] == ["-i", "nrext64=0"]


def test_the_scenarios_own_options() -> None:
    """They come last, and so override the ordinary ones."""
    command = mkfs_command("xfs", "/dev/nbd0", "6.12.117", lambda *argv: "", ("-d", "agcount=16"))
    assert command == ["mkfs.xfs", "-q", "-K", "-f", "-d", "agcount=16", "/dev/nbd0"]


@pytest.mark.parametrize(
    ("use", "release"), [("xfs", "6.12.117"), ("ext4", OLD_KERNEL), ("btrfs", OLD_KERNEL)]
)
def test_nobody_is_asked_without_need(use: str, release: str) -> None:
    """A kernel that has every feature, and other file systems: starting a program in a guest takes time."""

    def ask(*argv: str) -> str:
        raise AssertionError(argv)

    assert mkfs_command(use, "/dev/nbd0", release, ask)[0] == f"mkfs.{use}"
