"""Who serves what, inferred from snapshots made by hand: each fact, and each way that it may fail."""

import gzip
import re
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.kernel.target import NO_SERIAL
from ioflusher.kernel.task import Thread
from ioflusher.machine.codec import load_snapshot
from ioflusher.machine.endpoints import (
    Connection,
    Family,
    IscsiSession,
    Listener,
    NetlinkUser,
    NvmeController,
    Remote,
    SocketEnd,
    TcmuDevice,
)
from ioflusher.machine.process import SERVING_DEVICES, DeviceHandle, Process
from ioflusher.machine.serving.infer import services
from ioflusher.machine.serving.multipath import MULTIPATHD_SOCKET
from ioflusher.machine.serving.service import StorageRole, StorageService
from ioflusher.machine.snapshot import Memory, Snapshot, System
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount

EMPTY = Snapshot(System("h", "6.12", "x86_64", "2026-01-01T00:00:00Z", privileged=True), Memory())
INODES = count(100)
NBD = BlockDevice("nbd0", "43:0", 1 << 20, DeviceKind.NBD)


def process(pid: int, comm: str, *handles: DeviceHandle, named: tuple[str, ...] = ()) -> Process:
    """A process with two threads."""
    threads = (Thread(pid, comm, "S", 0), Thread(pid + 1, comm, "S", 0))
    return Process(pid, 1, comm, 0, threads, handles=handles, named_mounts=named)


def talk(first: tuple[str, *tuple[int, ...]], second: tuple[str, *tuple[int, ...]]) -> Connection:
    """A connection; each end is its address and its holders."""
    ends = [
        SocketEnd(next(INODES), address, pids)
        for address, *holders in (first, second)
        for pids in [tuple(holders)]
    ]
    family = Family.UNIX if first[0][:1] in ("", "/", "@") else Family.TCP
    return Connection(family, (ends[0], ends[1]))


def brief(found: tuple[StorageService, ...]) -> set[tuple[int | None, str, str, bool]]:
    """What is compared: who, as what, for what, and whether that is certain."""
    return {(service.pid, service.role.value, service.target, service.certain) for service in found}


CLIENT = process(10, "nbd-client")
SERVER = process(20, "nbd-server")
BY_IOCTL = replace(NBD, serving_pid=11)  # a thread of the client


@pytest.mark.parametrize("address", ["/run/nbd.sock", "127.0.0.1:10809"])
def test_nbd_by_ioctl(address: str) -> None:
    """The client is whose thread started the device; the server holds the other end of its socket."""
    own = "" if address.startswith("/") else "127.0.0.1:40000"
    snapshot = replace(
        EMPTY,
        processes=(CLIENT, SERVER, process(30, "journald")),
        devices=(BY_IOCTL, replace(NBD, name="nbd1", size=0)),
        connections=(
            talk((own, 10), (address, 20)),
            talk(("", 10), ("/run/systemd/journal/stdout", 30)),
        ),
    )
    found = services(snapshot)
    assert brief(found) == {(10, "NBD client", "nbd0", True), (20, "NBD server", "nbd0", True)}
    assert {service.role: service.essential for service in found} == {
        StorageRole.NBD_CLIENT: False,
        StorageRole.NBD_SERVER: True,
    }


def test_nbd_with_two_peers_is_not_certain() -> None:
    """A client that talks with two processes may be served by either."""
    connections = (talk(("", 10), ("/a", 20)), talk(("", 10), ("/b", 30)))
    snapshot = replace(
        EMPTY, processes=(CLIENT, SERVER, process(30, "other")), devices=(BY_IOCTL,), connections=connections
    )
    assert brief(services(snapshot)) == {
        (10, "NBD client", "nbd0", True),
        (20, "NBD server", "nbd0", False),
        (30, "NBD server", "nbd0", False),
    }


