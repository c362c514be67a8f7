"""Runs inside a guest, as root: starts the distribution's storage daemons, then says who serves what.

Usage: guest_daemons.py TREE PROGRAMS: the directory of `packages.unpacked`, and one with the compiled ublk
server. Prints what `guest.play` prints, and {"root": ...}: a recording of what the storage collector read.
"""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

from tests.machine.guest import BUS_NAMES, RUN, SIZE, image, lay_over, play, run, start, until, write
from tests.machine.recording import record

TARGET = Path("/sys/kernel/config/target")
KEY = "5ec4e7" * 21 + "00"  # of a disk that is never written


def prepare(tree: str) -> None:
    """The packages' files, file systems of the kernel, the bus, udev."""
    lay_over(tree)
    run("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    run("mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections")
    for directory in ("/run/dbus", "/run/lock", "/run/sshd"):
        os.makedirs(directory, exist_ok=True)
    if "messagebus" not in {entry.pw_name for entry in pwd.getpwall()}:
        run("useradd", "--system", "--no-create-home", "messagebus")  # as the package's own script would
    run("dbus-daemon", "--system", "--fork")
    run("/usr/lib/systemd/systemd-udevd", "--daemon")
    run("udevadm", "trigger")
    run("udevadm", "settle", "-t", "20")


def nbdkit_by_ioctl() -> None:
    run("nbdkit", "-U", f"{RUN}/nbdkit.sock", "memory", str(SIZE))
    run("nbd-client", "-unix", f"{RUN}/nbdkit.sock", "/dev/nbd0", "-nonetlink")


def nbd_server_by_netlink() -> None:
    write(
        RUN / "nbd.conf",
        "[generic]\nlistenaddr = 127.0.0.1\nport = 10810\n[x]\nexportname = " + str(image("nbd-server.img")),
    )
    run("nbd-server", "-C", f"{RUN}/nbd.conf")
    until("nbd-server", lambda: ":10810" in run("ss", "-tln"))
    run("nbd-client", "127.0.0.1", "10810", "/dev/nbd1", "-N", "x")


def qemu_nbd() -> None:
    run("qemu-nbd", "-f", "raw", "-c", "/dev/nbd2", str(image("qemu-nbd.img")))


def own_daemon() -> None:
    """Our own server and client, under names by which they are told apart."""
    program = [sys.executable, "-m", "ioflusher", "nbd"]
    start(*program, "serve", "--memory", "32M", "--unix", f"{RUN}/own.sock")
    until("our server", (RUN / "own.sock").exists)
    start(*program, "attach", "/dev/nbd3", f"nbd+unix:///?socket={RUN}/own.sock")
    until("nbd3", lambda: int(Path("/sys/block/nbd3/size").read_text()) > 0)


def tcmu() -> None:
    """A disk through tcm_loop, and another that LIO will export by iSCSI."""
    start("tcmu-runner", "--tcmu-log-dir", str(RUN))
    until("tcmu-runner", lambda: "org.kernel.TCMUService1" in run(*BUS_NAMES))
    for name, serial in (("loop", "3b5c1a2e-0000-4000-8000-123456789abc"), ("iscsi", "beef")):
        run("qemu-img", "create", "-f", "qcow2", f"{RUN}/{name}.qcow2", str(SIZE))
        device = TARGET / "core/user_0" / name
        device.mkdir(parents=True)
        write(device / "control", f"dev_config=qcow/{RUN}/{name}.qcow2,dev_size={SIZE}")
        write(device / "enable", "1")
        write(device / "wwn/vpd_unit_serial", serial)
    group = TARGET / "loopback/naa.5001405000000001/tpgt_1"
    (group / "lun/lun_0").mkdir(parents=True)
    write(group / "nexus", "naa.5001405000000002")
    os.symlink(TARGET / "core/user_0/loop", group / "lun/lun_0/it")


def tgt() -> None:
    start("tgtd", "-f", "--iscsi", "portal=127.0.0.1:3260")
    tgtadm = ("tgtadm", "--lld", "iscsi")
    until(
        "tgtd",
        lambda: (
            subprocess.run([*tgtadm, "--op", "show", "--mode", "sys"], capture_output=True).returncode == 0
        ),
    )
    run(*tgtadm, "--op", "new", "--mode", "target", "--tid", "1", "-T", "iqn.2026-01.test:tgt")
    image_path = str(image("tgt.img"))
    run(*tgtadm, "--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", image_path)
    run(*tgtadm, "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")


def lio() -> None:
    """The kernel's own iSCSI target in front of tcmu-runner."""
    group = TARGET / "iscsi/iqn.2026-01.test:lio/tpgt_1"
    (group / "np/127.0.0.1:3261").mkdir(parents=True)
    (group / "lun/lun_0").mkdir()
    os.symlink(TARGET / "core/user_0/iscsi", group / "lun/lun_0/it")
    for name, value in (
        ("authentication", "0"),
        ("generate_node_acls", "1"),
        ("demo_mode_write_protect", "0"),
    ):
        write(group / "attrib" / name, value)
    write(group / "enable", "1")


def initiator() -> None:
    write(Path("/etc/iscsi/initiatorname.iscsi"), "InitiatorName=iqn.2026-01.test:initiator\n")
    run("iscsid")
    for name, port in (("tgt", 3260), ("lio", 3261)):
        run("iscsiadm", "-m", "discovery", "-t", "st", "-p", f"127.0.0.1:{port}")
        node = ("iscsiadm", "-m", "node", "-T", f"iqn.2026-01.test:{name}", "-p", f"127.0.0.1:{port}")
        run(*node, "--login")
    until(
        "two disks by iSCSI",
        lambda: len(list(Path("/sys/class/iscsi_session").glob("*/device/target*/*/block/*"))) == 2,
    )


def multipath() -> None:
    """Two paths to one disk of scsi_debug; everything else is left alone."""
    write(
        Path("/etc/multipath.conf"),
        "defaults {\n find_multipaths no\n user_friendly_names yes\n}\n"
        'blacklist {\n devnode ".*"\n}\n'
        'blacklist_exceptions {\n devnode "^sd"\n device {\n vendor "Linux"\n product "scsi_debug"\n }\n}\n'
        'blacklist {\n device {\n vendor "(LIO-ORG|IET)"\n }\n}\n',
    )
    run("modprobe", "scsi_debug", "add_host=2", "vpd_use_hostno=0", "dev_size_mb=8")
    start("multipathd", "-d")
    until("a multipath device", lambda: "multipath" in run("dmsetup", "status"))


def sshfs() -> None:
    """sshfs speaks with an SFTP server at the other end of a pipe: that is the program that it calls ssh."""
    write(RUN / "ssh", "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n")
    (RUN / "ssh").chmod(0o755)
    for name in ("a", "b"):
        (RUN / f"sshfs-{name}").mkdir()
        run("sshfs", "-o", f"ssh_command={RUN}/ssh", "host:/etc", str(RUN / f"sshfs-{name}"))


def fuse_overlayfs() -> None:
    for name in ("lower", "upper", "work", "overlay"):
        (RUN / name).mkdir()
    options = f"lowerdir={RUN}/lower,upperdir={RUN}/upper,workdir={RUN}/work"
    run("fuse-overlayfs", "-o", options, str(RUN / "overlay"))


def ntfs() -> None:
    path = str(image("ntfs.img"))
    run("mkntfs", "-F", "-Q", path)
    device = run("losetup", "-f", "--show", path).strip()
    (RUN / "ntfs").mkdir()
    run("ntfs-3g", device, str(RUN / "ntfs"))


def nfs() -> None:
    """The kernel's server, and one in user space, mounted from this same machine."""
    write(
        Path("/etc/exports"), f"{RUN}/export 127.0.0.1(rw,fsid=0,no_subtree_check,insecure,no_root_squash)\n"
    )
    for directory in (RUN / "export", RUN / "nfs", Path("/var/lib/nfs/rpc_pipefs")):
        directory.mkdir(exist_ok=True, parents=True)
    run("mount", "-t", "tmpfs", "tmpfs", f"{RUN}/export")
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    start("rpc.mountd", "-F", "-N", "3")
    run("exportfs", "-r")
    run("rpc.nfsd", "-N", "3", "1")
    run("mount", "-t", "nfs4", "-o", "soft", "127.0.0.1:/", f"{RUN}/nfs")


def ganesha() -> None:
    for directory in (RUN / "ganesha-export", RUN / "ganesha-mount", Path("/var/lib/nfs/ganesha")):
        directory.mkdir(exist_ok=True, parents=True)
    run("mount", "-t", "tmpfs", "tmpfs", f"{RUN}/ganesha-export")
    write(
        RUN / "ganesha.conf",
        "NFS_CORE_PARAM { NFS_Port = 12049; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }\n"
        "NFSv4 { Graceless = true; RecoveryBackend = fs; }\n"
        f"EXPORT {{ Export_Id = 1; Path = {RUN}/ganesha-export; Pseudo = /x; Access_Type = RW; "
        "Squash = none; SecType = sys; Protocols = 4; FSAL { Name = VFS; } }\n",
    )
    start(
        "ganesha.nfsd",
        "-F",
        "-f",
        f"{RUN}/ganesha.conf",
        "-L",
        f"{RUN}/ganesha.log",
        "-p",
        f"{RUN}/ganesha.pid",
    )
    until("ganesha", lambda: ":12049" in run("ss", "-tln"))
    run("mount", "-t", "nfs4", "-o", "soft,port=12049", "127.0.0.1:/x", f"{RUN}/ganesha-mount")


def samba() -> None:
    for directory in (RUN / "share", RUN / "cifs", RUN / "samba", Path("/var/lib/samba/private")):
        directory.mkdir(exist_ok=True, parents=True)
    write(
        RUN / "smb.conf",
        "[global]\nmap to guest = Bad User\ndisable spoolss = yes\nload printers = no\ninterfaces = lo\n"
        "bind interfaces only = yes\ndisable netbios = yes\nsmb ports = 445\n"
        f"[x]\npath = {RUN}/share\nguest ok = yes\nread only = no\n",
    )
    run("smbd", "-D", "-s", f"{RUN}/smb.conf", "-l", str(RUN))
    until("smbd", lambda: ":445" in run("ss", "-tln"))
    run("modprobe", "cifs")
    options = "ip=127.0.0.1,unc=\\\\127.0.0.1\\x,guest,sec=none,vers=3.1.1"
    run("mount", "-i", "-t", "cifs", "-o", options, "//127.0.0.1/x", f"{RUN}/cifs")


def ublk() -> None:
    start(f"{sys.argv[2]}/ublk", str(SIZE >> 9))
    until("ublkb0", lambda: Path("/sys/block/ublkb0").exists())


def vduse() -> None:
    """QEMU's storage daemon behind a virtio disk of this same machine."""
    run("modprobe", "virtio_vdpa")
    run("modprobe", "vduse")
    start(
        *("qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={image('vduse.img')}"),
        *("--export", "type=vduse-blk,id=export,node-name=disk,name=vduse-disk,writable=on"),
    )
    until("/dev/vduse/vduse-disk", lambda: Path("/dev/vduse/vduse-disk").exists())
    run("vdpa", "dev", "add", "name", "vduse-disk", "mgmtdev", "vduse")


def loop(name: str) -> str:
    return run("losetup", "-f", "--show", str(image(name))).strip()


def layers() -> None:
    """What has no daemon: dm, btrfs on two devices, zram, swap on it and in a file."""
    for module in ("dm-crypt", "btrfs", "zram"):
        run("modprobe", module)
    sectors = SIZE >> 9
    write(RUN / "table", f"0 {sectors} crypt aes-xts-plain64 {KEY} 0 {loop('crypt.img')} 0\n")
    run("dmsetup", "create", "secret", f"{RUN}/table")
    half = sectors // 2
    write(RUN / "table", f"0 {half} linear /dev/mapper/secret {half}\n{half} {half} zero\n")
    run("dmsetup", "create", "two parts", f"{RUN}/table")
    pair = []
    for name in ("btrfs-a", "btrfs-b"):
        with (RUN / name).open("wb") as file:
            file.truncate(128 << 20)
        pair.append(run("losetup", "-f", "--show", str(RUN / name)).strip())
    run("mkfs.btrfs", "-q", *pair)
    (RUN / "two disks").mkdir()
    run("mount", pair[1], f"{RUN}/two disks")
    write(Path("/sys/block/zram0/disksize"), "16M")
    run("mkswap", "/dev/zram0")
    run("swapon", "-p", "5", "/dev/zram0")
    disk = loop("ext4.img")
    run("mkfs.ext4", "-q", disk)
    (RUN / "ext4").mkdir()
    run("mount", disk, f"{RUN}/ext4")
    run("fallocate", "-l", "8M", f"{RUN}/ext4/swap file")
    run("chmod", "600", f"{RUN}/ext4/swap file")
    run("mkswap", f"{RUN}/ext4/swap file")
    run("swapon", f"{RUN}/ext4/swap file")


def second_by_netlink() -> None:
    """A second device that nobody's process tells from the first."""
    run("nbd-client", "-unix", f"{RUN}/nbdkit.sock", "/dev/nbd4")


def kill_all() -> None:
    """The daemons die; what they served stays behind."""
    for name in (
        "nbd-server",
        "nbdkit",
        "tcmu-runner",
        "multipathd",
        "tgtd",
        "iscsid",
        "sshfs",
        "qemu-storage-daemon",
    ):
        run("pkill", "-KILL", "-x", name[:15])
    until(
        "sessions fail", lambda: "FAILED" in Path("/sys/class/iscsi_session/session1/state").read_text(), 30
    )


def main() -> None:
    prepare(sys.argv[1])
    steps = (
        *(nbdkit_by_ioctl, nbd_server_by_netlink, qemu_nbd, own_daemon, tcmu, tgt, lio, initiator, multipath),
        *(sshfs, fuse_overlayfs, ntfs, nfs, ganesha, samba, vduse, layers, ublk),
    )
    play("all", *steps)
    print(json.dumps({"root": record(Path("/"))}), flush=True)
    play("two", second_by_netlink)
    play("gone", kill_all)


if __name__ == "__main__":
    main()
