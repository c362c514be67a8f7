"""`ioflusher audit`: reports, exit statuses, fleets, hostile names."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif
from tests.audit.machines import BARE, COVERED, DAEMON, SWAP_ON_NBD, WELL, machine, threads
from tests.cli import program
from tests.cli.program import Ended

from ioflusher.audit.table import RULES
from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.snapshot import Snapshot

HOSTILE = "ev\x1b[31mil\n\u202e$(reboot) [bold]"
BAD = machine({"threads": threads(BARE, COVERED), "oom_score_adj": 0}, swaps=(SWAP_ON_NBD,))
# as a terminal of 80 columns shows it
BAD_REPORT = Path(__file__).with_name("audit-report.txt").read_text()
NOTE = machine(memory=replace(WELL.memory, min_free_kib=64))


@pytest.fixture(autouse=True)
def _no_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The configuration of whoever runs the tests does not count."""
    monkeypatch.setattr("ioflusher.audit.config.SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Snapshots of machines, and a broken one, by what they are."""
    machines: dict[str, Snapshot] = {"well": WELL, "bad": BAD, "note": NOTE}
    paths = {name: tmp_path / f"{name}.json" for name in (*machines, "broken")}
    for name, snapshot in machines.items():
        paths[name].write_bytes(dump_snapshot(replace(snapshot, system=replace(WELL.system, hostname=name))))
    paths["broken"].write_bytes(dump_snapshot(WELL)[:-99])
    return {name: str(path) for name, path in paths.items()}


def call(*arguments: str) -> Ended:
    """Run the verb."""
    return program.call("audit", *arguments)


def test_a_machine_that_is_well(files: dict[str, str]) -> None:
    """Status 0, and the report says what was looked at."""
    result = call("--snapshot", files["well"])
    assert result.status == 0
    assert result.stdout.startswith("well: no findings\n")
    assert "1 daemon" not in result.stdout
    assert "daemon    server (7): NBD client and NBD server of /dev/nbd0" in result.stdout


def test_a_machine_with_findings(files: dict[str, str]) -> None:
    """Status 1; findings by daemon, what was read, what to do in order, and at the end why, once a rule."""
    result = call("--snapshot", files["bad"])
    assert result.status == 1
    assert result.stdout == BAD_REPORT


@pytest.mark.parametrize(
    ("names", "fail_on", "status"),
    [
        (["well"], "note", 0),
        (["note"], "note", 1),
        (["note"], "warning", 0),
        (["bad"], "error", 1),
        (["well", "bad"], "error", 1),
        (["broken"], "note", 2),
        (["broken", "well"], "note", 2),
        (["broken", "bad"], "note", 1),
        (["broken", "note"], "error", 2),
    ],
)
def test_exit_statuses(files: dict[str, str], names: list[str], fail_on: str, status: int) -> None:
    """0 clean, 1 findings as bad as asked for, 2 something could not be judged."""
    paths = [files[name] for name in names]
    assert call("--fail-on", fail_on, "--snapshot", *paths).status == status


def test_a_fleet_is_one_report(files: dict[str, str]) -> None:
    """Each finding names its host, a broken file is told, and the others are judged."""
    result = call("--snapshot", files["bad"], files["broken"], "--snapshot", files["note"])
    assert "1. server (7) on bad: 2 errors, 1 warning, 1 note\n" in result.stdout
    assert "1. note itself: 1 note\n" in result.stdout
    assert result.stdout.count("\nwhy\n") == 1, "reasons are given once, not once a machine"
    assert f"{files['broken']}: could not be judged\n" in result.stdout
    assert "2 machines judged, 0 clean, 2 errors, 1 warning, 2 notes; 1 file" in result.stdout


def test_json_has_the_promised_shape(files: dict[str, str]) -> None:
    """Findings with their host, what was looked at, errors; the same from many processes."""
    names = [files["bad"], files["broken"], files["well"]] * 4
    one, two = (call("--json", "--jobs", jobs, "--snapshot", *names) for jobs in ("1", "2"))
    assert one.stdout == two.stdout
    answer = json.loads(one.stdout)
    assert answer["worst"] == "error"
    first = answer["findings"][0]
    assert (first["host"], first["rule"], first["severity"]) == ("bad", "partly-covered", "error")
    assert first["subject"] == {"kind": "process", "name": "server", "pid": 7}
    assert first["remedy"]["commands"] == ["ioflusher set 7"]
    assert {"summary", "reason", "evidence"} <= first.keys()
    assert [finding["group"] for finding in answer["findings"][:4]] == ["server (7)"] * 4
    (group,) = answer["hosts"][0]["groups"]
    assert (group["group"], group["serves"], group["findings"]) == (
        "server (7)",
        "NBD client and NBD server of /dev/nbd0",
        4,
    )
    assert group["remedy"]["commands"][:2] == ["choom -n -1000 -p 7", "ioflusher set 7"]
    assert answer["hosts"][1]["groups"] == []
    assert [host["host"] for host in answer["hosts"]] == ["bad", "well"] * 4
    assert answer["hosts"][1]["looked"]["daemons"] == ["server (7): NBD client and NBD server of /dev/nbd0"]
    assert len(answer["errors"]) == 4


def test_suppressed_findings_are_shown(files: dict[str, str], tmp_path: Path) -> None:
    """In every form, with the reason; they do not count for the status."""
    config = tmp_path / "ours.toml"
    config.write_text('[rules.small-reserve]\noff = "tiny on purpose"\n')
    arguments = ("--config", str(config), "--snapshot", files["note"])
    result = call(*arguments)
    assert result.status == 0
    assert "suppressed note: small-reserve: note on note\n" in result.stdout
    assert "   because   tiny on purpose\n" in result.stdout
    assert "   rule off  small-reserve: tiny on purpose\n" in result.stdout
    assert json.loads(call("--json", *arguments).stdout)["suppressed"][0]["because"] == "tiny on purpose"
    sarif = json.loads(call("--format", "sarif", *arguments).stdout)["runs"][0]["results"]
    assert sarif[0]["suppressions"] == [{"kind": "external", "justification": "tiny on purpose"}]


def sarif_of(*names: str) -> dict[str, Any]:
    """The run of a SARIF report, after the model of the official schema took it."""
    log = json.loads(call("--format", "sarif", "--snapshot", *names).stdout)
    Sarif.model_validate(log)
    run: dict[str, Any] = log["runs"][0]
    return run


def test_sarif(files: dict[str, str]) -> None:
    """What CI services read: rules, results that point into them, levels, places, broken inputs."""
    run = sarif_of(files["bad"], files["broken"])
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.name for rule in RULES]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    first = run["results"][0]
    assert (first["ruleId"], first["level"]) == ("partly-covered", "error")
    place = first["locations"][0]
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "bad/server (7)"
    assert {result["properties"]["group"] for result in run["results"]} == {"server (7)"}
    assert place["physicalLocation"]["artifactLocation"]["uri"] == Path(files["bad"]).as_uri()
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "not a whole JSON" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert sarif_of(files["well"])["results"] == []


