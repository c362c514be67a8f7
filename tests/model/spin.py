"""Systems in spin's language, and what spin says of a model: the independent judge of explorations.

Each step becomes one `d_step`, so that spin's states are the same as an exploration's without reductions.
Where a task may stay (a point of rest, or any point of a task that does not work) there is an end label, so
that an invalid end state is a state in which nobody can take a step and the system is not done.
"""

import ast
import re
import resource
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ioflusher.model.explore.terms import names, parsed
from ioflusher.model.transitions import Program, Step, TransitionSystem, Variable

SECONDS = 600


@dataclass(frozen=True, slots=True)
class SpinResult:
    """What spin found.

    Attributes:
        errors: invalid end states or assertions that do not hold; where it does not go on, 1 for any.
        states, transitions: stored states, and transitions (stored and matched).
        depth: the longest way that it went.
        generated_s: seconds that making and compiling the program took.
        search_s: seconds of search, by the program's own clock.
        cpu_s: seconds of the processor that it took.
        bytes: memory used, by the program's own account.
    """

    errors: int
    states: int
    transitions: int
    depth: int
    generated_s: float
    search_s: float
    cpu_s: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Asked:
    """How spin is to search.

    Attributes:
        whole: go on after an error, for the number of all states.
        end_states: an end state without an end label is an error.
        reduced: with spin's own partial order reduction.
        optimised: compile for speed.
        hash_bits: the size of its hash table.
    """

    whole: bool = True
    end_states: bool = True
    reduced: bool = False
    optimised: bool = False
    hash_bits: int = 20


def spin(model: str, directory: Path, asked: Asked = Asked(), **macros: int) -> SpinResult:
    """Let spin search a model, with macros defined."""
    began = time.perf_counter()
    (directory / "model.pml").write_text(model)
    _run(directory, "spin", *(f"-D{name}={value}" for name, value in macros.items()), "-a", "model.pml")
    options = ["-DSAFETY", "-DMEMLIM=8000", "-DVECTORSZ=4096", *(() if asked.reduced else ("-DNOREDUCE",))]
    _run(directory, "gcc", "-O2" if asked.optimised else "-O0", "-w", *options, "-o", "pan", "pan.c")
    generated_s = time.perf_counter() - began
    options = ["-m4000000", f"-w{asked.hash_bits}"]
    options += ["-c0"] * asked.whole + ["-E"] * (not asked.end_states)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = _run(directory, "./pan", *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "max search depth too small" not in text, text

    def found(pattern: str) -> float:
        match = re.search(pattern, text)
        assert match is not None, (pattern, text)
        return float(match[1])

    return SpinResult(
        errors=int(found(r"errors: (\d+)")),
        states=int(found(r"(\S+) states, stored")),
        transitions=int(found(r"(\S+) transitions")),
        depth=int(found(r"depth reached (\d+)")),
        generated_s=generated_s,
        search_s=found(r"pan: elapsed time (\S+) seconds"),
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        bytes=found(r"(\S+)\s+total actual memory usage") * (1 << 20),
    )


def _run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promela(system: TransitionSystem) -> str:
    """The system as a model for spin."""
    lines = [f"/* {system.name} */"]
    lines += [
        f"{_type(variable)} {_name(variable.name)} = {variable.initial};" for variable in system.variables
    ]
    # not part of the state: every value is assigned before it is read, in the same d_step
    most = max((len(step.changes) for program in system.programs for step in program.steps), default=0)
    lines += [f"hidden int new{number};" for number in range(most)]
    for number, program in enumerate(system.programs):
        lines += [f"/* {program.name} */", f"active proctype p{number}()", "{"]
        lines += _program(program)
        lines.append("}")
    return "\n".join(lines) + "\n"


def _type(variable: Variable) -> str:
    if (variable.low, variable.high) == (0, 1):
        return "bit"
    if variable.low >= 0 and variable.high <= 255:
        return "byte"
    return "short" if variable.low >= -(1 << 15) and variable.high < 1 << 15 else "int"


def _program(program: Program) -> Iterable[str]:
    at = program.steps_at()
    points = sorted({0, *at, *(step.to for step in program.steps)})
    for point in points:
        ends = not program.works or point in program.rests
        yield f"{_label(program, point)}:"
        if point not in at:
            yield "    false" + (";" if point != points[-1] else "")
            continue
        yield "    if"
        for step in at[point]:
            yield f"    :: {_step(step)} -> goto {_label(program, step.to)}"
        yield "    fi" + (";" if point != points[-1] else "")
        assert ends or point not in program.rests


def _label(program: Program, point: int) -> str:
    return f"{'end' if not program.works or point in program.rests else 'at'}{point}"


def _step(step: Step) -> str:
    condition = _text(parsed(step.when)) if step.when is not None else "true"
    trees = [(_name(variable.name), parsed(new)) for variable, new in step.changes]
    written = {name for name, _ in trees}
    if len(trees) > 1 and any(written & {_name(name) for name in names(tree)} for _, tree in trees):
        changes = [f"new{number} = {_text(tree)}" for number, (_, tree) in enumerate(trees)]
        changes += [f"{name} = new{number}" for number, (name, _) in enumerate(trees)]
    else:
        changes = [f"{name} = {_text(tree)}" for name, tree in trees]
    return "d_step { " + "; ".join((condition, *changes)) + " }"


def _name(name: str) -> str:
    return f"v_{name}"  # no word of spin's


def _text(tree: ast.expr) -> str:
    match tree:
        case ast.Name(id=name):
            return _name(name)
        case ast.Constant(value=int(value)):
            return str(int(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(0 - {_text(operand)})"
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            return f"({_text(left)} {_SIGNS[type(operator)]} {_text(right)})"
        case ast.BinOp(left=left, op=operator, right=right):
            return f"({_text(left)} {_SIGNS[type(operator)]} {_text(right)})"
        case ast.Call(func=ast.Name(id="where"), args=[condition, yes, no]):
            return f"({_text(condition)} -> {_text(yes)} : {_text(no)})"
        case ast.Call(func=ast.Name(id=function), args=[one, other]):
            sign = "<" if function == "minimum" else ">"
            return f"({_text(one)} {sign} {_text(other)} -> {_text(one)} : {_text(other)})"
    raise AssertionError(ast.dump(tree))


_SIGNS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "/",  # rounds towards 0: the same where nothing is negative
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
