"""Runs inside a guest, as root: audits the distribution's own daemons and executes what it prints for them.

Usage: guest_debian.py TREE PROGRAMS, as guest_daemons.py has them. Prints one JSON line a check.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ioflusher.audit.run import audit
from ioflusher.machine.collect.machine import collect
from tests.machine import guest_daemons as daemons
from tests.machine.guest import RUN, STARTED, image, lay_over, run, until, write

PROGRAM = Path(sys.executable).with_name("ioflusher")


def say(check: str, found: object) -> None:
    print(json.dumps([check, found]), flush=True)


def shell(command: str) -> tuple[int, str]:
    """Run a line as root's shell would; its status and what it said."""
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
    return done.returncode, done.stdout[-300:]


def findings(about: str) -> dict[str, dict[str, Any]]:
    """What an audit finds now of one daemon or device, by rule."""
    found = [msgspec.to_builtins(finding) for finding in audit(collect()).findings]
    return {
        one["rule"]: one
        for one in found
        if about in (one["subject"]["name"], one["group"].partition(" (")[0])
    }


def mended(about: str, *rules: str) -> None:
    """Execute the remedies of these rules as they are printed, and say whether each finding is gone then."""
    for rule in rules:
        finding = findings(about).get(rule)
        if finding is None:
            say(f"{about}: {rule}", "not found")
            continue
        commands = finding["remedy"]["commands"]
        said = [[command, *shell(command)] for command in commands]
        left = findings(about).get(rule)
        say(f"{about}: {rule}", [finding["severity"], said, "stays" if left else "gone"])


def nbdkit() -> None:
    """nbdkit behind nbd-client by ioctl: `set` covers the server as it runs."""
    daemons.nbdkit_by_ioctl()
    mended("nbdkit", "uncovered", "oom-killable")


def nbd_server() -> None:
    daemons.nbd_server_by_netlink()
    mended("nbd-server", "uncovered", "oom-killable")


def qemu_nbd() -> None:
    """No command is printed for it: its thread in NBD_DO_IT cannot be stopped. Started anew it is covered."""
    daemons.qemu_nbd()
    found = findings("qemu-nbd")["uncovered"]
    say("qemu-nbd: commands", found["remedy"]["commands"])
    pid = found["subject"]["pid"]
    thread = re.findall(r"thread (\d+) waits in ioctl\(NBD_DO_IT\)", found["remedy"]["words"])[0]
    syscall = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
    say("qemu-nbd: thread in ioctl", [syscall[0], syscall[2]])
    status, text = shell(f"ioflusher set {pid}")
    say("qemu-nbd: set", [status, text])
    partly = findings("qemu-nbd").get("partly-covered")
    say("qemu-nbd: after set", partly and partly["severity"])
    run("qemu-nbd", "-d", "/dev/nbd2")
    until("qemu-nbd ends", lambda: not Path(f"/proc/{pid}").exists())
    path = str(image("qemu-nbd-2.img"))
    subprocess.Popen(
        [PROGRAM, "run", "--", "qemu-nbd", "-f", "raw", "-c", "/dev/nbd2", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until("nbd2 is back", lambda: int(Path("/sys/block/nbd2/size").read_text()) > 0)
    left = findings("qemu-nbd")
    say("qemu-nbd: started anew", sorted(left.keys() & {"uncovered", "partly-covered"}))


def tgt() -> None:
    daemons.tgt()
    write(Path("/etc/iscsi/initiatorname.iscsi"), "InitiatorName=iqn.2026-01.test:initiator\n")
    run("iscsid")
    portal = ("-p", "127.0.0.1:3260")
    run("iscsiadm", "-m", "discovery", "-t", "st", *portal)
    run("iscsiadm", "-m", "node", "-T", "iqn.2026-01.test:tgt", *portal, "--login")
    disks = Path("/sys/class/iscsi_session")
    until("a disk by iSCSI", lambda: list(disks.glob("*/device/target*/*/block/*")))
    mended("tgtd", "uncovered", "oom-killable")


def fuse() -> None:
    """A FUSE mount whose daemon was killed is unmounted."""
    daemons.fuse_overlayfs()
    mended("fuse-overlayfs", "uncovered")
    end("fuse-overlayfs")
    mended(str(RUN / "overlay"), "daemon-gone")


def ganesha() -> None:
    """ganesha gives CAP_SYS_RESOURCE up: no command for the state; its OOM score can be set."""
    daemons.ganesha()
    found = findings("ganesha.nfsd")
    say("ganesha: rules", {rule: one["severity"] for rule, one in found.items()})
    commands = [found[rule]["remedy"]["commands"] for rule in ("uncovered", "cannot-set")]
    say("ganesha: commands", commands)
    mended("ganesha.nfsd", "oom-killable")


def ublk() -> None:
    daemons.ublk()
    found = findings("ublk")["uncovered"]
    workers = next(one for one in collect().processes if one.pid == found["subject"]["pid"]).living
    say("ublk: workers", sum(thread.kernel_worker for thread in workers))
    say("ublk: commands", found["remedy"]["commands"])
    say("ublk: set", shell(f"ioflusher set {found['subject']['pid']}"))
    mended("ublk", "oom-killable")


def nbd_server_gone() -> None:
    """nbd-server was killed: the device is taken down."""
    end("nbd-server")
    mended("/dev/nbd1", "daemon-gone")


def end(comm: str) -> None:
    """SIGKILL for a daemon that this script started."""
    for process in collect().processes:
        if process.comm == comm[:15]:
            os.kill(process.pid, signal.SIGKILL)
            if comm in STARTED:
                STARTED[comm].wait(10)
            until(f"{comm} ends", lambda: not Path(f"/proc/{process.pid}/exe").exists())  # noqa: B023


def main() -> None:
    lay_over(sys.argv[1])
    RUN.joinpath("lock").mkdir(exist_ok=True)
    run("mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections")
    steps: tuple[Callable[[], None], ...] = (
        *(nbdkit, nbd_server, qemu_nbd, tgt, fuse, ganesha, ublk, nbd_server_gone),
    )
    for step in steps:
        try:
            step()
        except Exception as error:
            say(f"{step.__name__} failed", str(error))


if __name__ == "__main__":
    main()
