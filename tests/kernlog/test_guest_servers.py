"""A frozen guest diagnoses itself: what its daemon of an unknown name serves, its log does not tell."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

from ioflusher import kernlog

pytestmark = pytest.mark.vm
SCRIPT = """
set -e
ioflusher() { PYTHONPATH=%s %s -m ioflusher "$@"; }
mkfs.ext4 -q /dev/vdb; mkdir /run/store /run/top; mount /dev/vdb /run/store; truncate -s 150M /run/store/disk
cp "$(readlink -f "$(command -v nbdkit)")" /run/stoneshelf
/run/stoneshelf --foreground --unix /run/socket file /run/store/disk & server=$!
until [ -S /run/socket ]; do sleep 0.1; done
ioflusher nbd attach /dev/nbd0 'nbd+unix:///?socket=/run/socket' >&2 &
until [ "$(cat /sys/block/nbd0/size)" -gt 0 ]; do sleep 0.1; done
mkfs.ext4 -q /dev/nbd0; mount /dev/nbd0 /run/top
ioflusher snapshot --output /run/machine.json 2>/dev/null
echo 4194304 > /proc/sys/vm/dirty_background_bytes; echo 8388608 > /proc/sys/vm/dirty_bytes
while dd if=/dev/zero of=/run/top/file bs=1M count=100 conv=notrunc 2>/dev/null; do :; done &
frozen=0 last=
while [ $frozen -lt 5 ]; do
    sleep 1; read -a done_ < /sys/block/nbd0/stat
    if [ "${done_[4]}" = "$last" ] && grep -q balance_dirty_pages /proc/$server/task/*/stack; then
        frozen=$((frozen + 1))
    else
        frozen=0
    fi
    last=${done_[4]}
done
# a throttled thread wakes now and then, and is none of those that sleep at that moment
until dmesg | grep -A 30 task:stoneshelf | grep -q balance_dirty_pages; do
    echo w > /proc/sysrq-trigger; sleep 1
done
dmesg > /run/log
for arguments in /run/log "--snapshot /run/machine.json /run/log" --dmesg; do
    ioflusher diagnose --json $arguments || true
done
"""


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """Of the log alone, of the log with its machine's snapshot, and of the machine's own ring buffer."""
    if shutil.which("nbdkit") is None:
        pytest.skip("needs nbdkit: tools/packages test")
    script = SCRIPT % (Path(kernlog.__file__).parents[2], sys.executable)
    done = ioflusher(
        *("lab", "exec", "--load", "nbd nbds_max=2", "--disk", "300M", "--memory", "512M"),
        *("--timeout", "200", "--", "bash", "-c", script),
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def test_a_log_alone_takes_it_for_any_program(answers: list[dict[str, Any]]) -> None:
    """It asks for what is missing."""
    assert answers[0]["recursion"] is False
    throttled = [one for one in answers[0]["episodes"] if one["tasks"][0]["comm"] == "stoneshelf"]
    assert any("--snapshot" in str(one["missing"]) for one in throttled)


@pytest.mark.parametrize("way", [1, 2], ids=["--snapshot", "--dmesg"])
def test_the_machine_tells_whose_device_it_serves(answers: list[dict[str, Any]], way: int) -> None:
    """It waits until pages are written that it has to write."""
    found = [one for one in answers[way]["episodes"] if one["recursion"]]
    assert {one["daemon"] for one in found} == {"stoneshelf"}
    assert found[0]["kind"] == "throttled-daemon"
    assert "stoneshelf: serves nbd0" in found[0]["why"]
    assert "io of nbd0 [certain]: its process serves nbd0" in found[0]["gives"]
