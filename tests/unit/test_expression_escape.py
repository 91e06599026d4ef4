"""At least 200 attempts to leave the expression language; each is refused, at once, with a place."""

from __future__ import annotations

import re
import time

import pytest

from lukhas.errors import ExpressionError
from lukhas.modulation.expression import Kind, Scope, parse_expression

SIGNALS = frozenset({"stress", "trust"})
SCOPES = {
    "number": Scope("number", SIGNALS),
    "enum": Scope("enum", SIGNALS, members=("strict", "balanced")),
    "tools": Scope("tools", SIGNALS),
    "condition": Scope("condition", SIGNALS, modes={"safety_mode": ("strict", "balanced")}, has_own=False),
}

BUILTINS = re.findall(
    r"\S+",
    r"""
__import__ abs.__self__ aiter all anext any ascii bin bool breakpoint bytearray bytes callable chr classmethod
compile complex delattr dict dir divmod enumerate eval exec exit filter float format frozenset getattr globals
hasattr hash help hex id input int isinstance issubclass iter len list locals map memoryview next object oct open
ord pow print property quit range repr reversed set setattr slice sorted staticmethod str sum super tuple type vars
zip
""",
)

DUNDERS = re.findall(
    r"\S+",
    r"""
__builtins__ __class__ __dict__ __doc__ __file__ __globals__ __loader__ __name__ __spec__ __debug__ __build_class__
x.__class__ x.__class__.__mro__ x.__class__.__base__.__subclasses__() stress.real x.real.imag (1).__class__
(1).to_bytes min.__self__ min.__call__(1,2) max.__module__ round.__doc__ "".__class__ [].__class__ ().__class__
(lambda:0).__globals__ x.__init__.__globals__['os'] current.__class__ abs.__self__.eval('1')
""",
)

# fmt: off
SYNTAX = [
    "lambda: 0", "lambda x: x", "(lambda: 0)()", "min(*[1, 2])", "min(**{})", "min(1, 2, key=abs)",
    "max(1, 2, default=0)", "round(x, ndigits=2)", "clamp(value=x, low=0, high=1)", "min(x for x in [1])",
    "[x for x in [1]][0]", "{x for x in [1]}", "{x: 1 for x in [1]}", "(x for x in y)", "x for x in y", "f'{x}'",
    'f"{x!r:>{10}}"', "rf'{x}'", "'%s' % x", "'{}'.format(x)", "'a'.join([])", "x := 1", "(x := 1)",
    "(y := x) + y", "x = 1", "x += 1", "x; x", "import os", "from os import path", "del x", "assert x", "raise x",
    "return x", "pass", "global x", "def f(): 0", "class A: 0", "if x: 1", "for x in y: 1", "while 1: 1",
    "with x: 1", "try: 1", "async def f(): 0", "await x", "(await x)", "(yield)", "(yield x)", "yield from x",
    "x @ trust", "x ** 2", "9 ** 9 ** 9", "2 ** 1000000", "x // 2", "x % 2", "x << 2", "1 << 999999", "x >> 1",
    "x & 1", "x | 1", "x ^ 1", "~x", "+x", "not x", "x and 1", "x or 1", "x is trust", "x is not 1", "x in [1]",
    "x not in [1]", "1 < x", "x == 1", "x <> 1", "x[0]", "x[0][0][0]", "x[::]", "[1, 2][x]", "'abc'[0]", "{}['a']",
    "x[1:2]", "x[...]", "...", "Ellipsis", "None", "True", "False", "1j", "1 + 2j", "0j", "b'x'", "b''", "'x'",
    '"x"', "'' ''", "r'x'", "u'x'", '"""x"""', "[]", "[1]", "()", "(1,)", "1,", "1, 2", "{}", "{1}", "{'a': 1}",
    "*x", "[*x]", "**x", "print(x)", "min", "max", "round", "min(min, max)", "min()", "min(1)", "max()", "abs()",
    "abs(1, 2)", "round()", "round(1, 2)", "clamp(1, 2)", "clamp(1, 2, 3, 4)", "clamp()", "min(1,2,3,4,5,6,7,8,9)",
    "min(1, [2])", "min(1, 'a')", "min(min)(1)", "(min)(1, 2)()", "min(1, 2)(3)", "x(1)", "x()", "stress()",
    "current()", "1()", "'a'()", "[](1)", "x.y", "x.__add__(1)", "x.real", "1..real", "1.5.is_integer()",
    "x .\n real", "stress.trust", "current.x", "x # comment", "# comment", "# -*- coding: utf-7 -*-\nx",
    "#!/usr/bin/python\nx", "x \\\n + 1", "\\", "x\\", "x ?", "x!", "$x", "`x`", "x) + (x", ")(", "x)", "(x", "[x",
    "x]", "(x]", "}{", "x)(x", "1)+(1", "x\n)+(\nx", "x if", "if x", "x else 1", "x if x", "x if x else", "1 if x",
    "x +", "* x", "x x", "1 1", "x 1", "1x", "0x", "0x10", "0b1", "0o7", "007", "1_000", "1__0", "1e", "1e+",
    "1.2.3", ".", "1..2", "1if x > 0 else 2", "0xfor x in y", "1e999", "1e400", "-1e400", "1000001", "9" * 400,
    "1" * 5000, "0." + "1" * 600, "1e7", "a" * 501, "x" * 100_000, "(" * 100 + ")" * 100, "(" * 250,
    "[" * 250 + "]" * 250, "((((" * 60 + "x" + "))))" * 60, "-" * 499 + "x", "not " * 120 + "x",
    "abs(" * 100 + "x" + ")" * 100, "x" + "+x" * 240, "x" + "**x" * 160, "lambda:" * 70 + "x",
    "1 if x > 0 else " * 31 + "1", "x < " * 120 + "x", "min(1," * 80 + "x" + ")" * 80, "[" + "x," * 240 + "]",
    "x\x00", "\x00", "x\x00+1", "\x1b[0m", "x\r+1", "\x0cx", "x\x0b", "\x7fx", "x\u00a0+ 1", "\ufeffx", "x\u200b",
    "x\u2028+1", "\u202ex", "\u0445", "\uff58", "\U0001d431", "x\u0301", "st\u0433ess", "\u017ftress",
    "\uff4d\uff49\uff4e(1, 2)", "\U0001d426\U0001d422\U0001d427(1,2)", "\uff11", "\u0661", "\u00b9", "1\u20441",
    "\u2212x", "x \u00d7 2", "x \u2264 1", "\u2160", "\ufb01", "x\u037e", "\uff3f\uff3fimport\uff3f\uff3f('os')",
    "\ud800", "\u212a", "\u00aa", "ma\u02e3(1, 2)", "x\u00ad", "\u2061x", "\u3000x", "eval('1')", "exec('1')",
    "open('/etc/passwd')", "__import__('os').system('id')", "getattr(x, 'real')", "globals()['x']", "type(x)",
    "().__class__.__bases__[0].__subclasses__()", "[].append(1)", "print(1) or x", "(x, y) = 1, 2", "match x: ...",
    "levels['stress']", "levels", "modes", "self", "_", "__", "X", "Current", "STRESS", "stress_",
    "alignment_risk", "own", "nan", "inf", "x if x > 0 else y", "y if x > 0 else x", "x if eval else x",
    "x if (x > 0).real else x", "x if x > 0 > 'a' else x", "x if not 1 else x",
]
# fmt: on

