"""The table of verbs: right, and light to use."""

import subprocess
import sys

import pytest
from tests.cli.program import DEADLINE, call

from ioflusher.cli.verbs import VERBS, load

# What a verb that starts or lists things has no use for: each takes its time to load.
HEAVY = {
    "rich",
    "msgspec",
    "jinja2",
    "matplotlib",
    "tempfile",
    "subprocess",
    "asyncio",
}
FAR_ROOMS = {"lab", "kernlog", "machine", "audit", "nbd", "report"}


@pytest.mark.parametrize("name", VERBS)
def test_the_description_is_the_first_line_of_the_verbs_help(name: str) -> None:
    """The list of verbs says what the verb says itself, and whole."""
    command = load(name)
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n")[0] == VERBS[name].description
    assert command.get_short_help_str(limit=200).rstrip(".") == VERBS[name].description.rstrip(".")


def test_the_list_of_verbs() -> None:
    """Every verb with its description, in one line each at 80 columns."""
    text = call("--help").stdout
    for name, verb in VERBS.items():
        assert f"  {name:<10}  {verb.description}\n" in text


def modules_loaded_by(*arguments: str) -> set[str]:
    """Names of all modules that the program has loaded when it ends."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from ioflusher.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=DEADLINE
    )
    assert "ioflusher.cli.main" in done.stderr
    return set(done.stderr.split())


def unwanted(modules: set[str], allowed: set[str]) -> set[str]:
    """Those that are heavy or of rooms that have nothing to do with it."""
    rooms = {f"ioflusher.{room}" for room in FAR_ROOMS - allowed}
    return {name for name in modules if name.split(".")[0] in HEAVY - allowed or name in rooms}


@pytest.mark.live
@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["run", "--help"], set()),
        (["run", "--user", "nobody-like-this", "true"], set()),
        (["run", "--best-effort", "--memlock", "64M", "/nonexistent"], set()),
        (["container"], set()),
        (["completion", "fish"], set()),
        (["set", "--help"], set()),
        (["nbd", "--help"], set()),
        (["lab", "--help"], set()),
        (["audit", "--help"], set()),
        (["model", "--help"], set()),
        (["model", "run", "xfs-on-nbd-5.8"], {"report", "tempfile"}),
        (["unit", "--help"], {"subprocess", "tempfile"}),
        (["unit", "nothing.service"], {"subprocess", "tempfile"}),
        (["map", "--help"], set()),
        (["map", "--snapshot", "/nonexistent"], {"machine", "msgspec", "report"}),
        (["diagnose", "--help"], {"kernlog", "report"}),
        (["snapshot", "--help"], {"machine", "msgspec", "subprocess"}),
        (["status", "--help"], {"machine", "msgspec", "report"}),
    ],
)
def test_a_verb_loads_what_it_needs(arguments: list[str], allowed: set[str]) -> None:
    """`run`, `unit` and `map` load no lab; no help waits for rich or msgspec where it need not."""
    assert unwanted(modules_loaded_by(*arguments), allowed) == set()
