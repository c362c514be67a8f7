"""The whole answer to each log of logs/, kept in answers.json, and to each stack of stacks.txt.

python -m tests.kernlog.answers writes both, the stacks' into stack_answers.json.

Read the difference before it is committed, and say in the commit why each line of it is better.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.kernlog.stacks import STACKS, log

from ioflusher.kernlog.diagnose import Diagnoser, diagnose_log
from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.stacks.roles import role_of
from ioflusher.kernlog.stacks.things import Thing

LOGS = Path(__file__).parent / "logs"
ANSWERS = Path(__file__).parent / "answers.json"
STACK_ANSWERS = Path(__file__).parent / "stack_answers.json"


def answer(name: str) -> list[dict[str, Any]]:
    """Of each episode: verdict, tasks, edges, roles, both ends, device, daemon, what is missing."""
    return [episode_answer(episode) for episode in diagnose_log((LOGS / f"{name}.txt").read_bytes()).episodes]


def stack_answer(title: str) -> list[dict[str, Any]]:
    """The same of a stack of stacks.txt, also where the task waits for work or runs."""
    comm, names = (STACKS["recursion"] | STACKS["other"])[title]
    return everything(log(comm, names))


def everything(data: bytes) -> list[dict[str, Any]]:
    """The whole answer to a log, tasks that wait for work or run included."""
    diagnoser = Diagnoser(everything=True)
    for record in parse_console(data):
        diagnoser.take(record)
    return [episode_answer(episode) for episode in diagnoser.result().episodes]


def episode_answer(episode: Episode) -> dict[str, Any]:
    """All of that of one episode; of roles with subsystems, outermost first, how many functions in turn."""
    parts = (_role(step.frame.function) for step in reversed(episode.chain) if step.frame.reliable)
    return {
        "verdict": f"{'recursion' if episode.recursion else 'other'}, {episode.kind.value}, "
        f"{episode.confidence.value}",
        "tasks": " ".join(task.name for task in episode.tasks),
        "edges": [
            f"{edge.waiter} -{edge.thing}-> {edge.giver}, {edge.known.value}"
            + (f", {edge.missing}?" if edge.missing else "")
            for edge in episode.edges
        ],
        "sentence": episode.sentence,
        "roles": " ".join(f"{len(list(alike))} {role}" for role, alike in groupby(filter(None, parts))),
        "waits": list(episode.waits),
        # nearly every task may be the one that the OOM killer chose
        "gives": [told for told in episode.gives if not told.startswith(Thing.VICTIM.value)],
        "device": episode.device,
        "daemon": episode.daemon,
        "missing": episode.missing,
        "needs": episode.needs,
    }


def _role(function: str) -> str | None:
    row = role_of(function)
    if row is None or row.role is None:
        return None
    return f"{row.role.value} of {row.part}" if row.part else row.role.value


def main() -> None:
    """Write the answers as they are now."""
    names = sorted(path.stem for path in LOGS.glob("*.txt"))
    ANSWERS.write_text(json.dumps({name: answer(name) for name in names}, indent=1) + "\n")
    titles = (*STACKS["recursion"], *STACKS["other"])
    STACK_ANSWERS.write_text(json.dumps({title: stack_answer(title) for title in titles}, indent=1) + "\n")


if __name__ == "__main__":
    main()
