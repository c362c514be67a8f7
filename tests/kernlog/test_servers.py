"""Who serves what, from a machine's snapshot: a daemon of any name is known in a log."""

from dataclasses import replace

import pytest
from tests.kernlog.stacks import DEFINED, log
from tests.machine.graphs import daemon, machine, mount, nbd, serves

from ioflusher.kernlog.diagnose import Diagnoser
from ioflusher.kernlog.diagnosis import Diagnosis
from ioflusher.kernlog.fleet import Options
from ioflusher.kernlog.reading.console import parse_console, task_reports
from ioflusher.kernlog.records import DeviceServer, EventKind
from ioflusher.kernlog.servers import servers_of
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.serving.service import Candidate, Confidence, StorageRole, StorageService

FUSE = mount(30, "0:50", "/a", "/below", fstype="fuse.frob")
NFS = mount(31, "0:51", "/b", "host:/export", fstype="nfs4")
STORE = daemon(100, "store")
THROTTLED = log(
    "store", DEFINED["SLEEP"] + " balance_dirty_pages ext4_buffered_write_iter vfs_write ksys_pwrite64"
)


def served(*services: StorageService, others: tuple[str, ...] = ()) -> tuple[DeviceServer, ...]:
    """What comes of a machine with the process "store", the services, and other processes of these names."""
    more = tuple(daemon(500 + 10 * number, name) for number, name in enumerate(others))
    return servers_of(Analysis(machine((nbd(0),), (FUSE, NFS), processes=(STORE, *more)), services))


def diagnosis(text: bytes, *servers: DeviceServer) -> Diagnosis:
    """Of a log, with those servers known."""
    diagnoser: Diagnoser = Options(servers=servers).diagnoser()
    for record in parse_console(text):
        diagnoser.take(record)
    return diagnoser.result()


@pytest.mark.parametrize(
    ("service", "device", "kind"),
    [
        (serves(100, "nbd0"), "nbd0", "nbd"),
        (serves(100, "nbd0", StorageRole.UBLK_SERVER), "nbd0", "ublk"),
        (serves(100, "nbd0", StorageRole.CEPH_DAEMON), "nbd0", "block"),
        (serves(100, "0:50", StorageRole.FUSE_SERVER), "/a", "fuse"),
        (serves(100, "0:51", StorageRole.FILE_SERVER), "/b", "nfs"),
        (serves(100, "0:99", StorageRole.FUSE_SERVER), "file system 0:99", "fuse"),
    ],
)
def test_what_a_process_serves(service: StorageService, device: str, kind: str) -> None:
    """By its number with its threads' names, and by names that nobody else has."""
    threads = frozenset({(100, "store"), (101, "store")})
    expected = DeviceServer(device, 100, "store", kind, threads, frozenset({"store"}))
    assert served(service) == (expected,)


def test_a_name_that_others_have_tells_nothing() -> None:
    """An interpreter lends its name to many programs."""
    (server,) = served(serves(100, "nbd0"), others=("store",))
    assert server.names == frozenset()


@pytest.mark.parametrize(
    "service",
    [
        serves(None, "nbd0"),
        serves(100, "nbd0", kernel=True),
        serves(100, "nbd0", essential=False),
        serves(100, "nbd0", StorageRole.NBD_CLIENT),
        serves(100, "nbd0", candidate=Candidate(Confidence.LIKELY, 1, 2, "it listens")),
        serves(777, "nbd0"),
    ],
)
def test_who_need_not_act_or_may_be_another_is_left_out(service: StorageService) -> None:
    """A name in a cycle is an accusation."""
    assert served(service) == ()


def test_a_daemon_of_any_name_waits_for_itself() -> None:
    """The same log tells nothing of it without the machine."""
    assert not diagnosis(THROTTLED).recursion
    (episode,) = diagnosis(THROTTLED, *served(serves(100, "nbd0"))).episodes
    assert (episode.recursion, episode.daemon) == (True, "store")
    assert "io of nbd0 [certain]: its process serves nbd0" in episode.gives
    assert "is needed to complete I/O (store: serves nbd0)" in episode.why


@pytest.mark.parametrize(
    ("pid", "name", "others", "gives"),
    [
        (101, "store", (), "io of nbd0 [certain]: its process serves nbd0"),
        (999, "store", (), "io of nbd0 [probable]: a program of its name serves nbd0"),
        (999, "store", ("store",), None),
        (100, "other", (), None),
        (999, "other", (), None),
    ],
)
def test_it_is_known_by_number_and_name_or_by_a_name_of_its_own(
    pid: int, name: str, others: tuple[str, ...], gives: str | None
) -> None:
    """Once it was started again its number is another; and a number may be another program's then."""
    text = THROTTLED.replace(b"   100 ", f"   {pid} ".encode()).replace(b"store", name.encode())
    (episode,) = diagnosis(text, *served(serves(100, "nbd0"), others=others)).episodes
    assert episode.recursion is (gives is not None)
    assert gives is None or gives in episode.gives


def test_a_thread_that_came_later_is_known_by_its_process() -> None:
    """Where the log tells that."""
    (server,) = served(serves(100, "nbd0"))
    (report,) = task_reports(THROTTLED)
    assert server.runs(replace(report, pid=100, tid=188))
    assert not server.runs(replace(report, pid=100, tid=188, comm="other"))
    assert not server.runs(replace(report, comm=None))


def test_a_file_systems_daemon_waits_for_its_own_answer() -> None:
    """Its mount is no block device: nobody's requests are said to be up to it."""
    text = log(
        "store",
        DEFINED["SLEEP"] + " request_wait_answer fuse_simple_request fuse_flush_times evict "
        "prune_icache_sb super_cache_scan shrink_slab try_to_free_pages " + DEFINED["FAULT"],
    )
    (episode,) = diagnosis(text, *served(serves(100, "0:50", StorageRole.FUSE_SERVER))).episodes
    assert [(edge.waiter, edge.thing, edge.giver) for edge in episode.edges] == [
        ("store (100)", "answer", "store (100)")
    ]
    assert not any("of /a" in end for end in episode.gives)


STUCK = (
    b"block nbd0: Possible stuck request 0000000025c6ee3f: control (write@4096,512B). Runtime 30 seconds\n"
)
POOL = log("pool", DEFINED["SLEEP"] + " balance_dirty_pages ext4_buffered_write_iter vfs_write ksys_pwrite64")


@pytest.mark.parametrize(
    ("says", "daemon"),
    [
        (STUCK, "pool"),
        (b"block nbd0: Connection timed out\n", "pool"),
        (b"", None),
        (b"I/O error, dev sda, sector 8\n", None),
    ],
)
def test_a_name_that_others_have_as_well_tells_where_the_log_shows_the_device(
    says: bytes, daemon: str | None
) -> None:
    """nbd-server's threads are called as those of any program that uses GLib's pools."""
    (episode,) = diagnosis(POOL + says).episodes
    assert (episode.recursion, episode.daemon) == (daemon is not None, daemon)


def test_a_pools_thread_that_uses_a_file_system_in_user_space_is_no_daemon() -> None:
    """Whatever device the machine has besides."""
    waits = log("pool", DEFINED["SLEEP"] + " request_wait_answer fuse_simple_request fuse_lookup sys_stat")
    assert {episode.daemon for episode in diagnosis(waits + STUCK).episodes} == {None}


def test_a_request_that_hangs_is_told() -> None:
    """Who does not answer may be the daemon itself: no trouble that would explain the rest away."""
    (event,) = diagnosis(STUCK + STUCK).events
    assert (event.kind, event.count) == (EventKind.STUCK_REQUEST, 2)
