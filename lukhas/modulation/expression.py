"""The policy's expression language: a small total language over signal levels.

An expression is parsed by Python's own parser, then translated node by node, against a whitelist, into the frozen
tree of this file. Nothing of the parsed text is ever evaluated: `interpret`, `interval` and `compile` work on this
tree alone. Every expression has a kind (number, condition, enum member or tool list) that is checked here, so that a
tree which exists can be evaluated without an error at every point, divisions aside (see `interval`).
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from lukhas.errors import ExpressionError
from lukhas.modulation.lexeme import find_flaw

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 24
MAX_NODES: Final = 200
MAX_NUMBER: Final = 1_000_000.0

Kind = Literal["number", "condition", "enum", "tools"]
ArithmeticOp = Literal["+", "-", "*", "/"]
CompareOp = Literal["<", "<=", ">", ">=", "==", "!="]
Function = Literal["min", "max", "round", "abs", "clamp"]

TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z", re.ASCII)

_ALLOWED: Final = {
    "number": "numbers, {names}, + - * /, min, max, round, abs, clamp, and 'a if condition else b'",
    "condition": "comparisons (< <= > >= == !=) of {names}, joined by and, or, not",
    "enum": "one of {names}, or 'a if condition else b'",
    "tools": "a list of tool names such as [retrieval], {names}, or 'a if condition else b'",
}


@dataclass(frozen=True, slots=True)
class Number:
    """A literal number."""

    value: float | int


@dataclass(frozen=True, slots=True)
class Level:
    """The level of a signal, a ratio in [0, 1]; 0 where the signal is absent."""

    signal: str


@dataclass(frozen=True, slots=True)
class Own:
    """`x`: the level of the signal whose map this is."""


@dataclass(frozen=True, slots=True)
class Current:
    """`current`: the parameter's value without this signal."""


@dataclass(frozen=True, slots=True)
class Mode:
    """The decided value of an enum parameter, in the rules that choose a style."""

    parameter: str


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an enum."""

    value: str


@dataclass(frozen=True, slots=True)
class Tools:
    """A list of tool classes and names, without repetition."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One of the four operations."""

    op: ArithmeticOp
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """min, max, round (half to even), abs or clamp(value, low, high)."""

    function: Function
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison. A chain `a < b < c` becomes a conjunction of these."""

    op: CompareOp
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Both:
    """All of the operands hold (`is_and`), or any of them does."""

    is_and: bool
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The operand does not hold."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Choice:
    """`then if condition else otherwise`."""

    condition: Node
    then: Node
    otherwise: Node


Node = (
    Number | Level | Own | Current | Mode | Member | Tools | Negate | Arithmetic | Call | Compare | Both | Not | Choice
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name, and what it must yield.

    Attributes:
        kind: the kind of the whole expression.
        signals: names that stand for a level.
        members: the enum's members, for kind 'enum'.
        modes: enum parameters that a condition may compare, with their members.
        has_own: whether `x` and `current` exist (maps: yes; style rules: no).
        hidden: names that exist elsewhere but are refused here, with the reason.
    """

    kind: Kind
    signals: frozenset[str]
    members: tuple[str, ...] = ()
    modes: Mapping[str, tuple[str, ...]] | None = None
    has_own: bool = True
    hidden: Mapping[str, str] | None = None


def parse_expression(text: str, scope: Scope) -> Node:
    """Translate `text` into a tree of the language.

    Raises:
        ExpressionError: with 1-based line and column of what is refused, and what is allowed there.
    """
    return _Parser(text, scope).parse()


def uses_current(node: Node) -> bool:
    """Return whether the expression reads `current` anywhere."""
    return any(isinstance(part, Current) for part in walk(node))


def walk(node: Node) -> list[Node]:
    """Return every node of the tree, parents before children."""
    found = [node]
    for part in found:
        found.extend(children(part))
    return found


def children(node: Node) -> tuple[Node, ...]:
    """Return the direct children of a node, left to right."""
    match node:
        case Negate(operand) | Not(operand):
            return (operand,)
        case Arithmetic(_, left, right) | Compare(_, left, right):
            return (left, right)
        case Call(_, parts) | Both(_, parts):
            return parts
        case Choice(condition, then, otherwise):
            return (condition, then, otherwise)
        case _:
            return ()


