"""Mutation testing of the code that judges: `make mutants`, or `python -m tests.mutants [TARGET ...]`.

cosmic-ray changes one operator, number or condition at a time in a copy of the tree and runs the tests that
tests/mutants.toml names for the file. A mutant that no test notices survives. Each survivor is either
explained in that file (it changes nothing that can be observed) or counted as unexplained; the run fails
where more than 5 % of those that were tried are unexplained.

Mutants are tried in random order, so a run that --most or --minutes cut short has tried a random sample; one
--seed gives the same order every time. --again goes on from there: it tries those that are left, and once
more those that survived, on the tests as they are now.
"""

import argparse
import ast
import contextlib
import difflib
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import hypothesis  # noqa: F401  loaded before the tests fork
import msgspec  # noqa: F401
import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "build" / "mutants"
COPIED = ("src", "tests", "docs", "tools", ".ci", "Makefile", "pyproject.toml", "README.md", "CHANGELOG.md")
UNEXPLAINED = 0.05  # the share of a target's mutants that may survive without an explanation

# cosmic-ray replaces every operator by every other; these are the replacements that differ in what they test.
# Identity in place of equality, or exclusive-or in place of or, mostly means the same for enums and flags.
KEPT = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul"
    r"|RShift_LShift|LShift_RShift|BitOr_BitAnd|BitAnd_BitOr|BitXor_BitOr)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt"
    r"|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_(USub_UAdd|Delete_USub|Delete_Invert|Delete_Not)"
    r"|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd"
    r"|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ExceptionReplacer|NumberReplacer|RemoveDecorator"
    r"|ZeroIterationForLoop)"
)

Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Equivalent:
    """Survivors that are explained: changes of one line for one reason.

    Attributes:
        was: the line before the change, stripped.
        now: the line after it, one for each change.
        why: why nobody can tell the difference.
        module: the file below src/ioflusher, where the line may stand in others too.
    """

    was: str
    now: tuple[str, ...]
    why: str
    module: str = ""

    def explains(self, survivor: "Survivor") -> bool:
        """Whether the survivor is one of these."""
        same = (survivor.was, survivor.path) == (self.was, self.module or survivor.path)
        return same and survivor.now in self.now


@dataclass(frozen=True, slots=True)
class Target:
    """One part to be mutated.

    Attributes:
        name: what the command line calls it.
        modules: files or directories below src/ioflusher.
        tests: what pytest runs against each mutant; the first alone before the others, since most mutants
            get no further.
        timeout: seconds that these tests may take; a mutant that takes longer counts as noticed.
        first: by module, another test that runs alone before all.
        equivalents: the survivors that are explained.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    timeout: float
    equivalents: tuple[Equivalent, ...] = ()
    first: dict[str, str] = field(default_factory=dict)

    def stages(self, module_path: str) -> tuple[list[str], ...]:
        """The tests for a mutant of the module, those that run together in one list."""
        first = self.first.get(module_path.removeprefix("src/ioflusher/"), self.tests[0])
        rest = [test for test in self.tests if test != first]
        return ([first], rest) if rest else ([first],)


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test noticed: the file, the line, and the line before and after the change."""

    path: str
    line: int
    was: str
    now: str
    why: str = ""


@dataclass(slots=True)
class Score:
    """What came of a target's mutants; one that made the tests run too long counts as noticed, too."""

    target: Target
    mutants: int
    noticed: int = 0
    timed_out: int = 0
    survivors: list[Survivor] = field(default_factory=list)

    @property
    def unexplained(self) -> list[Survivor]:
        """The survivors without a reason."""
        return [survivor for survivor in self.survivors if not survivor.why]

    @property
    def tried(self) -> int:
        """How many mutants were tried."""
        return self.noticed + len(self.survivors)

    @property
    def good_enough(self) -> bool:
        """Whether mutants were tried and few enough are unexplained."""
        return self.tried > 0 and len(self.unexplained) <= UNEXPLAINED * self.tried

    @property
    def row(self) -> str:
        """The target's row of the table in docs/benchmarks.md."""
        explained = len(self.survivors) - len(self.unexplained)
        numbers = (self.mutants, self.tried, self.noticed, self.timed_out, explained, len(self.unexplained))
        return f"| {self.target.name} | {' | '.join(map(str, numbers))} |"


