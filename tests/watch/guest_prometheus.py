"""On a scenario's stage: a real Prometheus fires the alerts of examples/prometheus from a real near miss.

    ioflusher lab shell ext4-on-nbd-throttled < SCRIPT, which executes this file with the project's Python

Takes prometheus (Debian's package), and for the alert that joins with node_exporter its package, too; without
that the alert is left out. Prints one JSON object a line: what was waited for, and after how many seconds it
was there.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PLACE = Path("/run/prometheus-test")
DEADLINE_S = 120.0
NODE_EXPORTER = shutil.which("prometheus-node-exporter")
ALERTS = ("StorageDaemonNearMiss", "StorageDaemonStalled")
JOINED = ("StorageDaemonNearMissUnderPressure",) if NODE_EXPORTER else ()
CONFIG = f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{ROOT}/examples/prometheus/ioflusher.rules.yml]
scrape_configs:
  - job_name: ioflusher
    static_configs: [{{targets: ["127.0.0.1:9847"]}}]
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:9100"]}}]
"""


def ask(url: str) -> Any:
    """The JSON there; None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def firing() -> dict[str, Any]:
    """Alerts that fire, by name."""
    found = ask("http://127.0.0.1:9090/api/v1/alerts") or {"data": {"alerts": []}}
    return {
        alert["labels"]["alertname"]: alert for alert in found["data"]["alerts"] if alert["state"] == "firing"
    }


def until(what: str, true: Any) -> None:
    """Wait for it and say how long that took; -1 where it never came."""
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_S:
        if found := true():
            print(json.dumps([what, round(time.monotonic() - began, 1), found]), flush=True)
            return
        time.sleep(0.5)
    print(json.dumps([what, -1, firing()]), flush=True)


def alert(name: str) -> Any:
    """What it says, once it fires."""
    found = firing().get(name)
    return found and [found["labels"], found["annotations"]["summary"], found["value"]]


def main() -> None:
    PLACE.mkdir()
    (PLACE / "prometheus.yml").write_text(CONFIG)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([sys.executable, "-m", "ioflusher", "export"], stdout=subprocess.DEVNULL),
        subprocess.Popen(
            [
                "prometheus",
                f"--config.file={PLACE}/prometheus.yml",
                f"--storage.tsdb.path={PLACE}/data",
                "--web.listen-address=127.0.0.1:9090",
            ],
            **quiet,
        ),
    ]
    series = ["ioflusher_daemon_threads"]
    if NODE_EXPORTER:
        argv = [NODE_EXPORTER, "--collector.disable-defaults", "--collector.pressure"]
        started.append(subprocess.Popen(argv, **quiet))
        series.append("node_pressure_io_stalled_seconds_total")

    def up() -> Any:
        found = [ask(f"http://127.0.0.1:9090/api/v1/query?query={name}") for name in series]
        return all(found) and min(len(each["data"]["result"]) for each in found)

    until("series of a quiet machine", up)
    time.sleep(5)
    print(json.dumps(["before", 0, sorted(firing())]), flush=True)
    mount = next(
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.startswith(os.environ["IOFLUSHER_DEVICE"])
    )
    program = f"f = open('{mount}/big', 'wb')\nfor _ in range(96): f.write(bytes(1 << 20))"
    started.append(subprocess.Popen([sys.executable, "-c", program]))
    for name in (*ALERTS, *JOINED):
        until(name, lambda name=name: alert(name))
    Path("/proc/sys/vm/dirty_bytes").write_text(str(256 << 20))
    until("no longer stalled", lambda: "StorageDaemonStalled" not in firing())
    for each in started:
        each.kill()
        each.wait()


if __name__ == "__main__":
    main()
