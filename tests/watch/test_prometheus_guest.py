"""A real Prometheus fires our alerts from a real near miss and a real freeze, and lets them be afterwards."""

import json
import sys
from pathlib import Path

import pytest

from tests.lab.conftest import ioflusher

pytestmark = [pytest.mark.vm, pytest.mark.needs("prometheus")]

SCRIPT = Path(__file__).with_name("guest_prometheus.py")
ROOT = SCRIPT.parent.parent.parent


def test_alerts_fire_from_a_near_miss_and_from_a_freeze() -> None:
    """None before; each names the daemon and the device; the stall is over once the limit is raised."""
    script = f"PYTHONPATH={ROOT}/src:{ROOT} exec {sys.executable} {SCRIPT}\n".encode()
    done = ioflusher("lab", "shell", "ext4-on-nbd-throttled", "--timeout", "400", stdin=script, timeout=600)
    assert done.returncode == 0, done.stdout.decode()[-3000:] + done.stderr.decode()[-3000:]
    told = {what: (seconds, found) for what, seconds, found in map(json.loads, done.stdout.splitlines())}
    assert told["before"][1] == []
    for name in ("StorageDaemonNearMiss", "StorageDaemonStalled", "no longer stalled"):
        assert told[name][0] >= 0, told
    labels, words, times = told["StorageDaemonNearMiss"][1]
    assert labels["serves"] == "NBD server of /dev/nbd0"
    assert "came near to waiting for itself" in words
    assert float(times) > 0
    labels, words, seconds = told["StorageDaemonStalled"][1]
    assert (labels["device"], labels["severity"]) == ("nbd0", "critical")
    assert "frozen or near to it" in words
    assert float(seconds) > 5