def test_nbd_client_of_another_machine() -> None:
    """A server elsewhere is not looked for here."""
    remote = Remote(SocketEnd(5, "10.0.0.1:40000", (10,)), "10.0.0.2:10809")
    snapshot = replace(EMPTY, processes=(CLIENT,), devices=(BY_IOCTL,), remotes=(remote,))
    assert brief(services(snapshot)) == {(10, "NBD client", "nbd0", True)}


@pytest.mark.parametrize("kernel_end", [("",), ("", 10)])
def test_nbd_client_that_serves_itself(kernel_end: tuple[str, *tuple[int, ...]]) -> None:
    """qemu-nbd and rbd-nbd hold the other end of the socket that they gave to the kernel."""
    snapshot = replace(
        EMPTY, processes=(CLIENT,), devices=(BY_IOCTL,), connections=(talk(kernel_end, ("", 10)),)
    )
    assert brief(services(snapshot)) == {
        (10, "NBD client", "nbd0", True),
        (10, "NBD server", "nbd0", True),
    }


@pytest.mark.parametrize("stranger", [(), (process(11, "cron"),)])
def test_nbd_by_netlink(stranger: tuple[Process, ...]) -> None:
    """The client is gone, or its number is another's now: the server is the kernel's peer."""
    snapshot = replace(
        EMPTY,
        processes=(*stranger, SERVER),
        devices=(BY_IOCTL,),
        connections=(talk(("",), ("/run/nbd.sock", 20)), talk(("127.0.0.1:900",), ("127.0.0.1:2049", 40))),
    )
    assert brief(services(snapshot)) == {(20, "NBD server", "nbd0", True)}


def test_nbd_client_that_kept_the_device_alone() -> None:
    """A client by ioctl that closed its socket is known by the device that it holds."""
    client = process(10, "attach", DeviceHandle("/dev/nbd0", "43:0"))
    connections = (talk(("",), ("/run/nbd.sock", 20)),)
    snapshot = replace(EMPTY, processes=(client, SERVER), devices=(BY_IOCTL,), connections=connections)
    assert brief(services(snapshot)) == {(10, "NBD client", "nbd0", True), (20, "NBD server", "nbd0", True)}


def test_nbd_by_netlink_with_two_servers() -> None:
    """Which of two servers has which of two devices is not known."""
    snapshot = replace(
        EMPTY,
        processes=(SERVER, process(30, "nbdkit")),
        devices=(NBD, replace(NBD, name="nbd1")),
        connections=(talk(("",), ("/a", 20)), talk(("",), ("/b", 30))),
    )
    assert brief(services(snapshot)) == {
        (pid, "NBD server", device, False) for pid in (20, 30) for device in ("nbd0", "nbd1")
    }


def test_nbd_for_who_may_not_look() -> None:
    """Without privilege a socket without a holder may be anybody's: no process is suspected for it."""
    snapshot = replace(
        EMPTY,
        system=replace(EMPTY.system, privileged=False),
        processes=(CLIENT, process(30, "firefox")),
        devices=(BY_IOCTL,),
        connections=(talk(("",), ("", 30)),),
    )
    assert brief(services(snapshot)) == {
        (10, "NBD client", "nbd0", False),
        (None, "NBD server", "nbd0", False),
    }


@pytest.mark.parametrize("privileged", [True, False])
def test_a_device_whose_daemon_is_gone(privileged: bool) -> None:
    """Nobody there is a service of nobody; who may not look does not claim it."""
    snapshot = replace(
        EMPTY,
        system=replace(EMPTY.system, privileged=privileged),
        devices=(NBD, replace(NBD, name="ublkb0", kind=DeviceKind.UBLK)),
        tcmu=(TcmuDevice("uio0", "tcm-user/0/x"),),
    )
    assert brief(services(snapshot)) == {
        (None, "NBD server", "nbd0", privileged),
        (None, "ublk server", "ublkb0", privileged),
        (None, "tcmu handler", "uio0", privileged),
    }


