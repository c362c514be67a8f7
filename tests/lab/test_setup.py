"""What a scenario needs is looked for before anything boots, and installed by `lab setup`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.lab import experiment, setup, tree
from ioflusher.lab.errors import LabError
from ioflusher.lab.experiment import run_half
from ioflusher.lab.session import Lab
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.stacks import STACKS

PLAIN = find_scenario("swap-on-nbd")
NBDKIT = find_scenario("ext4-on-nbdkit-throttled")


def with_command(*command: str) -> Scenario:
    """A scenario whose daemon has this command."""
    return replace(NBDKIT, daemon=replace(NBDKIT.daemon, command=command))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The programs of a machine, to be filled."""
    programs: set[str] = set(setup.PACKAGES.values())

    def find(name: str) -> str | None:
        return f"/usr/bin/{name}" if name in programs else None

    monkeypatch.setattr(setup, "locate", find)
    monkeypatch.setattr(setup, "_find_in_guest", find)
    monkeypatch.setattr("os.access", lambda name, mode: name in programs)
    return programs


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What apt-get was asked to install."""
    asked: list[str] = []

    def run(argv: Sequence[str], *, deadline_s: float) -> str:
        if "install" in argv:
            asked.extend(argv[list(argv).index("--no-install-recommends") + 1 :])
        return ""

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "find_qemu", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/usr/bin/apt-get")
    return asked


def test_a_missing_daemon_is_named_with_its_package(here: set[str]) -> None:
    """Before any boot: the program, the package, what installs it; and nothing is said once it is there."""
    with pytest.raises(LabError) as caught:
        setup.check_programs(NBDKIT)
    assert "ext4-on-nbdkit-throttled needs" in str(caught.value)
    assert "nbdkit (package nbdkit)" in str(caught.value)
    assert "`ioflusher lab setup ext4-on-nbdkit-throttled`" in (caught.value.hint or "")
    here.add("nbdkit")
    setup.check_programs(NBDKIT)
    with pytest.raises(LabError, match=r"qemu-nbd \(package qemu-utils\)") as caught:
        setup.check_programs(replace(with_command("qemu-nbd", "-k", "{socket}"), name="mine"))
    assert "`ioflusher lab setup FILE`" in (caught.value.hint or ""), "a scenario of the user's own"


def test_a_daemon_of_no_known_package(here: set[str]) -> None:
    """What is not known is not guessed; a path that begins where the user is means nothing in a guest."""
    for program in ("my-daemon", "./my-daemon", "/opt/my-daemon"):
        with pytest.raises(LabError, match="of no package that is known here") as caught:
            setup.check_programs(with_command(program, "{socket}", "{file}"))
        assert "absolute path" in (caught.value.hint or "")
        assert "lab setup" not in (caught.value.hint or "")
    here.add("/opt/my-daemon")
    setup.check_programs(with_command("/opt/my-daemon"))
    here.add("./my-daemon")
    with pytest.raises(LabError):
        setup.check_programs(with_command("./my-daemon"))


def test_a_daemon_where_guests_do_not_look(here: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only this user's PATH has is found by its path alone, which the hint has."""
    monkeypatch.setattr(setup, "locate", lambda name: f"/home/me/bin/{name}")
    with pytest.raises(LabError) as caught:
        setup.check_programs(with_command("my-daemon", "{socket}", "{file}"))
    assert "my-daemon is at /home/me/bin/my-daemon, where guests do not look" in (caught.value.hint or "")


def test_a_hidden_daemon_is_shown_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program below a home directory, and what it is a link to; not one that guests see anyway."""
    monkeypatch.setattr(tree, "HIDDEN", frozenset({os.fsencode(tmp_path)}))
    (tmp_path / "build").mkdir()
    program = tmp_path / "build" / "server"
    program.write_text("")
    (tmp_path / "link").symlink_to(program)
    assert setup.daemon_files(with_command(str(tmp_path / "link"))) == (tmp_path / "link", program)
    assert setup.daemon_files(with_command(str(program))) == (program,)
    assert setup.daemon_files(with_command("/bin/sh")) == ()
    assert setup.daemon_files(with_command("nbdkit")) == setup.daemon_files(PLAIN) == ()
    shown = tree.scan([tmp_path / "link", program], root=tmp_path / "build")
    node = shown
    for part in program.parts[1:]:
        node = node.children[os.fsencode(part)]
    assert node.source == os.fsencode(program)
    assert list(node.children) == []


def test_a_program_that_guests_do_not_see_boots_nothing(
    here: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lab that was made for other scenarios does not show it: said, with what to do."""
    monkeypatch.setattr(experiment, "guest_disks", lambda _: pytest.fail("disks were made"))
    monkeypatch.setattr(experiment, "check_programs", lambda _: None)
    monkeypatch.setattr(experiment, "daemon_files", lambda _: (Path("/home/me/server"),))
    with pytest.raises(LabError, match="guests do not see /home/me/server") as caught:
        run_half(Lab(), NBDKIT, io_flusher=False)
    assert caught.value.hint == "--share /home/me"
    assert Lab(shares=[Path("/home/me")]).shows(Path("/home/me/server"))


def test_packages_of_stack_and_use(here: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The row's packages count, and the file system's tools."""
    assert setup.needed_programs(PLAIN) == {}
    row = replace(STACKS["nbd"], packages={"tools-of-it": "it-ctl"})
    monkeypatch.setitem(STACKS, "nbd", row)
    on_btrfs = replace(NBDKIT, device=replace(NBDKIT.device, use="btrfs"))
    assert setup.missing_programs(on_btrfs) == {
        "it-ctl": "tools-of-it",
        "mkfs.btrfs": "btrfs-progs",
        "nbdkit": "nbdkit",
    }


def test_programs_that_a_daemon_starts_count_too(here: set[str]) -> None:
    """The server behind sshfs, and what a shell executes, where they are known; words that only look alike do
    not."""
    server = "/usr/lib/openssh/sftp-server"
    sshfs = with_command("sshfs", "-f", "-o", f"ssh_command=sh -c {server}", "lab:{directory}", "{mount}")
    assert setup.needed_programs(sshfs) == {"sshfs": "sshfs", server: "openssh-sftp-server"}
    shell = with_command("sh", "-c", "mkdir /x && exec fuse-overlayfs -f /x/nbdkit {mount}")
    assert setup.needed_programs(shell) == {"sh": None, "fuse-overlayfs": "fuse-overlayfs"}


def test_nothing_boots_without_them(here: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever plays a half: the check is in its way."""
    monkeypatch.setattr(experiment, "guest_disks", lambda _: pytest.fail("disks were made"))
    with pytest.raises(LabError, match="package nbdkit"):
        run_half(Lab(), NBDKIT, io_flusher=False)


def test_setup_installs_what_scenarios_lack(here: set[str], installed: list[str]) -> None:
    """Each package once, beside the lab's own that are missing; nothing where all is there."""
    here.remove("depmod")
    found = setup.install_missing(lambda _: None, [NBDKIT, NBDKIT, PLAIN])
    assert found == installed == ["kmod", "nbdkit"]
    here |= {"depmod", "nbdkit"}
    installed.clear()
    assert setup.install_missing(lambda _: None, [NBDKIT]) == []
    assert installed == []


def test_setup_does_not_guess_a_package(here: set[str], installed: list[str]) -> None:
    """A daemon of no known package is the user's to install, and nothing else is done before that is said."""
    here.remove("depmod")
    with pytest.raises(LabError, match=r"cannot be installed from here: my-daemon"):
        setup.install_missing(lambda _: None, [with_command("my-daemon")])
    assert installed == []