def test_sarif_knows_a_finding_again(files: dict[str, str], tmp_path: Path) -> None:
    """After a restart, with another process number, it is the same result; on another host it is not."""
    again = replace(BAD, system=replace(BAD.system, hostname="bad", taken="later"))
    again = replace(again, processes=tuple(replace(process, ppid=3) for process in again.processes))
    path = tmp_path / "again.json"
    path.write_bytes(dump_snapshot(again))
    prints = [
        [result["partialFingerprints"] for result in sarif_of(name)["results"]]
        for name in (files["bad"], str(path), files["note"])
    ]
    assert prints[0] == prints[1]
    assert prints[2][0] not in prints[0]


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Neither of processes, hosts, swaps, files, groups, nor of the snapshot's file."""
    swap = replace(SWAP_ON_NBD, path=f"/{HOSTILE}")
    daemon = replace(DAEMON, comm=HOSTILE, threads=threads(BARE), locked_kib=0, oom_score_adj=0)
    daemon = replace(daemon, virtual_kib=None)  # so that no command can make it fit to carry swap
    daemon = replace(daemon, files=tuple(replace(f, path=HOSTILE, device="43:0") for f in daemon.files or ()))
    snapshot = machine(vars_of(daemon), swaps=(swap,), system=replace(WELL.system, hostname=HOSTILE))
    path = tmp_path / HOSTILE
    path.write_bytes(dump_snapshot(snapshot))
    broken = tmp_path / f"{HOSTILE}2"
    broken.touch()
    result = call("--snapshot", str(path), str(broken))
    assert result.status == 1
    for line in (result.stdout + result.stderr).splitlines():
        assert line.isprintable()
    assert "swapoff '/ev\\x1b[31mil\\n\\u202e$(reboot) [bold]'" in result.stdout


def vars_of(process: Any) -> dict[str, Any]:
    """The attributes of a slotted record."""
    return {name: getattr(process, name) for name in process.__dataclass_fields__}


def test_colours_only_where_they_are_wanted(files: dict[str, str]) -> None:
    """A pipe and NO_COLOR get plain text; a forced terminal gets colours."""
    command = [sys.executable, "-m", "ioflusher", "audit", "--snapshot", files["bad"]]
    for environment, coloured in (({}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)):
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
        assert (b"\x1b[31" in done.stdout) is coloured
    done = subprocess.run(command, capture_output=True, timeout=60, env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert b"\x1b[" in done.stdout


def test_rules_are_listed_and_explained() -> None:
    """One line each; and all that is to be said of one, its threshold too."""
    lines = call("--list-rules").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [rule.name for rule in RULES]
    text = call("--explain", "small-reserve").stdout
    assert text.startswith("small-reserve: warning\n")
    assert "request_kib = 64: " in text
    for rule in RULES:
        assert call("--explain", rule.name).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["host.json"],
        ["--explain", "nonsense"],
        ["--fail-on", "fatal"],
        ["--jobs", "0"],
        ["--snapshot", "/nonexistent"],
        ["--config", "/nonexistent"],
        ["--format", "xml"],
    ],
)
def test_what_cannot_be_done_is_status_2(arguments: list[str]) -> None:
    """With words on standard error or in the report, and no traceback."""
    command = [sys.executable, "-m", "ioflusher", "audit", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode == 2
    assert done.stderr or "could not be judged" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.live
def test_this_machine_is_judged() -> None:
    """The live machine: a report in JSON that names this host, and a status that fits it."""
    result = call("--json")
    answer = json.loads(result.stdout)
    assert result.status == (1 if answer["findings"] else 0)
    assert answer["hosts"][0]["looked"]["processes"] > 1
    daemons = answer["hosts"][0]["looked"]["daemons"]
    if not daemons:
        assert {finding["rule"] for finding in answer["findings"]} <= {"unreadable", "daemon-gone"}
