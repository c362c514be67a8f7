"""Runs inside a guest, as root with all capabilities: real nbd daemons, audited, mended as the findings say.

Prints one JSON line a check; the test outside (test_guest.py) holds them against what it expects.
"""

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ioflusher.audit.run import audit
from ioflusher.machine.collect.machine import collect
from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.kernel_client import netlink
from ioflusher.nbd.server import Server

PROGRAM = Path(sys.executable).with_name("ioflusher")
HERE = Path("/tmp/audit")
SOCKET = HERE / "socket"
DEVICE = "/dev/nbd0"
GROUP = Path("/sys/fs/cgroup/daemon")


def say(check: str, found: object) -> None:
    print(json.dumps([check, found]), flush=True)


def shell(command: str) -> None:
    """Run a line as root's shell would, with our program where root would have it."""
    path = f"{PROGRAM.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    if done.returncode:
        sys.exit(f"{command}: status {done.returncode}: {done.stdout}")


def printed(*options: str) -> tuple[int, dict[str, Any]]:
    """What the program itself prints, and its status."""
    done = subprocess.run([PROGRAM, "audit", "--json", *options], stdout=subprocess.PIPE, timeout=240)
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer


def findings() -> dict[str, dict[str, Any]]:
    """What an audit of the machine as it is now finds, by rule, without the start of another program."""
    return {finding.rule: msgspec.to_builtins(finding) for finding in audit(collect()).findings}


