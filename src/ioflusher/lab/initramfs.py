"""The first file system of a guest: a static busybox, a few modules, a script that finds the real root."""

import lzma
import re
import shlex
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import Kernel
from ioflusher.lab.messages import EVENTS_PORT, ORDER_FILE
from ioflusher.support.programs import find_program, run

# what stands between the kernel and its root: a virtio disk with EROFS under an overlay
ROOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "erofs", "overlay")

_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
while read module options; do
    $B insmod /modules/$module $options || echo "lab: cannot load $module" >/dev/kmsg
done </modules/list
$B mkdir -p /lower /top /root
n=0
while ! [ -b /dev/vda ] && [ $n -lt 100 ]; do $B sleep 0.05; n=$((n+1)); done
$B mount -t erofs -o ro /dev/vda /lower || echo "lab: no root" >/dev/kmsg
$B mount -t tmpfs -o mode=755 tmpfs /top
$B mkdir /top/upper /top/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/top/upper,workdir=/top/work overlay /root
for at in proc sys dev; do $B mount --move /$at /root/$at; done
$B mount -t tmpfs -o mode=755 tmpfs /root/run
$B mkdir -p /root/dev/pts /root/dev/shm /root/run/lock /root/run/lab
$B mount -t devpts devpts /root/dev/pts
$B mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
$B mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$B mount -t debugfs debugfs /root/sys/kernel/debug
$B mount -t tracefs tracefs /root/sys/kernel/tracing
$B ln -sf /proc/self/fd /root/dev/fd
$B ln -sf /proc/self/fd/0 /root/dev/stdin
$B ln -sf /proc/self/fd/1 /root/dev/stdout
$B ln -sf /proc/self/fd/2 /root/dev/stderr
$B hostname guest
for port in /sys/class/virtio-ports/* /root/sys/class/virtio-ports/*; do
    [ "$($B cat $port/name 2>/dev/null)" = @EVENTS_PORT@ ] || continue
    read uptime rest </root/proc/uptime
    $B printf '@BOOTED@\\n' $uptime >/root/dev/${port##*/}
done
$B ip link set lo up
if [ -d /sys/class/net/eth0 ] || [ -d /root/sys/class/net/eth0 ]; then
    $B ip addr add 10.0.2.15/24 dev eth0
    $B ip link set eth0 up
    $B ip route add default via 10.0.2.2
fi
$B cp /bin/busybox /after /@ORDER_FILE@ /root/run/lab/
exec $B switch_root /root /run/lab/busybox sh /run/lab/after
"""
# the report `Booted` as busybox's printf makes it; %s is the time
BOOTED_FORMAT = '{"event":"booted","time_s":%s}'
_INIT = (
    _INIT.replace("@EVENTS_PORT@", EVENTS_PORT)
    .replace("@ORDER_FILE@", ORDER_FILE)
    .replace("@BOOTED@", BOOTED_FORMAT)
)

_AFTER = """cd {cwd} 2>/dev/null || cd /
{environment} {command} </dev/null
echo "lab: agent ended with status $?" >/dev/kmsg
/run/lab/busybox reboot -f
"""


def newc(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).

    Each entry is (path, st_mode, content).
    """
    out = bytearray()

    def add(path: str, mode: int, content: bytes, number: int) -> None:
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        out.extend(b"070701" + b"".join(b"%08x" % value for value in fields) + name)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(content)
        out.extend(b"\0" * (-len(out) % 4))

    for number, (path, mode, content) in enumerate(entries, start=1):
        add(path, mode, content, number)
    add("TRAILER!!!", 0, b"", 0)
    return bytes(out)


def module_name(path: str) -> str:
    """The module's name as lsmod shows it: kernel/net/core/net-failover.ko.xz is net_failover."""
    return re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")


def load_order(modules_dep: str, modules_builtin: str, wanted: Sequence[str]) -> list[str]:
    """Paths of the modules to load, each after what it needs; built-in ones need no loading.

    Raises LabError for a module that this kernel does not have.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[module_name(path)] = (path, rest.split())
    builtin = {module_name(path) for path in modules_builtin.split()}
    order: list[str] = []
    for name in (module.replace("-", "_") for module in wanted):
        if name in builtin:
            continue
        if name not in needs:
            raise LabError(
                f"this kernel has no module {name}", hint="see its modules.dep and modules.builtin"
            )
        path, dependencies = needs[name]
        # modules.dep lists what is needed with the deepest last
        order += [p for p in (*reversed(dependencies), path) if p not in order]
    return order


def module_content(path: Path) -> bytes:
    """The module as the kernel loads it, whatever its file is compressed with."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return zlib.decompress(data, wbits=31)
    if path.suffix == ".zst":
        return _unpacked_zstd(path)
    if path.suffix != ".ko":
        raise LabError(
            f"module compression not supported: {path.name}", hint="expected .ko, .ko.xz, .ko.zst or .ko.gz"
        )
    return data


def _unpacked_zstd(path: Path) -> bytes:
    """Python has no zstd before 3.14."""
    zstd = find_program("zstd", package="zstd")
    with tempfile.TemporaryDirectory() as name:
        unpacked = Path(name) / "module.ko"
        run([zstd, "-d", "-q", str(path), "-o", str(unpacked)], deadline_s=60)
        return unpacked.read_bytes()


def build(
    kernel: Kernel,
    *,
    busybox: Path,
    modules: Sequence[str],
    order: bytes,
    command: Sequence[str],
    environment: dict[str, str],
    cwd: str,
) -> bytes:
    """The archive for one guest.

    `modules` are names, each with options behind a space where wanted ("nbd nbds_max=2"); `order` is the
    agent's, found as /run/lab/order.json; `command` starts the agent in the real root.
    """
    dep = (kernel.modules / "modules.dep").read_text()
    builtin_file = kernel.modules / "modules.builtin"
    builtin = builtin_file.read_text() if builtin_file.exists() else ""
    options = dict(module.replace("-", "_").partition(" ")[::2] for module in modules)
    optional = [
        m for m in ("crc32c_generic",) if m in {module_name(p.split(":")[0]) for p in dep.splitlines()}
    ]
    required = [m for m in ROOT_MODULES if m != "crc32c_generic"]
    paths = load_order(dep, builtin, [*optional, *required, *options])
    entries: list[tuple[str, int, bytes]] = [
        (name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "modules")
    ]
    entries.append(("bin/busybox", 0o100755, busybox.read_bytes()))
    listing = []
    for path in paths:
        name = module_name(path)
        entries.append((f"modules/{name}.ko", 0o100644, module_content(kernel.modules / path)))
        listing.append(f"{name}.ko {options.get(name, '')}".rstrip())
    after = _AFTER.format(
        cwd=shlex.quote(cwd),
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items()),
        command=shlex.join(command),
    )
    entries += [
        ("modules/list", 0o100644, ("\n".join(listing) + "\n").encode()),
        ("after", 0o100644, after.encode()),
        (ORDER_FILE, 0o100600, order),
        ("init", 0o100755, _INIT.encode()),
    ]
    return newc(entries)