def test_character_devices() -> None:
    """ublk, vduse and tcmu: whoever holds the driver's device, and the disk that it is for."""
    suffix = "0123456789abcdef012345678"
    snapshot = replace(
        EMPTY,
        processes=(
            process(10, "ublk", DeviceHandle("/dev/ublkc3", "240:3")),
            process(20, "qsd", DeviceHandle("/dev/vduse/disk", "241:1")),
            process(
                30, "tcmu-runner", DeviceHandle("/dev/uio0", "242:0"), DeviceHandle("/dev/uio1", "242:1")
            ),
        ),
        devices=(
            BlockDevice("ublkb3", "259:3", 512, DeviceKind.UBLK),
            BlockDevice(
                "vda",
                "254:0",
                512,
                DeviceKind.VIRTIO,
                path="/sys/devices/virtual/vduse/disk/disk/virtio0/block/vda",
            ),
            BlockDevice("sda", "8:0", 512, DeviceKind.SCSI, wwid=f"naa.6001405{suffix}"),
            BlockDevice("sdb", "8:16", 512, DeviceKind.SCSI, wwid="naa.600140500000000000000000000000000"),
        ),
        tcmu=(TcmuDevice("uio0", "tcm-user/0/a", suffix), TcmuDevice("uio1", "tcm-user/0/b", "f" * 25)),
    )
    assert brief(services(snapshot)) == {
        (10, "ublk server", "ublkb3", True),
        (20, "vduse server", "vda", True),
        (30, "tcmu handler", "sda", True),
        (30, "tcmu handler", "uio1", True),
    }


@pytest.mark.parametrize("units", [1, 2])
def test_tcmu_units_without_a_serial(units: int) -> None:
    """The disk's name ends with zeros: the only disk is the only unit's; of several nobody can tell."""
    name = f"naa.6001405{NO_SERIAL}"
    snapshot = replace(
        EMPTY,
        processes=(process(30, "tcmu-runner", DeviceHandle("/dev/uio0", "246:0")),),
        devices=tuple(
            BlockDevice(f"sd{letter}", f"8:{16 * number}", 512, DeviceKind.SCSI, wwid=name)
            for number, letter in enumerate("ab"[:units])
        ),
        tcmu=(TcmuDevice("uio0", "tcm-user/0/a", NO_SERIAL),),
    )
    found = {(30, "tcmu handler", f"sd{letter}", units == 1) for letter in "ab"[:units]}
    assert brief(services(snapshot)) == found


MULTIPATH = BlockDevice("dm-0", "254:0", 512, DeviceKind.DM, dm=DeviceMapper("m", "mpath-x", ("multipath",)))


@pytest.mark.parametrize(("pids", "found"), [((7,), 7), ((1, 7), 7), ((1,), None), ((), None)])
def test_multipath(pids: tuple[int, ...], found: int | None) -> None:
    """multipathd is who listens at its socket; systemd, which may hold it too, is not."""
    listener = Listener(Family.UNIX, SocketEnd(4, MULTIPATHD_SOCKET, pids))
    snapshot = replace(EMPTY, processes=(process(7, "x"),), devices=(MULTIPATH,), listeners=(listener,))
    assert brief(services(snapshot)) == {(found, "multipath daemon", "dm-0", True)}
    assert brief(services(replace(snapshot, devices=()))) == set()


SESSION = IscsiSession("session1", "iqn.x", "LOGGED_IN", ("127.0.0.1:3260",), ("sda",))


