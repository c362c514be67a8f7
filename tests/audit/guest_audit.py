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
from ioflusher.nbd import netlink
from ioflusher.nbd.backends import MemoryBackend
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


def confine(pid: int) -> None:
    """A control group with limits around the daemon."""
    if not (GROUP.parent / "cgroup.procs").exists():
        shell(f"mount -t cgroup2 none {GROUP.parent}")
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory")
    GROUP.mkdir()
    (GROUP / "memory.max").write_text("1G")
    (GROUP / "memory.high").write_text("100M")
    (GROUP / "cgroup.procs").write_text(str(pid))


def mend(finding: dict[str, Any]) -> bool:
    """Carry a finding's remedy out as it is printed; whether the finding is gone then."""
    for command in finding["remedy"]["commands"]:
        shell(command)
    return finding["rule"] not in findings()


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
        say("swapped off", mend(found.pop("swap-on-served")))
        shell(f"swapon {DEVICE}")
        say("swapped on again", "swap-on-served" in findings())
        say("mended", {name: mend(finding) for name, finding in found.items()})
        say("in the end", severities(findings()))
        shell(f"swapoff {DEVICE}")
        shell(f"ioflusher nbd detach {DEVICE}")
    GROUP.rmdir()


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
            say("code locked", mend(here["library-on-served"]))
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
        say("dirty limits mended", mend(found["dirty-limits"]))
        shell(f"umount {files}")
    for _ in range(10):
        found = findings()
        if "daemon-gone" in found or not Path("/sys/block/nbd0/pid").exists():
            break
        time.sleep(0.5)
    say("gone", severities(found))
    if "daemon-gone" in found:
        say("gone mended", mend(found["daemon-gone"]))


def main() -> None:
    HERE.mkdir()
    disk = next(
        f"/dev/{path.name}"
        for path in Path("/sys/block").glob("vd*")
        if (path / "size").read_text().strip() == str((80 << 20) // 512)
    )
    say("quiet", severities(findings()))
    careless()
    hardened()
    buffered(disk)
    misplaced()  # the last: from then on this process carries the state, and would hand it on


main()