OTHER: list[tuple[Kind, str]] = [
    *(
        ("enum", text)
        for text in (
            "x",
            "1",
            "stress",
            "strict.upper()",
            "strict()",
            "'strict'.upper()",
            "f'strict'",
            "b'strict'",
            "u'strict'",
        )
    ),
    *(
        ("enum", text)
        for text in (
            "[strict]",
            "strict + balanced",
            "'str' 'ict'",
            "'''strict'''",
            "strict if x else balanced",
            "not strict",
        )
    ),
    *(
        ("enum", text)
        for text in (
            "'str\\x69ct'",
            "(strict := balanced)",
            "strict[0]",
            "lambda: strict",
            "strict, balanced",
            "-strict",
            "''",
        )
    ),
    *(
        ("tools", text)
        for text in (
            "retrieval",
            "[a] + [b]",
            "[a][0]",
            "[*a]",
            "[a()]",
            "[a.b]",
            "['a' 'b']",
            "[f'a']",
            "[b'a']",
            "[1]",
            "[None]",
        )
    ),
    *(
        ("tools", text)
        for text in (
            "['']",
            "['a b']",
            "['a\\n']",
            "[a for a in b]",
            "[[a]]",
            "(a, b)",
            "{a}",
            "'a'",
            "[a := b]",
            "['\u0430']",
        )
    ),
    *(
        ("tools", text)
        for text in (
            "['" + "a" * 65 + "']",
            "list()",
            "current + [a]",
            "current[0]",
            "[a] if current else [b]",
            "[a, *current]",
        )
    ),
    *(
        ("condition", text)
        for text in (
            "1",
            "stress",
            "x > 0",
            "current > 0",
            "safety_mode",
            "strict",
            "safety_mode == 1",
            "safety_mode == x",
        )
    ),
    *(
        ("condition", text)
        for text in (
            "safety_mode == safety_mode",
            "safety_mode < strict",
            "strict == safety_mode",
            "safety_mode == 'lax'",
        )
    ),
    *(
        ("condition", text)
        for text in (
            "safety_mode == strict.x",
            "safety_mode == f'strict'",
            "safety_mode in [strict]",
            "stress > 'a'",
            "True",
        )
    ),
    *(
        ("condition", text)
        for text in (
            "stress > 1 if stress > 2 else stress > 3",
            "stress and trust",
            "not stress",
            "stress is 1",
            "stress > (yield)",
        )
    ),
    *(
        ("condition", text)
        for text in (
            "safety_mode == b'strict'",
            "safety_mode.x == strict",
            "(safety_mode) == *strict",
            "eval('stress > 0')",
        )
    ),
]

CALLS = [f"{name}(x)" for name in BUILTINS if name != "abs.__self__"]
ATTEMPTS: list[tuple[Kind, str]] = list(
    dict.fromkeys([*(("number", text) for text in [*BUILTINS, *CALLS, *DUNDERS, *SYNTAX]), *OTHER])
)


def test_escape_attempts_are_many_and_distinct() -> None:
    """The promise is 200; a list that shrank below it would no longer show it."""
    assert len(ATTEMPTS) >= 500


@pytest.mark.parametrize(("kind", "text"), ATTEMPTS, ids=[f"{i}" for i in range(len(ATTEMPTS))])
def test_escape_attempt_is_refused_with_its_place(kind: Kind, text: str) -> None:
    """Each attempt is an ExpressionError whose place lies inside the text and which says what is allowed."""
    started = time.process_time()
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text, SCOPES[kind])
    took_s = time.process_time() - started
    error = caught.value
    lines = text.split("\n")
    assert 1 <= error.line <= len(lines)
    assert 1 <= error.column <= max(1, len(lines[error.line - 1]))
    assert f"line {error.line}, column {error.column}" in error.message
    assert "{" not in error.allowed
    assert len(error.allowed) > 10
    assert len(str(error)) < 1000
    assert took_s < 0.1