@pytest.mark.parametrize(
    ("connection", "listening", "target"),
    [
        ((20,), (20,), (20, False)),  # tgtd
        ((), (), (None, True)),  # LIO
        (None, (20,), (20, False)),  # not connected now
        (None, None, (None, False)),  # the target is gone
    ],
)
def test_iscsi(
    connection: tuple[int, ...] | None, listening: tuple[int, ...] | None, target: tuple[int | None, bool]
) -> None:
    """The initiator holds the netlink socket; the target, the other end of the session's connection."""
    address = "127.0.0.1:3260"
    snapshot = replace(
        EMPTY,
        processes=(process(10, "iscsid"), process(20, "tgtd")),
        netlink=(NetlinkUser(10, 8), NetlinkUser(20, 18)),
        iscsi=(SESSION,),
        connections=() if connection is None else (talk(("127.0.0.1:5000", 10), (address, *connection)),),
        listeners=()
        if listening is None
        else (Listener(Family.TCP, SocketEnd(9, "0.0.0.0:3260", listening)),),
    )
    found = {(service.role, service.pid, service.kernel, service.essential) for service in services(snapshot)}
    assert found == {
        (StorageRole.ISCSI_INITIATOR, 10, False, False),
        (StorageRole.ISCSI_TARGET, *target, True),
    }


def fuse_mount(number: str, point: str, fstype: str, user: str = "0") -> Mount:
    """A FUSE mount."""
    return Mount(int(number[-2:]), 1, number, "/", point, fstype, "src", (("rw", ""), ("user_id", user)))


FUSE = DeviceHandle("/dev/fuse", "10:229")


def test_fuse_by_each_fact() -> None:
    """The connection that a descriptor names; the mount point in the arguments; the name; what is left."""
    snapshot = replace(
        EMPTY,
        processes=(
            process(10, "one", DeviceHandle("/dev/fuse", "10:229", 50)),
            process(20, "two", FUSE, named=("/mnt/b",)),
            process(30, "sshfs", FUSE),
            process(40, "ntfs-3g", FUSE),
        ),
        mounts=(
            fuse_mount("0:50", "/mnt/a", "fuse"),
            fuse_mount("0:51", "/mnt/b", "fuse.two"),
            fuse_mount("0:52", "/mnt/c", "fuse.sshfs"),
            fuse_mount("7:10", "/mnt/d", "fuseblk"),
            Mount(99, 1, "0:50", "/", "/mnt/again", "fuse", "src"),
            Mount(98, 1, "0:97", "/", "/sys/fs/fuse/connections", "fusectl", "fusectl"),
        ),
    )
    assert brief(services(snapshot)) == {
        (10, "FUSE daemon", "0:50", True),
        (20, "FUSE daemon", "0:51", True),
        (30, "FUSE daemon", "0:52", True),
        (40, "FUSE daemon", "7:10", True),
    }


def test_fuse_where_no_fact_decides() -> None:
    """Two daemons of one name for two mounts: each may be either; of another user, neither."""
    snapshot = replace(
        EMPTY,
        processes=(
            process(10, "sshfs", FUSE),
            process(20, "sshfs", FUSE),
            replace(process(30, "x", FUSE), uid=1000),
        ),
        mounts=(fuse_mount("0:50", "/mnt/a", "fuse.sshfs"), fuse_mount("0:51", "/mnt/b", "fuse.sshfs")),
    )
    assert brief(services(snapshot)) == {
        (pid, "FUSE daemon", number, False) for pid in (10, 20) for number in ("0:50", "0:51")
    }
    gone = replace(snapshot, processes=())
    assert brief(services(gone)) == {(None, "FUSE daemon", number, True) for number in ("0:50", "0:51")}