def severities(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Severity by rule."""
    return {rule: finding["severity"] for rule, finding in found.items()}


@contextmanager
def daemon(*options: str) -> Iterator[int]:
    """A server of ours with the kernel's client on it; nothing of the client stays in user space."""
    command = [str(PROGRAM), "nbd", "serve", "--unix", str(SOCKET), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            shell(f"ioflusher nbd attach --netlink {DEVICE} 'nbd+unix:///?socket={SOCKET}'")
            yield process.pid
        finally:
            process.kill()
            process.wait()
            SOCKET.unlink(missing_ok=True)


def make_group(high: str = "100M") -> None:
    """A control group with limits."""
    if not (GROUP.parent / "cgroup.procs").exists():
        shell(f"mount -t cgroup2 none {GROUP.parent}")
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory")
    GROUP.mkdir()
    (GROUP / "memory.max").write_text("1G")
    (GROUP / "memory.high").write_text(high)


def confine(pid: int) -> None:
    """A control group with limits around a daemon that runs."""
    make_group()
    (GROUP / "cgroup.procs").write_text(str(pid))


def mend(finding: dict[str, Any]) -> bool:
    """Execute a finding's remedy as it is printed; whether there were commands and the finding is gone."""
    commands = finding["remedy"]["commands"]
    for command in commands:
        shell(command)
    return bool(commands) and finding["rule"] not in findings()


@contextmanager
def python_daemon(*before: str, code: str = "") -> Iterator[int]:
    """A small server of its own, as a library's user writes one: it does nothing about its state by itself.

    `before`: commands in front of it; `code` is executed once its threads run.
    """
    program = f"""
import sys, time
from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.server import Server
server = Server(MemoryBackend(64 << 20))
server.listen_unix({str(SOCKET)!r})
server.start()
{code}
print("ready", flush=True)
time.sleep(3600)
"""
    with subprocess.Popen(
        [*before, sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            shell(f"ioflusher nbd attach --netlink {DEVICE} 'nbd+unix:///?socket={SOCKET}'")
            yield process.pid
        finally:
            process.kill()
            process.wait()
            SOCKET.unlink(missing_ok=True)


def partly() -> None:
    """A daemon that sets the state in its main thread after its server's threads were started."""
    with python_daemon(code="import ioflusher; ioflusher.set_io_flusher(True)"):
        found = findings()
        say("partly", severities(found)["partly-covered"])
        say("executed partly-covered", mend(found["partly-covered"]))
        shell(f"ioflusher nbd detach {DEVICE}")


def without_capability() -> None:
    """A daemon whose unit took CAP_SYS_RESOURCE away; then the same, started anew under `ioflusher run`."""
    less = ("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource")
    with python_daemon(*less):
        found = findings()
        say("without the capability", [rule for rule in ("uncovered", "cannot-set") if rule in found])
        commands = [found[rule]["remedy"]["commands"] for rule in ("uncovered", "cannot-set")]
        say("no command", commands)
        shell(f"ioflusher nbd detach {DEVICE}")
    with python_daemon(str(PROGRAM), "run", "--", *less):
        say("executed cannot-set", not {"uncovered", "cannot-set"} & findings().keys())
        shell(f"ioflusher nbd detach {DEVICE}")


def swapped(disk: str) -> None:
    """A daemon of which a part was reclaimed to swap on another disk."""
    shell(f"mkswap {disk} && swapon {disk}")
    make_group(high="max")
    # in the group from the beginning: that is where its memory is counted
    inside = ("sh", "-c", f'echo $$ > {GROUP}/cgroup.procs && exec "$@"', "sh")
    with python_daemon(*inside, code="ballast = bytearray(b'x') * (24 << 20)"):
        # the kernel answers EAGAIN where it got less than that
        shell(f"echo 32M > {GROUP}/memory.reclaim || true")
        found = findings()
        say("swapped out", severities(found).get("swapped-out"))
        if "swapped-out" in found:
            say("executed swapped-out", mend(found["swapped-out"]))
        shell(f"ioflusher nbd detach {DEVICE}")
    GROUP.rmdir()
    shell(f"swapoff {disk}")


def unkillable() -> None:
    """The only task of a control group with a hard limit, protected for ever."""
    with daemon("--memory", "64M", "--oom-score-adj", "-1000") as pid:
        confine(pid)
        found = findings()
        say("unkillable", severities(found).get("cgroup-unkillable"))
        say("executed cgroup-unkillable", mend(found["cgroup-unkillable"]))
        say("still protected", "oom-killable" not in findings())
        shell(f"ioflusher nbd detach {DEVICE}")
    GROUP.rmdir()


def forwarding() -> None:
    """A covered daemon that forwards to a bare server of the same machine: a circle through its memory."""
    behind = HERE / "behind"
    command = [str(PROGRAM), "nbd", "serve", "--memory", "64M", "--unix", str(behind), "--no-io-flusher"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        peer.stdout.readline()
        with daemon("--remote", f"nbd+unix:///?socket={behind}"):
            files = HERE / "forwarded"
            files.mkdir()
            shell(f"mkfs.ext4 -q {DEVICE} && mount {DEVICE} {files}")
            found = findings()
            say("forwarding", severities(found).get("cycle"))
            say("executed cycle", mend(found["cycle"]))
            shell(f"umount {files}")
            shell(f"ioflusher nbd detach {DEVICE}")
        peer.kill()


def unprivileged() -> None:
    """An ordinary user sees less, and is told so; root's look is the remedy."""
    with daemon("--memory", "64M", "--oom-score-adj", "-1000"):
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", PROGRAM, "audit", "--json"],
            stdout=subprocess.PIPE,
            timeout=240,
        )
        seen = {entry["rule"]: entry["severity"] for entry in json.loads(done.stdout)["findings"]}
        say("unprivileged", seen.get("unreadable"))
        say("executed unreadable", "unreadable" not in findings())
        shell(f"ioflusher nbd detach {DEVICE}")


def for_good(finding: dict[str, Any]) -> None:
    """What keeps a larger reserve over a restart: the file that is written is what sysctl reads at boot."""
    (wanted,) = finding["remedy"]["commands"]
    Path("/etc/sysctl.d").mkdir(exist_ok=True)
    for line in finding["remedy"]["lasting"]:
        shell(line)
    shell("sysctl -qw vm.min_free_kbytes=1024 && sysctl -q -p /etc/sysctl.d/60-ioflusher.conf")
    reserve = Path("/proc/sys/vm/min_free_kbytes").read_text().strip()
    say("executed small-reserve for good", wanted.endswith(f"={reserve}"))


def careless() -> None:
    """Swap on a device whose daemon is as careless as can be, mended step by step."""
    shell("sysctl -qw vm.min_free_kbytes=1024")
    with daemon("--memory", "64M", "--no-io-flusher") as pid:
        confine(pid)
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        status, answer = printed()
        found = {entry["rule"]: entry for entry in answer["findings"]}
        say("careless", [status, severities(found)])
        say("daemons", [pid, answer["hosts"][0]["looked"]["daemons"]])
        say("locked within its group", found["memory-not-locked"]["remedy"]["commands"])
        for name in ("memory-max", "memory-high", "oom-killable", "small-reserve", "uncovered"):
            say(f"executed {name}", mend(found[name]))
        for_good(found["small-reserve"])
        # with its group's limits lifted there is room for it
        left = findings()
        expected = [f"ioflusher set --lock-memory {pid}"]
        say("swap-on-served: commands", list(left["swap-on-served"]["remedy"]["commands"]) == expected)
        say("executed memory-not-locked", mend(left["memory-not-locked"]))
        say("in the end", severities(findings()))
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")
    GROUP.rmdir()


def locked_without_state() -> None:
    """Swap on the device of a daemon whose memory is locked: the state alone makes it fit."""
    with daemon("--memory", "64M", "--no-io-flusher", "--lock-memory", "--oom-score-adj", "-1000"):
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        say("executed swap-on-served by set", mend(findings()["swap-on-served"]))
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")


def swap_on_a_bare_daemon() -> None:
    """A daemon that can be made fit is; from one that cannot take the state swap is taken off."""
    with python_daemon():
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        say("executed swap-on-served by lock", mend(findings()["swap-on-served"]))
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")
    with python_daemon("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"):
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        finding = findings()["swap-on-served"]
        say("executed swap-on-served", mend(finding))
        shell(f"swapon {DEVICE}")
        say("swapped on again", "swap-on-served" in findings())
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")


def without_lock_capability() -> None:
    """Swap elsewhere would do: a daemon that may not lock memory has its limit lifted first."""
    less = ("setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock", "prlimit", "--memlock=65536")
    with python_daemon(*less):
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        finding = findings()["memory-not-locked"]
        say("prlimit first", any(line.startswith("prlimit") for line in finding["remedy"]["commands"]))
        say("executed memory-not-locked after prlimit", mend(finding))
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")


def hardened() -> None:
    """The same with a daemon that lives by the rules, started so."""
    options = ("--lock-memory", "--oom-score-adj", "-1000", "--realtime", "10", "--max-payload", "1M")
    with daemon("--memory", "64M", *options):
        shell(f"mkswap {DEVICE} && swapon {DEVICE}")
        status, answer = printed()
        say("hardened", [status, answer["findings"], len(answer["hosts"][0]["looked"]["daemons"])])
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")


def misplaced() -> None:
    """This very process serves a file system, and has a log, a store and code of its own on it."""
    with Server(MemoryBackend(64 << 20)) as server:
        address = server.listen_unix(str(SOCKET))
        server.start()
        netlink.attach(DEVICE, address)
        files = HERE / "served"
        files.mkdir()
        shell(f"mkfs.ext4 -q {DEVICE} && mount {DEVICE} {files} && cp /bin/true {files}/code")
        with (
            (files / "log").open("a"),
            (files / "store").open("wb"),
            (files / "code").open("rb") as code,
            mmap.mmap(code.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        ):
            code.close()
            here = {name: entry for name, entry in findings().items() if name.endswith("on-served")}
            say("misplaced", severities(here))
            say("misplaced, whose", list({entry["subject"]["pid"] == os.getpid() for entry in here.values()}))
            say("executed library-on-served", mend(here["library-on-served"]))
            say("log and store still there", {"log-on-served", "file-on-served"} <= findings().keys())
        say("put right", [name for name in findings() if name.endswith("on-served")])
        shell(f"umount {files}")
        netlink.detach(DEVICE)
    SOCKET.unlink(missing_ok=True)


def buffered(disk: str) -> None:
    """A file system whose daemon stores through the page cache, under a small dirty limit; then it dies."""
    store = HERE / "disk"
    store.mkdir()
    shell(f"mkfs.ext4 -q {disk} && mount {disk} {store} && truncate -s 32M {store}/image")
    shell("sysctl -qw vm.dirty_bytes=8388608")
    with daemon("--file", f"{store}/image", "--no-io-flusher", "--oom-score-adj", "-1000"):
        files = HERE / "files"
        files.mkdir()
        shell(f"mkfs.ext4 -q {DEVICE} && mount {DEVICE} {files}")
        found = findings()
        say("buffered", severities(found))
        say("executed dirty-limits", mend(found["dirty-limits"]))
        shell(f"umount {files}")
    for _ in range(10):
        found = findings()
        if "daemon-gone" in found or not Path("/sys/block/nbd0/pid").exists():
            break
        time.sleep(0.5)
    say("gone", severities(found))
    if "daemon-gone" in found:
        say("executed daemon-gone", mend(found["daemon-gone"]))


def main() -> None:
    HERE.mkdir()
    disk = next(
        f"/dev/{path.name}"
        for path in Path("/sys/block").glob("vd*")
        if (path / "size").read_text().strip() == str((80 << 20) // 512)
    )
    say("quiet", severities(findings()))
    careless()
    locked_without_state()
    swap_on_a_bare_daemon()
    without_lock_capability()
    hardened()
    partly()
    without_capability()
    swapped(disk)
    unkillable()
    forwarding()
    unprivileged()
    buffered(disk)
    misplaced()  # the last: from then on this process carries the state, and would hand it on


main()
