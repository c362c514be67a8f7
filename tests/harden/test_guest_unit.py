"""What systemd itself makes of the drop-ins, in a guest."""

import os
import sys
from pathlib import Path

import pytest
from tests.lab.conftest import ioflusher

SCRIPT = Path(__file__).with_name("guest_unit.sh")
PROGRAM = Path(sys.executable).with_name("ioflusher")
BOTH = 0x180000
CAP_SYS_RESOURCE = 1 << 24


@pytest.mark.vm
@pytest.mark.needs("systemd-analyze")
def test_services_start_in_the_state() -> None:
    """A user's service has the state and no capability; a walled-in one has the state too, and its limits."""
    done = ioflusher("lab", "exec", "--timeout", "240", "--", "sh", str(SCRIPT), str(PROGRAM), timeout=300)
    output = done.stdout.decode()
    said = output + done.stderr.decode()[-3000:]
    assert done.returncode == 0, said
    found = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
    assert found.keys() == {"lender", "strict"}, said

    uid, flags, effective, ambient, oom, policy, priority, _, _ = found["lender"]
    assert (uid, effective, ambient, oom) == ("65534", "0" * 16, "0" * 16, "-900")
    assert int(flags) & BOTH == BOTH
    assert (policy, priority) == (str(os.SCHED_RR), "2")

    uid, flags, effective, _, _, policy, _, nice, locked = found["strict"]
    assert (uid, policy, nice, locked) == ("0", "0", "-5", "unlimited")
    assert int(flags) & BOTH == BOTH
    assert int(effective, 16) == CAP_SYS_RESOURCE | 1 << 12  # what the service had, and what the state takes