@pytest.mark.parametrize(
    ("fstype", "options", "source", "peer", "found"),
    [
        ("nfs4", (("addr", "10.0.0.1"),), "10.0.0.1:/x", ("10.0.0.1:2049",), (None, True)),
        ("nfs", (("addr", "127.0.0.1"),), "h:/x", ("127.0.0.1:2049", 20), (20, False)),
        ("cifs", (("addr", "::1"),), "//h/x", ("[::1]:445", 20), (20, False)),
        ("9p", (("trans", "unix"),), "/run/9p.sock", ("/run/9p.sock", 20), (20, False)),
        ("9p", (("trans", "tcp"), ("port", "5640")), "127.0.0.1", ("127.0.0.1:5640", 20), (20, False)),
        ("nfs4", (("addr", "127.0.0.1"),), "h:/x", None, (None, False)),
        ("nfs4", (("addr", "10.9.9.9"),), "h:/x", None, None),
        ("9p", (("trans", "virtio"),), "tag", None, None),
    ],
)
def test_file_servers(
    fstype: str,
    options: tuple[tuple[str, str], ...],
    source: str,
    peer: tuple[str, *tuple[int, ...]] | None,
    found: tuple[int | None, bool] | None,
) -> None:
    """A server is on this machine where its end of the kernel's connection is."""
    own = ("" if source.startswith("/run") else "10.0.0.1:800",)
    snapshot = replace(
        EMPTY,
        processes=(process(20, "server"),),
        mounts=(Mount(1, 0, "0:60", "/", "/mnt", fstype, source, options),),
        connections=() if peer is None else (talk(own, peer),),
    )
    seen = [(service.pid, service.kernel) for service in services(snapshot)]
    assert seen == ([] if found is None else [found])


WORDS = st.sampled_from(
    ["", "0:5", "x:y", ":", "127.0.0.1:3260", "[::1", "/dev/fuse", "fuse.a", "9" * 30, "é"]
)
ENDS = st.builds(SocketEnd, st.integers(), WORDS, st.lists(st.integers(0, 3)).map(tuple))


@settings(deadline=None)
@given(
    snapshot=st.builds(
        replace,
        st.just(EMPTY),
        processes=st.lists(
            st.builds(
                process,
                st.integers(0, 3),
                WORDS,
                st.builds(DeviceHandle, WORDS, WORDS, st.none() | st.integers()),
            )
        ).map(tuple),
        devices=st.lists(
            st.builds(
                BlockDevice, WORDS, WORDS, st.integers(), st.sampled_from(DeviceKind), path=WORDS, wwid=WORDS
            )
        ).map(tuple),
        mounts=st.lists(
            st.builds(
                Mount,
                st.integers(),
                st.integers(),
                WORDS,
                WORDS,
                WORDS,
                st.sampled_from(["fuse", "fuseblk.x", "9p", "nfs"]),
                WORDS,
            )
        ).map(tuple),
        connections=st.lists(st.builds(Connection, st.sampled_from(Family), st.tuples(ENDS, ENDS))).map(
            tuple
        ),
        iscsi=st.lists(st.builds(IscsiSession, WORDS, WORDS, WORDS, st.tuples(WORDS), st.tuples(WORDS))).map(
            tuple
        ),
    )
)
def test_any_snapshot_gets_an_answer(snapshot: Snapshot) -> None:
    """A snapshot may say anything: the inference answers, and only with processes or nobody."""
    for service in services(snapshot):
        assert service.pid is None or isinstance(service.pid, int)
        assert service.evidence


def test_many_mounts_and_daemons() -> None:
    """10,000 FUSE mounts and as many daemons give one service each."""
    many = 10_000
    snapshot = replace(
        EMPTY,
        processes=tuple(process(2 * n, "d", FUSE, named=(f"/m/{n}",)) for n in range(1, many)),
        mounts=tuple(Mount(n, 0, f"0:{n}", "/", f"/m/{n}", "fuse.d", "s") for n in range(1, many)),
    )
    found = services(snapshot)
    assert len(found) == many - 1
    assert all(service.certain for service in found)


CONTROLLER = NvmeController("nvme0", "nqn.x", "live", "127.0.0.1:4420", ("nvme0n1",))


