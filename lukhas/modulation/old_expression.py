"""Expressions of older policies in today's language: translated through their syntax tree, never as text."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from lukhas.modulation.lexeme import find_flaw

MAX_LENGTH: Final = 2_000
_FUNCTIONS: Final = frozenset({"min", "max", "round", "abs", "clamp"})
_MOST_POWER: Final = 4
_TOOL: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z", re.ASCII)


class Untranslatable(Exception):
    """The expression has something that today's language does not; `column` is where, from 1."""

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column


@dataclass(frozen=True)
class Translated:
    """An expression in today's language.

    Attributes:
        tools: names that stand in its lists.
    """

    text: str
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variables:
    """What an older expression's names stand for.

    Attributes:
        own: names of the signal's own level, such as 'level'.
        ceilings: highest level by signal, with '' for the signal's own; where it is 1 there is none.
    """

    own: frozenset[str]
    ceilings: Mapping[str, float] = field(default_factory=dict[str, float])


def translate(text: str, variables: Variables) -> Translated:
    """Translate an older expression.

    Raises:
        Untranslatable: with the column of what cannot be carried over.
    """
    if len(text) > MAX_LENGTH:
        raise Untranslatable(f"the expression is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    if not text.strip():
        raise Untranslatable("the expression is empty", 1)
    if (flaw := find_flaw(text)) is not None:
        raise Untranslatable(flaw.problem[0].lower() + flaw.problem[1:], flaw.offset + 1)
    try:
        tree = ast.parse(f"({text}\n)", mode="eval")
    except (SyntaxError, ValueError) as wrong:
        column = max(1, (getattr(wrong, "offset", None) or 2) - 1)
        raise Untranslatable("it cannot be understood as an expression", min(column, len(text) or 1)) from None
    except (RecursionError, MemoryError):
        raise Untranslatable("it is nested too deeply", 1) from None
    translator = _Translator(variables)
    try:
        new = ast.fix_missing_locations(translator.visit(tree.body))
        found = ast.unparse(new)
    except RecursionError:
        raise Untranslatable("it is nested too deeply", 1) from None
    return Translated(found, tuple(translator.tools))


class _Translator(ast.NodeTransformer):
    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self.tools: dict[str, None] = {}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        own, ceilings = self._variables.own, self._variables.ceilings
        if node.id in own:
            return _limit(ast.Name("x"), ceilings.get("", 1.0))
        return _limit(node, ceilings.get(node.id, 1.0)) if node.id in ceilings else node

    def visit_List(self, node: ast.List) -> ast.expr:
        for part in node.elts:
            name = part.id if isinstance(part, ast.Name) else getattr(part, "value", None)
            if not isinstance(name, str) or not _TOOL.match(name):
                _refuse("a list may hold names of tools only", part)
            self.tools[name] = None
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        return self.visit_List(ast.copy_location(ast.List(node.elts), node))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
        if name == "float" and len(node.args) == 1 and not node.keywords:
            return self.visit(node.args[0])
        if not isinstance(node.func, ast.Name) or name not in _FUNCTIONS:
            _refuse(f"the function '{name[:40]}' does not exist here; there are {', '.join(sorted(_FUNCTIONS))}", node)
        arguments = node.args
        if name in ("min", "max") and len(arguments) == 1 and isinstance(arguments[0], (ast.List, ast.Tuple)):
            arguments = arguments[0].elts
        # The function's own name is no variable, whatever signals are called.
        return ast.copy_location(ast.Call(node.func, [self.visit(a) for a in arguments], node.keywords), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        if isinstance(node.op, ast.Pow):
            power = node.right.value if isinstance(node.right, ast.Constant) else None
            if not isinstance(power, int) or isinstance(power, bool) or not 1 <= power <= _MOST_POWER:
                _refuse(f"a power is carried over from 1 to {_MOST_POWER} only", node)
            base = self.visit(node.left)
            product = base
            for _ in range(power - 1):
                product = ast.BinOp(product, ast.Mult(), copy.deepcopy(base))
            return product
        if not isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
            _refuse(f"the operator of '{ast.unparse(node)[:40]}' does not exist here", node)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.UAdd):
            return self.visit(node.operand)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        _refuse(f"'{ast.unparse(node)[:40]}' does not exist here", node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        _refuse("an index does not exist here", node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        _refuse("a function cannot be defined here", node)


def _limit(level: ast.expr, ceiling: float) -> ast.expr:
    if ceiling >= 1.0:
        return level
    return ast.Call(ast.Name("min"), [level, ast.Constant(ceiling)], [])


def _refuse(reason: str, node: ast.AST) -> NoReturn:
    # The bracket that was added stands before the first line.
    column = getattr(node, "col_offset", 0) + (0 if getattr(node, "lineno", 1) == 1 else 1)
    raise Untranslatable(reason, max(1, column))
