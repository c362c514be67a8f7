"""The order that a guest's agent gets: run one command, or play one half of a scenario."""

import json
from dataclasses import asdict, dataclass
from typing import Any

EVENTS_PORT = "org.ioflusher.events"
STDIN_PORT = "org.ioflusher.stdin"
STDOUT_PORT = "org.ioflusher.stdout"
STDERR_PORT = "org.ioflusher.stderr"


@dataclass(frozen=True, slots=True)
class ExecJob:
    """Run a command as root with all capabilities.

    Attributes:
        argv: the command and its words.
        cwd: where it starts, if the guest has that directory.
        environment: its environment.
    """

    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class ScenarioJob:
    """Play one half of an experiment.

    Attributes:
        scenario: the scenario's TOML text.
        io_flusher: whether the daemon sets the state. The one thing in which the two halves differ.
        remote: NBD URI of the server outside, as the guest reaches it; empty where there is none.
    """

    scenario: str
    io_flusher: bool
    remote: str


def dump_job(job: ExecJob | ScenarioJob) -> str:
    """The order as JSON text."""
    return json.dumps({"kind": type(job).__name__, **asdict(job)})


def load_job(text: str) -> ExecJob | ScenarioJob:
    """The order from JSON text; it was written by `dump_job` of the same version."""
    raw: dict[str, Any] = json.loads(text)
    kind = raw.pop("kind")
    if kind == "ExecJob":
        return ExecJob(tuple(raw["argv"]), raw["cwd"], dict(raw["environment"]))
    return ScenarioJob(raw["scenario"], raw["io_flusher"], raw["remote"])
