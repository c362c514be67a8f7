"""Another daemon in a scenario: all else stays, and what does not go together is told."""

from dataclasses import replace

import pytest

from ioflusher.lab.disks import EmptyDisk
from ioflusher.lab.experiment import disks_for, guest_for
from ioflusher.lab.variant import with_daemon
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import FaultTable

SWAP = find_scenario("swap-on-nbd")
FILES = find_scenario("ext4-on-nbd-throttled")


@pytest.mark.parametrize(
    ("command", "store", "disks", "network"),
    [
        (["server", "{socket}", "{file}"], "file", ["store", "reader"], False),
        (["server", "--at={socket}", "uri={remote}"], "remote", ["reader"], True),
        (["server", "{socket}"], "own", ["store", "reader"], False),
    ],
)
def test_the_store_follows_the_command(
    command: list[str], store: str, disks: list[str], network: bool
) -> None:
    """Its placeholders say which it is, and the machine has what it takes."""
    changed = with_daemon(SWAP, command)
    assert (changed.daemon.store, changed.daemon.command) == (store, tuple(command))
    assert [disk.name for disk in disks_for(changed) if isinstance(disk, EmptyDisk)] == disks
    assert guest_for(changed, ()).network is network


def test_all_else_stays() -> None:
    """Machine, pressure, workload, settings and hardening."""
    changed = with_daemon(SWAP, ["nbdkit", "{socket}", "{remote}"])
    assert changed == replace(
        SWAP,
        title=f"{SWAP.title}, with another daemon",
        served="a device (nbd) holds the machine's swap; `nbdkit '{socket}' '{remote}'` serves it",
        daemon=replace(SWAP.daemon, command=("nbdkit", "{socket}", "{remote}")),
    )


def test_another_kind() -> None:
    """The stack is another one, with its own modules."""
    changed = with_daemon(FILES, ["bindfs", "-f", "{directory}", "{mount}"], kind="fuse")
    assert changed.device == replace(FILES.device, kind="fuse")
    assert {"fuse", "loop max_loop=1"} <= set(changed.modules)


def test_a_daemon_that_is_told_what_to_serve() -> None:
    """Placeholders may stand in the commands that tell it."""
    changed = with_daemon(FILES, ["server", "{socket}"], setup=[["ctl", "add", "{file}"], ["ctl", "go"]])
    assert changed.daemon.setup == (("ctl", "add", "{file}"), ("ctl", "go"))
    assert changed.daemon.store == "file"
    with pytest.raises(ScenarioError, match=r"found {device}, {socket}"):
        with_daemon(FILES, ["server", "{socket}"], setup=[["ctl", "{device}"]])


def test_the_network_comes_with_the_server_outside() -> None:
    """A scenario that had a file has no driver for it."""
    assert "virtio_net" not in FILES.modules
    changed = with_daemon(FILES, ["server", "{socket}", "{remote}"])
    assert "virtio_net" in changed.modules
    assert with_daemon(changed, ["server", "{socket}", "{remote}"]).modules == changed.modules


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (
            ["server"],
            None,
            r"for 'nbd' must have {socket} and {file}, or {socket} and {remote}, or {socket}; found none",
        ),
        (["server", "{socket}", "{device}"], None, r"found {device}, {socket}$"),
        ([], "nbd", "must have"),
        (
            ["bindfs", "{directory}"],
            "fuse",
            r"must have {directory} and {mount}, or {file} and {mount}; found {directory}$",
        ),
        (["server", "{socket}"], "ndb", "no kind of daemon 'ndb'"),
    ],
)
def test_what_does_not_go_together(command: list[str], kind: str | None, message: str) -> None:
    """The message has what was expected and what was found."""
    with pytest.raises(ScenarioError, match=message):
        with_daemon(SWAP, command, kind)


def test_a_fault_that_the_kind_does_not_have() -> None:
    """The scenario's other parts are checked against the new daemon."""
    slow = replace(SWAP, fault=(FaultTable(kind="remote-slow", at_s=1.0, delay_ms=100),))
    with pytest.raises(ScenarioError, match="swap-on-nbd with another daemon: fault 1: 'remote-slow'"):
        with_daemon(slow, ["server", "{socket}", "{file}"])
