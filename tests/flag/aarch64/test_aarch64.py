"""The state put on running processes of another processor: an emulated arm64 machine with its own kernel."""

import importlib.metadata
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.flag.aarch64.machine import COMPILER, Done, Entry, boot, parts, tree

REPOSITORY = Path(__file__).parents[3]
ATTACH = ("tests/flag/attach/test_attach.py", "tests/flag/attach/test_killed.py")
TESTS = ("tests/__init__.py", "tests/conftest.py", "tests/needs.py", "tests/flag/attach/conftest.py", *ATTACH)
# pure Python, all of them
LIBRARIES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "click")
DEADLINE_S = 900
BOTH = 0x180000

COMMAND = """cd /repository
export PYTHONPATH=/site:/repository/src:/repository IOFLUSHER_PROGRAMS=/programs
export IOFLUSHER_WAITS="51 1500 500" IOFLUSHER_ROUNDS=2 IOFLUSHER_DEADLY_STEP=7
uname -srm
ioflusher() {{ {python} -m ioflusher "$@"; }}
/programs/corners sleeper &
target=$!
sleep 1
ioflusher set --lock-memory $target && echo "then $(cut -d" " -f9 /proc/$target/stat)"
ioflusher unset $target && echo "then $(cut -d" " -f9 /proc/$target/stat)"
kill $target; wait $target
ioflusher run --user 65534 --group 65534 --policy rr --priority 3 --ionice best-effort:1 -- sh -c \\
    'id -u; cut -d" " -f9 /proc/self/stat; chrt -p 0; ionice; exit 7'; echo "status $?"
{python} -m pytest -q -rs -p no:cacheprovider {tests}
"""


def files(programs: Path) -> Iterator[Entry]:
    """What the machine gets on top of its user space: our sources, some tests, libraries, programs."""
    pending: dict[str, Entry] = {}

    def add(target: str, mode: int, source: Path) -> None:
        pending[target] = (target, 0o100000 | mode, source.read_bytes())

    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        add(f"repository/{path.relative_to(REPOSITORY)}", 0o644, path)
    for name in (*TESTS, "pyproject.toml"):
        add(f"repository/{name}", 0o644, REPOSITORY / name)
    for library in LIBRARIES:
        for file in importlib.metadata.files(library) or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                add(f"site/{file}", 0o644, Path(str(file.locate())))
    for entry in tree(programs, "programs"):
        pending[entry[0]] = entry
    directories = sorted({str(parent) for target in pending for parent in Path(target).parents} - {"."})
    yield from ((directory, 0o040755, b"") for directory in directories)
    yield from pending.values()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """How the command ended."""
    programs = tmp_path_factory.mktemp("programs")
    for source in sorted((REPOSITORY / "tests/flag/programs").glob("*.c")):
        command = [COMPILER, "-O2", "-pthread", "-static", "-o", str(programs / source.stem), str(source)]
        subprocess.run(command, check=True, timeout=120)
    machine = parts()
    command_there = COMMAND.format(python=machine.python, tests=" ".join(ATTACH))
    return boot(machine, files(programs), command_there, deadline_s=DEADLINE_S)


@pytest.mark.vm
@pytest.mark.aarch64
def test_every_test_of_attaching_passes_there(done: Done) -> None:
    """test_attach.py and test_killed.py, with the state really set; only what is for x86-64 does not run."""
    assert done.status == 0, done.output + done.console[-2000:]
    left_out = [line for line in done.output.splitlines() if line.startswith(("SKIPPED", "DESELECTED"))]
    assert all("x86-64" in line for line in left_out), done.output
    assert "aarch64" in done.output.splitlines()[0]


@pytest.mark.vm
@pytest.mark.aarch64
def test_the_program_does_its_work_there(done: Done) -> None:
    """set, unset and run with options, as a user types them."""
    lines = done.output.splitlines()[1:]
    text = "\n".join(lines)
    assert "corners: 1 set (" in text
    assert "memory: locked" in text
    assert "corners: 1 cleared (" in text
    then = [int(line.removeprefix("then ")) & BOTH for line in lines if line.startswith("then ")]
    assert then == [BOTH, 0]
    began = lines.index("65534")
    assert int(lines[began + 1]) & BOTH == BOTH
    rest = "\n".join(lines[began + 2 : began + 7])
    assert "SCHED_RR" in rest
    assert "best-effort: prio 1" in rest
    assert "status 7" in rest