def read_targets(path: Path) -> dict[str, Target]:
    """The targets by name, in the file's order."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    return {
        entry["name"]: Target(
            entry["name"],
            tuple(entry["modules"]),
            tuple(entry["tests"]),
            float(entry["timeout"]),
            tuple(
                Equivalent(known["was"], tuple(known["now"]), known["why"], known.get("module", ""))
                for known in entry.get("equivalent", ())
            ),
            entry.get("first", {}),
        )
        for entry in table["target"]
    }


def not_judged(source: str) -> Iterator[Span]:
    """Where a change judges nothing: annotations, which are not run, options of dataclasses, and caches."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts.append(node.returns)
            for decorator in node.decorator_list:
                if ast.unparse(decorator).partition("(")[0] in ("cache", "lru_cache"):
                    yield (decorator.lineno, 0), (decorator.lineno + 1, 0)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.ClassDef):
            parts += node.decorator_list
        for part in parts:
            if part is not None:
                end = (part.end_lineno or part.lineno, part.end_col_offset or 0)
                yield (part.lineno, part.col_offset), end


def wanted(mutation: MutationSpec, skipped: dict[Path, list[Span]], copy: Path) -> bool:
    """Whether the mutant says something about the tests."""
    if not KEPT.fullmatch(mutation.operator_name):
        return False
    path = Path(mutation.module_path)
    if path not in skipped:
        skipped[path] = list(not_judged((copy / path).read_text()))
    return not any(start <= mutation.start_pos < end for start, end in skipped[path])


def changed_lines(diff: str) -> tuple[str, str]:
    """The lines that a mutant's diff takes out and brings in, stripped and joined."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    was, now = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)).strip() for sign in "-+"
    )
    return was, now


def copied(target: Target, *, again: bool) -> Path:
    """A copy of the tree for the target; `again`: with what the last run found.

    Raises:
        RuntimeError: with `again`, where there was no last run or the code has changed since.
    """
    copy = PLACE / target.name
    if again:
        for name in target.modules:
            both = [str(tree / "src/ioflusher" / name) for tree in (ROOT, copy)]
            command = ["diff", "-rq", "-x", "__pycache__", *both]
            if subprocess.run(command, check=False, timeout=60, stdout=sys.stderr).returncode:
                raise RuntimeError(f"{target.name}: no last run of this code in {copy}; leave out --again")
        for name in COPIED:
            if (copy / name).is_dir():
                shutil.rmtree(copy / name)
    else:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    return copy


def draw(mutation: MutationSpec, seed: int) -> bytes:
    """The mutant's lot: sorted by it, mutants are in an order that is random, and the same for one seed."""
    change = (mutation.module_path, mutation.operator_name, mutation.operator_args, mutation.occurrence)
    return hashlib.sha256(f"{seed} {change}".encode()).digest()


