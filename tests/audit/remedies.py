"""Every command that a rule prints, and the test that executes it in a guest, or why none does.

`judged()` of machines.py, by which all tests of rules judge, holds each command of each finding to this
table; test_remedies.py holds that each rule is in it, and the tests of guests that each check was made.
"""

import re
from dataclasses import dataclass

from ioflusher.audit.finding import AuditFinding

# what guest_audit.py says, and guest_debian.py
OWN, DEBIAN = "test_guest.py", "test_debian.py"


@dataclass(frozen=True, slots=True)
class Row:
    """A command that a rule prints.

    Attributes:
        rule: the rule.
        command: a regular expression for the whole line; None: the rule prints no command.
        test: the file of the test that executes it in a guest, with its finding gone after it.
        check: what the guest says of that.
        reason: why no guest executes it, where none does.
    """

    rule: str
    command: str | None
    test: str | None = None
    check: str | None = None
    reason: str | None = None


SET = r"ioflusher set \d+"
LOCK = r"ioflusher set --lock-memory \d+"
LIMIT = r"prlimit --pid \d+ --memlock=unlimited"
UNIT = r'ioflusher unit --install "\$\(ps -o unit= -p \d+\)"'
NO_SYSTEMD = (
    "these guests run no systemd; tests/harden/test_guest_unit.py has a real one start services by the "
    "drop-in, and here daemons are started anew under `ioflusher run`, which is what the drop-in does"
)
PATH = r"(?:[\w./@:+-]+|'[^']*')"

ROWS = (
    Row("uncovered", SET, OWN, "executed uncovered"),
    Row("uncovered", UNIT, reason=NO_SYSTEMD),
    Row("partly-covered", SET, OWN, "executed partly-covered"),
    Row("partly-covered", UNIT, reason=NO_SYSTEMD),
    Row("half-set", SET, reason="no system call sets one of the two bits; the command is that of uncovered"),
    Row("half-set", UNIT, reason=NO_SYSTEMD),
    Row("worker-uncovered", UNIT, reason=NO_SYSTEMD),
    Row("cannot-set", UNIT, reason=NO_SYSTEMD),
    Row("cannot-set", None, OWN, "executed cannot-set"),  # its words: start it anew under `ioflusher run`
    Row("kernel-too-old", "ioflusher run -- true", reason="it shows whether the call is there, no more"),
    Row("memory-not-locked", LOCK, OWN, "executed memory-not-locked"),
    Row("memory-not-locked", LIMIT, OWN, "executed memory-not-locked after prlimit"),
    Row("swapped-out", LOCK, OWN, "executed swapped-out"),
    Row("swapped-out", LIMIT, reason="as for memory-not-locked"),
    Row("swap-on-served", rf"swapoff {PATH}", OWN, "executed swap-on-served"),
    Row("swap-on-served", SET, OWN, "executed swap-on-served by set"),
    Row("swap-on-served", LOCK, OWN, "executed swap-on-served by lock"),
    Row("swap-on-served", LIMIT, reason="as for memory-not-locked"),
    Row("swap-stored-in-file", rf"swapoff {PATH}", reason="the command of swap-on-served"),
    Row("executable-on-served", LOCK, reason="the code of library-on-served, which is executed"),
    Row("executable-on-served", LIMIT, reason="as for memory-not-locked"),
    Row("library-on-served", LOCK, OWN, "executed library-on-served"),
    Row("library-on-served", LIMIT, reason="as for memory-not-locked"),
    Row("log-on-served", None, OWN, "put right"),  # its words: the file is kept elsewhere
    Row("file-on-served", LOCK, reason="the code of library-on-served, for a mapped file"),
    Row("file-on-served", LIMIT, reason="as for memory-not-locked"),
    Row("file-on-served", None, OWN, "put right"),
    Row("cycle", SET, OWN, "executed cycle"),
    Row("cycle", LOCK, reason="the command of memory-not-locked, for another process"),
    Row("cycle", LIMIT, reason="as for memory-not-locked"),
    Row("oom-killable", r"choom -n -999 -p \d+", OWN, "executed oom-killable"),
    Row("oom-killable", r"choom -n -1000 -p \d+", DEBIAN, "nbdkit: oom-killable"),
    Row("cgroup-unkillable", r"choom -n -999 -p \d+", OWN, "executed cgroup-unkillable"),
    Row("memory-max", rf"echo max > {PATH}", OWN, "executed memory-max"),
    Row("memory-max", rf"echo -1 > {PATH}", reason="the guests' kernel is built without version 1"),
    Row("memory-high", rf"echo max > {PATH}", OWN, "executed memory-high"),
    Row("small-reserve", r"sysctl -w vm\.min_free_kbytes=\d+", OWN, "executed small-reserve"),
    Row(
        "small-reserve",
        r"echo vm\.min_free_kbytes = \d+ > /etc/sysctl\.d/60-ioflusher\.conf",
        OWN,
        "executed small-reserve for good",
    ),
    Row("dirty-limits", r"echo \d+ > /sys/block/[\w!]+/bdi/max_ratio", OWN, "executed dirty-limits"),
    Row(
        "dirty-limits",
        r"echo 'SUBSYSTEM==.*' > /etc/udev/rules\.d/60-ioflusher\.rules",
        reason="no udev runs in a guest",
    ),
    Row("daemon-gone", rf"ioflusher nbd detach {PATH}", OWN, "executed daemon-gone"),
    Row("daemon-gone", rf"umount --lazy {PATH}", DEBIAN, "/run/overlay: daemon-gone"),
    Row(
        "daemon-gone",
        r"ublk recover -n \d+",
        reason="ublk(8) of ubdsrv is not in the distribution; the small server of the tests cannot recover",
    ),
    Row("daemon-gone", r"systemctl restart [\w-]+", reason="no systemd runs in a guest"),
    Row(
        "server-candidates",
        None,
        reason="no command: a guest before and after a read is in tests/machine/test_nbd_candidates.py",
    ),
    Row("unreadable", "sudo ioflusher audit", OWN, "executed unreadable"),  # as root, without sudo
)


def executed_in_a_guest(test: str) -> list[str]:
    """The checks that a test of this table holds."""
    return sorted({row.check for row in ROWS if row.test == test and row.check})


def unlisted(finding: AuditFinding) -> list[str]:
    """The commands of a finding that the table does not have."""
    rows = [row.command for row in ROWS if row.rule == finding.rule and row.command]
    return [
        line
        for line in (*finding.remedy.commands, *finding.remedy.lasting)
        if not any(re.fullmatch(row, line) for row in rows)
    ]
