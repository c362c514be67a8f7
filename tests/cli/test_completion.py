"""`ioflusher completion`: the shells themselves offer the words."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.program import DEADLINE, call
from tests.needs import need

from ioflusher.audit.table import BY_NAME
from ioflusher.cli.verbs import VERBS
from ioflusher.scenario.file import builtin_scenarios

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|.\x08|\x07")
TYPED = re.compile("ioflusher|echo|lis-ted|ready-for-keys")
pytestmark = pytest.mark.live

# the beginning of a command line -> what a shell has to offer among other things, and what it must not
LINES: dict[str, tuple[set[str], set[str]]] = {
    "": (set(VERBS), {"attach", "--json"}),
    "aud": ({"audit"}, {"map"}),
    "--de": ({"--debug"}, {"--json"}),
    "status --f": ({"--flagged"}, {"--sort"}),
    "nbd att": ({"attach"}, {"serve"}),
    "audit --format ": ({"text", "json", "sarif"}, {"svg"}),
    "audit --explain ": (set(BY_NAME), {"audit"}),
    "lab run ": (set(builtin_scenarios()), {"setup"}),
    "lab shell ": (set(builtin_scenarios()), {"setup"}),
    "completion ": ({"bash", "zsh", "fish"}, {"tcsh"}),
    "--color always audit --fail-on e": ({"error"}, {"note"}),
}
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "LC_ALL": "C.UTF-8",
    "TERM": "xterm",
    "COLUMNS": "200",
    **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
}


def offered_by_bash() -> list[str]:
    """What bash's own bookkeeping says it would call for the program, called as bash does."""
    ask = """
        COMP_WORDS=(ioflusher {words}) COMP_CWORD={number}; COMPREPLY=()
        "${{BASH_REMATCH[1]}}" ioflusher
        printf '%s ' "${{COMPREPLY[@]}}"; echo
    """
    script = """
        source <(ioflusher completion bash)
        [[ $(complete -p ioflusher) =~ -F\\ ([^ ]+)\\ ioflusher ]] || exit 1
    """
    for line in LINES:
        words = line.split(" ")
        script += ask.format(words=" ".join(word or "''" for word in words), number=len(words))
    return output_of([need("bash"), "--norc", "--noprofile", "-c", script]).splitlines()


def offered_by_fish() -> list[str]:
    """What fish offers, a line each with its description behind a tab."""
    script = "ioflusher completion fish | source"
    for line in LINES:
        script += f"; complete --do-complete 'ioflusher {line}'; echo end"
    text = re.sub(r"\t.*", "", output_of([need("fish"), "--no-config", "-c", script]))
    return text.split("\nend\n")


def output_of(command: list[str]) -> str:
    """Standard output of a shell that may say nothing on standard error."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, env=ENVIRONMENT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def offered_by_zsh() -> list[str]:
    """What zsh lists below the line on a terminal: words, some with their description behind two dashes."""
    shell = need("zsh")
    child, terminal = pty.fork()
    if child == 0:
        os.execve(shell, ["zsh", "-f", "-i"], ENVIRONMENT)
    try:
        # quotes keep what is waited for out of the echo of what is typed; the prompt says that zsh reads keys
        setup = "PS1=ready'-'for-keys; unsetopt prompt_sp zle_bracketed_paste; stty columns 200; LISTMAX=1000"
        load = "autoload -Uz compinit; compinit -u -D; source <(ioflusher completion zsh)"
        os.write(terminal, f"{load}; {setup}\n".encode())
        read_until(terminal, "ready-for-keys")
        return [listed_by_zsh(terminal, line) for line in LINES]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def listed_by_zsh(terminal: int, line: str) -> str:
    """The words below one line."""
    # Ctrl-D at the end of a line lists what could come there, Ctrl-U deletes the line
    os.write(terminal, f"ioflusher {line}\x04\x15echo lis'-'ted\n".encode())
    shown = ESCAPE.sub("", read_until(terminal, "lis-ted\r\n.*ready-for-keys"))
    rows = shown.replace("\r", "\n").split("\n")
    return " ".join(row.partition(" -- ")[0] for row in rows if not TYPED.search(row))


def read_until(terminal: int, end: str) -> str:
    """What the terminal shows, up to what the regular expression `end` finds."""
    text = ""
    while not re.search(end, text, re.DOTALL):
        ready, _, _ = select.select([terminal], [], [], DEADLINE)
        if not ready:
            raise TimeoutError(text)
        text += os.read(terminal, 65536).decode("utf-8", "replace")
    return text


SHELLS: dict[str, Callable[[], list[str]]] = {
    "bash": offered_by_bash,
    "fish": offered_by_fish,
    "zsh": offered_by_zsh,
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory, in which fish and zsh leave files."""
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_words(shell: str) -> None:
    """Verbs, verbs of verbs, options, choices, names of scenarios and rules."""
    offers = SHELLS[shell]()
    for (line, (wanted, unwanted)), text in zip(LINES.items(), offers, strict=False):
        offered = set(text.split())
        assert wanted <= offered, f"{shell} offers {sorted(offered)} after {line!r}"
        assert not unwanted & offered, f"{shell} offers {sorted(offered)} after {line!r}"
    assert len(offers) >= len(LINES)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_needs_no_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be printed where the shell is not, as a package is built."""
    monkeypatch.setenv("PATH", "")
    ended = call("completion", shell)
    assert (ended.status, ended.stderr) == (0, "")
    assert "_IOFLUSHER_COMPLETE" in ended.stdout