_ARITHMETIC: Final[Mapping[type[ast.operator], ArithmeticOp]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
_COMPARE: Final[Mapping[type[ast.cmpop], CompareOp]] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_ARITY: Final[Mapping[Function, tuple[int, int]]] = {
    "min": (2, 8),
    "max": (2, 8),
    "round": (1, 1),
    "abs": (1, 1),
    "clamp": (3, 3),
}


class _Parser:
    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        self.scope = scope
        self.count = 0

    def refuse(
        self, problem: str, at: ast.AST | tuple[int, int], kind: Kind | None = None, allowed: str | None = None
    ) -> NoReturn:
        if isinstance(at, ast.AST):
            line = getattr(at, "lineno", 1)
            # ASCII only, so bytes are characters; a tuple without brackets begins at ours, left of the text.
            column = max(1, getattr(at, "col_offset", 0) + 1)
        else:
            line, column = at
        raise ExpressionError(
            f"{problem} at line {line}, column {column}.",
            line=line,
            column=column,
            allowed=self.allowed(kind) if allowed is None else allowed,
        )

    def allowed(self, kind: Kind | None) -> str:
        scope = self.scope
        wanted = kind or scope.kind
        names: list[str] = []
        if wanted in ("number", "condition"):
            names = ["x"] * scope.has_own + ["current"] * (scope.has_own and scope.kind == "number")
            names += sorted(scope.signals) + sorted(scope.modes or ())
        elif wanted == "enum":
            names = [*scope.members, *(["current"] * scope.has_own)]
        elif scope.has_own:
            names = ["current"]
        return _ALLOWED[wanted].format(names=", ".join(names))

    def place(self, offset: int) -> tuple[int, int]:
        before = self.text[:offset]
        return before.count("\n") + 1, offset - before.rfind("\n")

    def parse(self) -> Node:
        text = self.text
        if len(text) > MAX_LENGTH:
            self.refuse(f"The expression is longer than {MAX_LENGTH} characters", self.place(MAX_LENGTH))
        if not text.strip():
            self.refuse("The expression is empty", (1, 1))
        flaw = find_flaw(text)
        if flaw is not None:
            self.refuse(flaw.problem, self.place(flaw.offset))
        # In brackets a line break is white space; the shift of the first line is undone below.
        try:
            tree = ast.parse(f"({text}\n)", mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as failure:
            self.refuse("The expression cannot be understood", self.place_of_failure(failure))
        for part in ast.walk(tree):
            if getattr(part, "lineno", 0) == 1:
                part.col_offset -= 1  # type: ignore[attr-defined]
        return self.translate(tree.body, self.scope.kind, 1)

    def place_of_failure(self, failure: Exception) -> tuple[int, int]:
        line: int = getattr(failure, "lineno", None) or 1
        column: int = (getattr(failure, "offset", None) or 1) - (line == 1)
        lines = self.text.split("\n")
        if line > len(lines):  # the bracket that we added: something is missing at the end
            return self.place(len(self.text.rstrip()) - 1)
        return line, max(1, min(column, len(lines[line - 1])))

    def translate(self, part: ast.expr, kind: Kind, depth: int) -> Node:
        self.count += 1
        if depth > MAX_DEPTH:
            self.refuse(f"The expression is nested deeper than {MAX_DEPTH} levels", part)
        if self.count > MAX_NODES:
            self.refuse(f"The expression has more than {MAX_NODES} parts", part)
        match part:
            case ast.IfExp(test, body, orelse):
                if kind == "condition":
                    self.refuse("A condition cannot contain 'if'", part, kind)
                return Choice(
                    self.translate(test, "condition", depth + 1),
                    self.translate(body, kind, depth + 1),
                    self.translate(orelse, kind, depth + 1),
                )
            case ast.Name(name):
                return self.name(part, name, kind)
            case _:
                pass
        if kind == "number":
            return self.number(part, depth)
        if kind == "condition":
            return self.condition(part, depth)
        if kind == "tools" and isinstance(part, ast.List):
            return self.tools(part)
        if kind == "enum" and isinstance(part, ast.Constant) and isinstance(part.value, str):
            return self.member(part, part.value, self.scope.members)
        self.refuse(f"{_describe(part)} is not allowed here", part, kind)

    def name(self, part: ast.Name, name: str, kind: Kind) -> Node:
        scope = self.scope
        if scope.hidden and name in scope.hidden:
            self.refuse(f"'{name}' may not be named here: {scope.hidden[name]},", part, kind)
        if name == "current" and scope.has_own and kind == scope.kind:
            return Current()
        if kind == "number":
            if name == "x" and scope.has_own:
                return Own()
            if name in scope.signals:
                return Level(name)
        if kind == "enum":
            return self.member(part, name, scope.members)
        self.refuse(f"The name '{name}' is not known here", part, kind)

    def member(self, part: ast.expr, name: str, members: tuple[str, ...]) -> Member:
        if name not in members:
            options = ", ".join(members)
            self.refuse(f"'{name}' is not one of {options}", part, allowed=f"one of {options}")
        return Member(name)

    def number(self, part: ast.expr, depth: int) -> Node:
        match part:
            case ast.Constant(value) if isinstance(value, (int, float)) and not isinstance(value, bool):
                if not (abs(value) <= MAX_NUMBER and math.isfinite(value)):
                    self.refuse(f"A number beyond {MAX_NUMBER:,.0f} is not allowed", part)
                return Number(value)
            case ast.UnaryOp(ast.USub(), operand):
                return Negate(self.translate(operand, "number", depth + 1))
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                return Arithmetic(
                    _ARITHMETIC[type(op)],
                    self.translate(left, "number", depth + 1),
                    self.translate(right, "number", depth + 1),
                )
            case ast.Call(ast.Name(name) as function, arguments, keywords):
                for known, (low, high) in _ARITY.items():
                    if name == known:
                        if keywords or not low <= len(arguments) <= high:
                            takes = str(low) if low == high else f"{low} to {high}"
                            self.refuse(f"'{name}' takes {takes} plain arguments", function)
                        return Call(known, tuple(self.translate(a, "number", depth + 1) for a in arguments))
                self.refuse(f"The function '{name}' is not known", function)
            case _:
                self.refuse(f"{_describe(part)} is not allowed here", part, "number")

    def condition(self, part: ast.expr, depth: int) -> Node:
        match part:
            case ast.BoolOp(op, values):
                operands = tuple(self.translate(v, "condition", depth + 1) for v in values)
                return Both(isinstance(op, ast.And), operands)
            case ast.UnaryOp(ast.Not(), operand):
                return Not(self.translate(operand, "condition", depth + 1))
            case ast.Compare(first, ops, rest):
                pairs: list[Node] = []
                left = first
                for op, right in zip(ops, rest, strict=True):
                    pairs.append(self.comparison(part, left, op, right, depth))
                    left = right
                return pairs[0] if len(pairs) == 1 else Both(True, tuple(pairs))
            case _:
                self.refuse(f"{_describe(part)} is not a condition", part, "condition")

    def comparison(self, whole: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Compare:
        symbol = _COMPARE.get(type(op))
        if symbol is None:
            self.refuse("This comparison is not allowed", whole, "condition")
        mode = self.mode_of(left)
        if mode is not None:
            members = (self.scope.modes or {})[mode.parameter]
            value = right.id if isinstance(right, ast.Name) else getattr(right, "value", None)
            if symbol not in ("==", "!=") or not isinstance(value, str):
                self.refuse(f"'{mode.parameter}' can only be compared by == or != with a member", whole, "condition")
            return Compare(symbol, mode, self.member(right, value, members))
        return Compare(symbol, self.translate(left, "number", depth + 1), self.translate(right, "number", depth + 1))

    def mode_of(self, part: ast.expr) -> Mode | None:
        if isinstance(part, ast.Name) and part.id in (self.scope.modes or ()):
            return Mode(part.id)
        return None

    def tools(self, part: ast.List) -> Tools:
        names: list[str] = []
        for item in part.elts:
            name = item.id if isinstance(item, ast.Name) else getattr(item, "value", None)
            if not isinstance(name, str) or not isinstance(item, (ast.Name, ast.Constant)):
                self.refuse(f"{_describe(item)} is not a tool's class or name", item, "tools")
            if not TOOL_NAME.match(name):
                self.refuse("A tool's class or name is 1 to 64 of A-Z a-z 0-9 _ . -; this one is not,", item, "tools")
            if name not in names:
                names.append(name)
        return Tools(tuple(names))


def _describe(part: ast.AST) -> str:
    if isinstance(part, ast.Constant):
        return "The text" if isinstance(part.value, str) else f"The constant {str(part.value)[:20]}"
    words: dict[type[ast.AST], str] = {
        ast.Attribute: "An attribute ('.')",
        ast.Subscript: "An index ('[...]')",
        ast.Lambda: "A lambda",
        ast.JoinedStr: "An f-string",
        ast.NamedExpr: "An assignment (':=')",
        ast.Starred: "A star",
        ast.BinOp: "This operator",
        ast.UnaryOp: "This operator",
        ast.Call: "A call",
        ast.List: "A list",
        ast.Compare: "A comparison",
        ast.BoolOp: "A condition",
    }
    return words.get(type(part), f"A {type(part).__name__.lower()}")
