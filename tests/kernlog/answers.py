"""The whole answer to each log of logs/, kept in answers.json: python -m tests.kernlog.answers writes it.

Read the difference before it is committed, and say in the commit why each line of it is better.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Episode

LOGS = Path(__file__).parent / "logs"
ANSWERS = Path(__file__).parent / "answers.json"


def answer(name: str) -> list[dict[str, Any]]:
    """Of each episode: verdict, tasks, edges, roles, device, daemon, what is missing, who has to act."""
    return [episode_answer(episode) for episode in diagnose_log((LOGS / f"{name}.txt").read_bytes()).episodes]


def episode_answer(episode: Episode) -> dict[str, Any]:
    """All of that of one episode."""
    roles = (step.role.value for step in reversed(episode.chain) if step.role)
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
        "roles": " ".join(role for role, _ in groupby(roles)),
        "device": episode.device,
        "daemon": episode.daemon,
        "missing": episode.missing,
        "needs": episode.needs,
    }


def main() -> None:
    """Write the answers as they are now."""
    names = sorted(path.stem for path in LOGS.glob("*.txt"))
    ANSWERS.write_text(json.dumps({name: answer(name) for name in names}, indent=1) + "\n")


if __name__ == "__main__":
    main()
