"""The files of examples/prometheus, judged by Prometheus' and systemd's tools, and held to our metrics."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ioflusher.report.metrics import MetricsCollector
from tests.watch.samples import KERNEL, sample, thread

PLACE = Path(__file__).parent.parent.parent / "examples" / "prometheus"
RULES = PLACE / "ioflusher.rules.yml"
# of node_exporter: collectors pressure and kernel_hung
FOREIGN = {
    "node_pressure_memory_waiting_seconds_total",
    "node_pressure_io_stalled_seconds_total",
    "node_kernel_hung_tasks_total",
}


def promtool(*words: str | Path, stdin: str = "") -> str:
    """What it says of files that it takes; its complaints where it does not."""
    done = subprocess.run(
        ["promtool", *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def metrics(**changes: Any) -> str:
    """Every metric that there is, as Prometheus' text; `changes` of the daemon's thread."""
    held = thread(**{"reclaim": (KERNEL,), "reclaim_s": 0.5, **changes})
    now = sample(held, oldest_s=3.0)
    collector = MetricsCollector()
    collector.take(replace(now, daemons=(replace(now.daemons[0], locked_kib=8, swapped_kib=4),)))
    return collector.text()


def names_in(text: str) -> set[str]:
    """Names of metrics, without those of recording rules."""
    return set(re.findall(r"\b(?:ioflusher|node)_[a-z_]+", text)) - {"node_exporter"}


def known() -> set[str]:
    """Names that a query may have."""
    return FOREIGN | {line.split("{")[0].split()[0] for line in metrics().splitlines() if line[0] != "#"}


@pytest.mark.needs("promtool")
def test_names_and_types_of_metrics() -> None:
    """Prometheus' conventions, as its linter knows them."""
    assert promtool("check", "metrics", stdin=metrics()) == ""


@pytest.mark.needs("promtool")
def test_rules(tmp_path: Path) -> None:
    """They are rules, and fire on what they are for."""
    assert "10 rules found" in promtool("check", "rules", RULES)
    cases = tmp_path / "cases.yml"
    cases.write_text(Path(__file__).with_name("rules_test.yml").read_text().replace("RULES", str(RULES)))
    assert "SUCCESS" in promtool("test", "rules", cases)


@pytest.mark.parametrize("file", [RULES, PLACE / "dashboard.json"], ids=lambda path: path.name)
def test_queries_ask_for_metrics_that_there_are(file: Path) -> None:
    """A name that nobody exports would never fire."""
    text = re.sub(r"^ *#.*", "", file.read_text(), flags=re.MULTILINE)
    assert len(names_in(text)) > 5
    assert names_in(text) <= known()


@pytest.mark.needs("promtool")
def test_the_dashboard(tmp_path: Path) -> None:
    """Its queries are PromQL, its panels do not lie on each other, its data source is the reader's."""
    dashboard: dict[str, Any] = json.loads((PLACE / "dashboard.json").read_text())
    panels = dashboard["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [
        {"record": f"x:{number}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))  # JSON is YAML, too
    assert f"{len(queries)} rules found" in promtool("check", "rules", file)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


def panels_without_data(tmp_path: Path, text: str) -> set[str]:
    """Titles of the dashboard's panels of which a query has no answer, on a machine with such metrics.

    Each query is an alert that fires where it has one.
    """
    dashboard = json.loads((PLACE / "dashboard.json").read_text())
    asked = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    names = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
    names += [f'{name}{{host="a"}}' for name in FOREIGN]
    series = [{"series": name, "values": "0+1x240"} for name in names]
    rules, case = tmp_path / "rules.yml", tmp_path / "case.yml"
    alerts = []
    for number, (_, query) in enumerate(asked):
        query = query.replace("$__rate_interval", "1m").replace("$instance", ".*")
        alerts.append({"alert": f"answered{number}", "expr": f"count({query}) > 0"})
    fires = [{"eval_time": "60m", "alertname": a["alert"], "exp_alerts": [{}]} for a in alerts]
    rules.write_text(json.dumps({"groups": [{"name": "x", "rules": alerts}]}))
    test = {"interval": "15s", "input_series": series, "alert_rule_test": fires}
    case.write_text(json.dumps({"rule_files": [str(rules)], "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", case], capture_output=True, text=True, timeout=60)
    silent = [int(number) for number in re.findall(r"alertname: answered(\d+)", done.stdout + done.stderr)]
    assert bool(silent) == bool(done.returncode), done.stdout + done.stderr
    return {asked[number][0] for number in silent}


@pytest.mark.needs("promtool")
def test_every_panel_has_data(tmp_path: Path) -> None:
    """Where the kernel counts; where /proc is sampled, all but what nobody knows then."""
    assert panels_without_data(tmp_path, metrics(dirty_paused_s=0.25)) == set()
    sampled = metrics(reclaim_s=None, dirty_pauses=None, dirty_paused_s=None)
    assert panels_without_data(tmp_path, sampled) == {"Share of time in reclaim and throttling"}


def test_grafana_knows_all_that_the_dashboard_says() -> None:
    """Read into the types that are generated from Grafana's own schema and written again, nothing is gone.

    These pass over a key that the schema has not; so does Grafana, and the panel is not what it should be.
    """
    register_default_plugins()
    written: dict[str, Any] = json.loads((PLACE / "dashboard.json").read_text())
    read = Dashboard.from_json(written)
    again = json.loads(JSONEncoder().encode(read))
    assert passed_over(written, again) == []
    misspelt = {**written, "panels": [{**written["panels"][0], "gridPosition": {}}]}
    read = Dashboard.from_json(misspelt)
    assert passed_over(misspelt, json.loads(JSONEncoder().encode(read))) == ["/panels/0/gridPosition"]


def passed_over(written: Any, again: Any, at: str = "") -> list[str]:
    """Places of what was written that are not there again, or not the same."""
    if isinstance(written, dict) and isinstance(again, dict):
        return [
            place
            for key, value in written.items()
            for place in (passed_over(value, again[key], f"{at}/{key}") if key in again else [f"{at}/{key}"])
        ]
    if isinstance(written, list) and isinstance(again, list) and len(written) == len(again):
        return [
            place
            for number, (one, other) in enumerate(zip(written, again, strict=True))
            for place in passed_over(one, other, f"{at}/{number}")
        ]
    return [] if written == again else [at]


@pytest.mark.needs("systemd-analyze")
def test_the_unit(tmp_path: Path) -> None:
    """systemd takes every line; what kills the whole group is swept after."""
    text = (PLACE / "ioflusher-export.service").read_text()
    unit = tmp_path / "ioflusher-export.service"
    unit.write_text(text.replace("/usr/local/bin/ioflusher", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ExecStopPost=/usr/local/bin/ioflusher export --sweep" in text


def test_kubernetes_takes_the_daemonset() -> None:
    """By the API's own schemas, the newest and an older one; a field that they do not know is refused."""
    found = yaml.safe_load((PLACE / "daemonset.yaml").read_text())
    for version in ("1.28", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(found, version, strict=True)
    found["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_the_daemonset() -> None:
    """What the exporter cannot do without: the node's processes, its tracefs, and the right to use both."""
    found = yaml.safe_load((PLACE / "daemonset.yaml").read_text())
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["hostPID"]
    assert container["command"][:2] == ["ioflusher", "export"]
    assert {"SYS_PTRACE", "SYS_RESOURCE", "DAC_OVERRIDE"} <= set(
        container["securityContext"]["capabilities"]["add"]
    )
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], volume["hostPath"]["path"])
    assert found["spec"]["selector"]["matchLabels"] == found["spec"]["template"]["metadata"]["labels"]
