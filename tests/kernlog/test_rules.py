"""Stacks written from the kernel's sources: who allocates and what reclaim waits for decide together."""

import json

import pytest
from tests.kernlog.answers import STACK_ANSWERS, stack_answer
from tests.kernlog.stacks import DEFINED, STACKS, log

from ioflusher.kernlog.diagnose import diagnose_log

KEPT = json.loads(STACK_ANSWERS.read_text("utf-8"))


@pytest.mark.parametrize("case", STACKS["recursion"])
def test_a_recursion_is_found(case: str) -> None:
    """Whoever is needed for what its own reclaim waits for is in a recursion."""
    assert diagnose_log(log(*STACKS["recursion"][case])).recursion


@pytest.mark.parametrize("case", STACKS["other"])
def test_another_hang_is_no_recursion(case: str) -> None:
    """Whoever nobody needs waits, and that is all."""
    assert not diagnose_log(log(*STACKS["other"][case])).recursion


@pytest.mark.parametrize("case", [*STACKS["recursion"], *STACKS["other"]])
def test_the_whole_reading_is_the_one_that_was_read(case: str) -> None:
    """What each function is, what the task waits for, what it holds or completes (answers.py)."""
    assert stack_answer(case) == KEPT.get(case)


def test_a_name_given_by_the_user_decides() -> None:
    """A daemon that no table knows is one when its user says so."""
    case = log("mystore", DEFINED["SWAP"] + DEFINED["SEND"])
    assert not diagnose_log(case).recursion
    assert diagnose_log(case, ("mystore",)).recursion
    assert diagnose_log(case, ("my*",)).recursion


def test_a_running_task_waits_for_nothing() -> None:
    """A warning's or an oops's trace may stand in reclaim; nobody waits there."""
    names = DEFINED["XFS_WRITE"].replace(DEFINED["SLEEP"].strip(), "") + DEFINED["SEND"]
    text = "CPU: 1 PID: 100 Comm: nbd-server Not tainted 6.1.0 #1\nCall Trace:\n dump_stack+0x1/0x2\n"
    text += "".join(f" {name}+0x1/0x20\n" for name in names.split())
    assert not diagnose_log(text.encode()).recursion


def test_a_fuse_daemon_in_reclaim_makes_its_clients_part_of_it() -> None:
    """A client's reclaim waits for the daemon; the daemon's own allocation is in reclaim."""
    _, client_names = STACKS["other"]["a client of a FUSE daemon that answers"]
    client = log("app", client_names)
    answering = "schedule reclaim_throttle" + DEFINED["PAGES"] + " kmalloc fuse_dev_do_write fuse_dev_write"
    assert not diagnose_log(client).recursion
    assert diagnose_log(client + log("myfuse", answering)).recursion


def test_an_nfs_server_behind_its_own_clients_compaction() -> None:
    """The server's allocation is throttled; the kernel's compaction thread waits for an NFS server."""
    server = log(
        "nfsd", "schedule reclaim_throttle" + DEFINED["PAGES"] + " alloc_pages_bulk svc_recv nfsd kthread"
    )
    waiting = (
        "schedule rpc_wait_bit_killable nfs_wb_folio nfs_release_folio migrate_pages "
        "compact_zone kcompactd kthread"
    )
    assert not diagnose_log(server).recursion
    assert diagnose_log(server + log("kcompactd0", waiting)).recursion


def test_a_program_called_after_what_it_serves_is_a_daemon() -> None:
    """Most storage daemons are home-made, and most of those say so in their name."""
    assert diagnose_log(log("my_nbd_srv", DEFINED["SWAP"] + DEFINED["SEND"])).recursion
