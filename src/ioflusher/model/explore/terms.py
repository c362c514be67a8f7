"""Conditions and changes as syntax trees: what is in them, how large they get, how they read for numpy.

An `Expression` is text so that a run and an exploration evaluate the same. Here it is taken apart, to put one
into another where two steps become one, and to find the smallest integer type that holds every number on the
way to a result.
"""

import ast
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ioflusher.model.transitions import SCALAR_NAMES, Expression

FUNCTIONS = frozenset(SCALAR_NAMES)


def parsed(expression: Expression) -> ast.expr:
    """The tree of an expression; without variables, a constant."""
    tree = ast.parse(expression.text, mode="eval").body
    return tree if names(tree) else ast.Constant(int(value(tree, {})))


def names(tree: ast.expr) -> frozenset[str]:
    """The variables in it."""
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) - FUNCTIONS


def value(tree: ast.expr, values: Mapping[str, int]) -> int:
    """Its value for one state."""
    code = compile(ast.Expression(ast.fix_missing_locations(tree)), "<expression>", "eval")
    return int(eval(code, {"__builtins__": {}, **SCALAR_NAMES, **values}))


def substituted(tree: ast.expr, values: Mapping[str, ast.expr]) -> ast.expr:
    """The same with trees in place of variables."""
    return _Substitution(values).visit(ast.parse(ast.unparse(tree), mode="eval").body)  # type: ignore[no-any-return]


class _Substitution(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that an expression can come to; `truth` where numpy makes truth values of it."""

    low: int
    high: int
    truth: bool = False

    def joined(self, other: "Range") -> "Range":
        return Range(min(self.low, other.low), max(self.high, other.high), self.truth and other.truth)


TRUTH = Range(0, 1, True)


def range_of(tree: ast.expr, variables: Mapping[str, Range], met: list[Range] | None = None) -> Range:
    """What it can come to; `met` is given that of every part of it."""
    found = _range(tree, variables, [] if met is None else met)
    if met is not None:
        met.append(found)
    return found


def _range(tree: ast.expr, variables: Mapping[str, Range], met: list[Range]) -> Range:
    match tree:
        case ast.Constant(value=int(constant)):
            return Range(int(constant), int(constant))
        case ast.Name(id=name):
            return variables[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = range_of(operand, variables, met)
            return Range(-inner.high, -inner.low)
        case ast.Compare(left=left, comparators=[right]):
            range_of(left, variables, met)
            range_of(right, variables, met)
            return TRUTH
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, range_of(left, variables, met), range_of(right, variables, met))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            given = [range_of(argument, variables, met) for argument in arguments]
            if function == "where":
                return given[1].joined(given[2])
            pick = min if function == "minimum" else max
            return Range(pick(each.low for each in given), pick(each.high for each in given))
    raise ValueError(f"not an expression of a model: {ast.unparse(tree)}")


def _combined(operator: ast.operator, one: Range, other: Range) -> Range:
    ends = (one.low, one.high), (other.low, other.high)
    match operator:
        case ast.Add():
            return Range(one.low + other.low, one.high + other.high)
        case ast.Sub():
            return Range(one.low - other.high, one.high - other.low)
        case ast.Mult():
            return _hull(left * right for left, right in itertools.product(*ends))
        case ast.FloorDiv():
            divisors = [each for each in (*ends[1], -1, 1) if each and other.low <= each <= other.high]
            return _hull(left // right for left, right in itertools.product(ends[0], divisors or [1]))
        case ast.BitAnd() | ast.BitOr():
            if one.truth and other.truth:
                return TRUTH
            bits = max(abs(end).bit_length() for pair in ends for end in pair)
            return Range(-(1 << bits) if min(one.low, other.low) < 0 else 0, (1 << bits) - 1)
    raise ValueError(f"not an operator of a model: {type(operator).__name__}")


def _hull(numbers: Iterable[int]) -> Range:
    found = list(numbers)
    return Range(min(found), max(found))


def array_text(tree: ast.expr, variables: Mapping[str, Range], prefix: str) -> str:
    """Its text for numpy, each variable's name behind a prefix.

    Plain truth values are numbers to Python; numpy adds two of them by "or", so they are made numbers there.
    """

    def text(node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return prefix + name
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return f"({text(left)} {_SIGNS[type(operator)]} {text(right)})"
            case ast.BinOp(left=left, op=operator, right=right):
                as_number = number if isinstance(operator, _ARITHMETIC) else text
                return f"({as_number(left)} {_SIGNS[type(operator)]} {as_number(right)})"
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return f"{function}({', '.join(text(argument) for argument in arguments)})"
        return f"({ast.unparse(node)})"

    def number(node: ast.expr) -> str:
        return f"as_number({text(node)})" if range_of(node, variables).truth else text(node)

    return text(tree)


_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)
_SIGNS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
