"""Builds the /proc and /sys of a machine in a directory, as a recording of one would hold them."""

import sys
from dataclasses import dataclass
from pathlib import Path

STAT = (
    b"%d (%s) S %d 1 1 0 -1 %d 0 0 0 0 0 0 0 0 %d %d 1 0 9 0 0 18446744073709551615 "
    b"0 0 0 0 0 0 0 2147483647 0 0 0 0 17 1 %d %d 0 0 0\n"
)
NBD_STATE = 0x00580140
FILE_INFO = b"pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"
UNIX_HEAD = b"Num       RefCount Protocol Flags    Type St Inode Path\n"
TCP_HEAD = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
NETLINK_HEAD = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
MOUNTINFO = (
    b"29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    b"24 29 0:5 / /dev rw - devtmpfs udev rw\n"
    b"47 29 0:47 / /mnt/a\\040place rw - fuse.sshfs host:/ rw,user_id=0\n"
)


@dataclass
class Recorded:
    """A machine below `root`."""

    root: Path

    def write(self, path: str, content: bytes | str) -> None:
        """A file, with the directories above it."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, path: str, target: bytes | str) -> None:
        """A symbolic link, with the directories above it."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target if isinstance(target, str) else target.decode("utf-8", "surrogateescape"))

    def machine(self) -> "Recorded":
        """What every machine has."""
        self.write("proc/meminfo", "MemTotal:  1048576 kB\nSwapTotal:  4096 kB\nDirty:  16 kB\n")
        self.write("proc/sys/kernel/hostname", "store7\n")
        self.write("proc/sys/kernel/osrelease", "6.12.0\n")
        self.write("proc/sys/kernel/arch", "x86_64\n")
        self.write("proc/sys/vm/min_free_kbytes", "67584\n")
        self.write("proc/sys/vm/swappiness", "60\n")
        self.write("proc/net/unix", UNIX_HEAD)
        self.write("proc/net/tcp", TCP_HEAD)
        self.write("proc/net/netlink", NETLINK_HEAD)
        self.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
        self.write("proc/1/mountinfo", MOUNTINFO)
        self.write("sys/dev/char/10:229/uevent", "MAJOR=10\nMINOR=229\nDEVNAME=fuse\n")
        self.write("sys/dev/char/240:0/uevent", "MAJOR=240\nMINOR=0\nDEVNAME=uio0\n")
        self.write("proc/devices", "Block devices:\n  8 sd\n 43 nbd\n")
        self.write("sys/class/block/nbd0/dev", "43:0\n")
        self.write("sys/class/block/nbd0/size", "2048\n")
        return self

    def process(
        self,
        pid: int,
        comm: bytes,
        *,
        threads: dict[int, bytes] | None = None,
        flags: int = 0x00400140,
        capabilities: int = 0,
        scheduling: tuple[int, int, int] = (0, 0, 0),
        arguments: tuple[bytes, ...] = (),
        kernel: bool = False,
    ) -> None:
        """A process; scheduling is policy, real-time priority and nice value."""
        policy, priority, nice = scheduling
        if kernel:
            flags |= 0x00200000
        for tid, name in (threads or {pid: comm}).items():
            line = STAT % (tid, name, 1, flags, 20 + nice, nice, priority, policy)
            self.write(f"proc/{pid}/task/{tid}/stat", line)
        memory = (
            b"" if kernel else b"VmSize:\t 20000 kB\nVmLck:\t 2048 kB\nVmRSS:\t 9000 kB\nVmSwap:\t 12 kB\n"
        )
        sets = b"".join(b"Cap%s:\t%016x\n" % (name, capabilities) for name in (b"Prm", b"Eff", b"Bnd"))
        self.write(
            f"proc/{pid}/status",
            b"Name:\tx\nState:\tS (sleeping)\nTgid:\t%d\nTracerPid:\t0\nUid:\t1000\t0\t0\t0\n" % pid
            + memory
            + sets,
        )
        self.write(f"proc/{pid}/oom_score_adj", "-1000\n")
        (self.root / f"proc/{pid}/fd").mkdir()
        if kernel:
            return
        self.link(f"proc/{pid}/exe", b"/usr/sbin/" + b"daemon")
        self.link(f"proc/{pid}/cwd", "/")
        self.link(f"proc/{pid}/ns/mnt", "mnt:[4026531841]")
        self.link(f"proc/{pid}/ns/net", "net:[4026531840]")
        self.write(f"proc/{pid}/cmdline", b"\0".join((b"/usr/sbin/daemon", *arguments)) + b"\0")
        self.write(f"proc/{pid}/environ", b"TOKEN=in-the-environment\0")
        self.write(f"proc/{pid}/cgroup", b"0::/system.slice/daemon.service\n")
        self.write(f"proc/{pid}/maps", b"")

    def descriptor(self, pid: int, number: int, target: bytes, info: bytes = FILE_INFO) -> None:
        """An open file of a process."""
        self.link(f"proc/{pid}/fd/{number}", target)
        self.write(f"proc/{pid}/fdinfo/{number}", info)

    def tcp(self, *sockets: tuple[str, str, int, int]) -> None:
        """TCP sockets: local, remote ("7F000001:2A39" in network order), state, inode."""
        lines = [
            b"   0: %s %s %02X 0:0 0:0 0 0 0 %d 1 0\n" % (_native(local), _native(remote), state, inode)
            for local, remote, state, inode in sockets
        ]
        self.write("proc/net/tcp", TCP_HEAD + b"".join(lines))


def _native(address: str) -> bytes:
    """As a machine of this byte order writes it."""
    host, _, port = address.partition(":")
    word = bytes.fromhex(host)
    if sys.byteorder == "little":
        word = word[::-1]
    return f"{word.hex().upper()}:{port}".encode()