@pytest.mark.parametrize(
    ("connection", "listening", "found"),
    [
        ((), (), (None, True)),  # nvmet: both ends are the kernel's
        ((20,), (20,), (20, False)),  # SPDK
        (None, (20,), (20, False)),  # not connected now
        (None, None, (None, False)),  # gone
    ],
)
def test_nvme_over_tcp(
    connection: tuple[int, ...] | None, listening: tuple[int, ...] | None, found: tuple[int | None, bool]
) -> None:
    """The target is who holds the server's end at the controller's address, else who listens there."""
    address = "127.0.0.1:4420"
    snapshot = replace(
        EMPTY,
        processes=(process(20, "nvmf_tgt"),),
        nvme=(CONTROLLER, replace(CONTROLLER, name="nvme1", address="10.9.9.9:4420")),
        connections=() if connection is None else (talk(("127.0.0.1:5000",), (address, *connection)),),
        listeners=()
        if listening is None
        else (Listener(Family.TCP, SocketEnd(9, "0.0.0.0:4420", listening)),),
    )
    (service,) = services(snapshot)
    assert (service.pid, service.kernel) == found
    assert (service.role, service.target, service.essential) == (StorageRole.NVME_TARGET, "nvme0n1", True)


def test_ceph_from_this_machine() -> None:
    """Who the kernel is connected with; a store that listens is uncertain; the nbd device has neither."""
    snapshot = replace(
        EMPTY,
        processes=(process(10, "ceph-mon"), process(40, "ceph-osd"), process(30, "ceph-osd"), SERVER),
        devices=(replace(NBD, name="rbd0", kind=DeviceKind.RBD), NBD),
        mounts=(Mount(1, 0, "0:60", "/", "/c", "ceph", "u@f.fs=/", (("mon_addr", "127.0.0.1:6789"),)),),
        connections=(
            talk(("127.0.0.1:900",), ("127.0.0.1:6789", 10)),
            talk(("127.0.0.1:901",), ("127.0.0.1:6801", 40)),
            talk(("",), ("/run/nbd.sock", 20)),
        ),
        listeners=(Listener(Family.TCP, SocketEnd(9, "127.0.0.1:6805", (30,))),),
    )
    found = services(snapshot)
    for target in ("rbd0", "0:60"):
        daemons = {(s.pid, s.certain, s.essential) for s in found if s.target == target}
        assert daemons == {(10, True, False), (40, True, True), (30, False, True)}
    assert brief(tuple(s for s in found if s.target == "nbd0")) == {(20, "NBD server", "nbd0", True)}
    assert services(replace(snapshot, devices=(), mounts=())) == ()


@pytest.mark.parametrize(
    "address", ["/run/rpcbind.sock", "@/run/rpcbind.sock", "/var/run/gssproxy.sock", "127.0.0.1:111"]
)
def test_other_clients_of_the_kernel(address: str) -> None:
    """The peer of the kernel's RPC client serves no nbd device, even where no other peer is left."""
    own = "" if address.startswith(("/", "@")) else "127.0.0.1:700"
    snapshot = replace(
        EMPTY, processes=(process(30, "rpcbind"),), devices=(NBD,), connections=(talk((own,), (address, 30)),)
    )
    assert brief(services(snapshot)) == {(None, "NBD server", "nbd0", True)}


def test_who_holds_what_is_asked_for_is_recorded() -> None:
    """Every special file whose holder the inference looks for is one that the collector records."""
    file = Path(__file__).parents[1] / "audit" / "snapshots" / "debian-daemons-killed.json.gz"
    killed = load_snapshot(gzip.decompress(file.read_bytes()), file.name)
    ublk = replace(EMPTY, devices=(BlockDevice("ublkb3", "259:1", 1 << 20, DeviceKind.UBLK),))
    gone = [service.evidence for machine in (killed, ublk) for service in services(machine)]
    asked = {path for words in gone for path in re.findall(r"nobody is seen to hold (/dev/\S+)", words)}
    assert asked == {"/dev/vduse/vduse-disk", "/dev/uio0", "/dev/uio1", "/dev/fuse", "/dev/ublkc3"}
    assert [path for path in asked if not SERVING_DEVICES.fullmatch(path)] == []