def run(
    target: Target,
    *,
    again: bool = False,
    until: float = float("inf"),
    most: int | None = None,
    seed: int = 0,
) -> Score:
    """Make the target's mutants in a copy of the tree, run its tests on each, and count.

    Args:
        target: what to mutate.
        again: go on with what the last run left, and with what survived it.
        until: when to stop, by time.monotonic().
        most: how many mutants to try, or None for all.
        seed: which order they are tried in.

    Raises:
        subprocess.CalledProcessError, RuntimeError: where the tests fail without any change.
    """
    copy = copied(target, again=again)
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}

    def call(*words: str) -> None:
        subprocess.run(words, cwd=copy, env=environment, check=True, timeout=600, stdout=sys.stderr)

    # Mutants of one second and one size look alike to the usual cache of compiled files.
    call(sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src")
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutant_profile"]
    arguments += ["--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += ["-m", "not vm and not live"]
    call(sys.executable, "-m", "pytest", *arguments, *target.tests)
    if tested(copy, [*arguments, *target.tests], target.timeout) != (TestOutcome.SURVIVED, ""):
        raise RuntimeError(f"{target.name}: its tests do not pass in a child, without any change")
    if not again:
        modules = ", ".join(f'"src/ioflusher/{name}"' for name in target.modules)
        (copy / "cosmic-ray.toml").write_text(
            f"[cosmic-ray]\nmodule-path = [{modules}]\ntimeout = {target.timeout}\n"
            'test-command = "none"\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        call(str(Path(sys.executable).with_name("cosmic-ray")), "init", "cosmic-ray.toml", "session.sqlite")
    with use_db(copy / "session.sqlite", WorkDB.Mode.open) as database:
        skipped: dict[Path, list[Span]] = {}
        items = {item.job_id: item for item in database.work_items}
        chosen = {name for name, item in items.items() if wanted(item.mutations[0], skipped, copy)}
        results = {item.job_id: result for item, result in database.completed_work_items}
        survived = chosen.intersection(name for name, result in results.items() if survives(result))
        left = sorted(chosen - set(results), key=lambda name: draw(items[name].mutations[0], seed))
        for name in [*sorted(survived), *left[:most]]:
            if time.monotonic() >= until:
                break
            (mutation,) = items[name].mutations
            database.set_result(name, judge(mutation, copy, arguments, target))
        return count(target, len(chosen), database)


def survives(result: WorkResult) -> bool:
    """Whether no test noticed the mutant."""
    return bool(result.worker_outcome == WorkerOutcome.NORMAL and result.test_outcome == TestOutcome.SURVIVED)


def judge(mutation: MutationSpec, copy: Path, arguments: list[str], target: Target) -> WorkResult:
    """Make one mutant, and have the tests look at it."""
    path = copy / mutation.module_path
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    with use_mutation(path, operator, mutation.occurrence) as (before, after):
        if after is None:
            return WorkResult(WorkerOutcome.NO_TEST)
        for tests in target.stages(str(mutation.module_path)):
            outcome, output = tested(copy, [*arguments, *tests], target.timeout)
            if outcome != TestOutcome.SURVIVED:
                break
    diff = "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))
    return WorkResult(WorkerOutcome.NORMAL, output, outcome, diff)


def tested(copy: Path, arguments: list[str], timeout: float) -> tuple[TestOutcome, str]:
    """Whether the tests pass in a copy of the tree: in a child, which has the libraries already."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            seconds = int(timeout) + 5  # of processor time: a mutant that never ends must not outlive this
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            os.chdir(copy)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nowhere, standard)
            os.environ["PYTHONPATH"] = str(copy / "src")
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True
            sys.path[:] = [str(copy / "src"), str(copy), *(name for name in sys.path if name != str(ROOT))]
            for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[name]
            os._exit(int(pytest.main(arguments)))
        finally:
            os._exit(99)
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            passed = os.waitstatus_to_exitcode(status) == 0
            return (TestOutcome.SURVIVED if passed else TestOutcome.KILLED), ""
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TestOutcome.KILLED, "timeout"


def count(target: Target, mutants: int, database: WorkDB) -> Score:
    """The score in a session, of so many mutants."""
    score = Score(target, mutants)
    for item, result in database.completed_work_items:
        if result.worker_outcome != WorkerOutcome.NORMAL:
            continue
        if not survives(result):
            score.noticed += 1
            score.timed_out += result.output == "timeout"
            continue
        mutation = item.mutations[0]
        was, now = changed_lines(result.diff or "")
        path = str(Path(mutation.module_path).relative_to("src/ioflusher"))
        survivor = Survivor(path, mutation.start_pos[0], was, now)
        why = next((known.why for known in target.equivalents if known.explains(survivor)), "")
        score.survivors.append(replace(survivor, why=why))
    score.survivors.sort(key=lambda survivor: (survivor.path, survivor.line, survivor.now))
    return score


def main() -> int:
    """Run the targets, two at a time, and print the table and the survivors."""
    targets = read_targets(Path(__file__).with_suffix(".toml"))
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="targets run at once")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--most", type=int, metavar="N", help="try no more than N of each target's mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the random order, else %(default)s")
    parser.add_argument("--again", action="store_true", help="go on with the last run, see above")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(targets)}")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.targets) - set(targets))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    chosen = [
        target for name, target in targets.items() if name in arguments.targets or not arguments.targets
    ]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        until = time.monotonic() + 60 * arguments.minutes
        options = {"again": arguments.again, "until": until, "most": arguments.most, "seed": arguments.seed}
        scores = list(pool.map(partial(run, **options), chosen))
    print("| part | mutants | tried | noticed | of these by time-out | explained | unexplained |")
    print("|---|---|---|---|---|---|---|")
    for score in scores:
        print(score.row)
    for score in scores:
        for survivor in score.survivors:
            print(f"\n{survivor.path}:{survivor.line}: {survivor.why or 'UNEXPLAINED'}")
            print(f"  - {survivor.was}\n  + {survivor.now}")
        found = {(survivor.was, survivor.now) for survivor in score.survivors}
        for known in score.target.equivalents if score.tried == score.mutants else ():
            for now in known.now:
                if (known.was, now) not in found:
                    print(f"\n{score.target.name}: explained, but noticed now: {now}")
    return 0 if all(score.good_enough for score in scores) else 1


if __name__ == "__main__":
    sys.exit(main())
