"""What a policy is: signals, parameters, maps, prompt styles, tool classes and the feedback table.

A Policy is immutable. It is read from YAML by `policy_reader`, which is also where every rule about what a valid
policy is stands. The id is the hash of the file's bytes, so a recorded decision names exactly one text.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

from lukhas.ids import encode_base32
from lukhas.modulation.compile import ConditionFunction, MapFunction
from lukhas.modulation.expression import Node
from lukhas.modulation.yaml_source import Place

Role = Literal["guard", "style"]
ParameterKind = Literal["number", "integer", "enum", "tools"]
Tighter = Literal["lower", "higher", "first", "subset"]
Value = float | int | str | tuple[str, ...]

# The parameter that names how strict the call is; style rules and the strict prompt hang on it.
SAFETY_MODE: Final = "safety_mode"
TOOLS: Final = "tools"
UNKNOWN_CLASS: Final = "unknown"


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """How one signal behaves.

    Attributes:
        precedence: the style signal with the highest one that maps a parameter decides it.
        weight: share in `combine: blend`, in (0, 1].
        cooldown_ms: least time between two emissions of one source to one subject; style signals only.
        ttl_ms: life of an emission that names none.
        max_ttl_ms: longest life that an emission may name.
        half_life_ms: time in which a level halves; None for no decay.
        min_level: below it the signal counts as absent.
    """

    name: str
    role: Role
    precedence: int
    weight: float
    cooldown_ms: int
    ttl_ms: int
    max_ttl_ms: int
    half_life_ms: int | None
    min_level: float


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of the model call.

    Attributes:
        low, high: bounds of what the policy may set; numbers only.
        tighter: which direction is tighter; None for a parameter without direction.
        values: an enum's members; the first is the tightest where `tighter` is 'first'.
    """

    name: str
    kind: ParameterKind
    default: Value
    low: float = 0.0
    high: float = 0.0
    tighter: Tighter | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One map: what a signal makes of a parameter.

    Attributes:
        text: the expression as the file has it.
        place: where it stands.
        node: its tree.
        function: its compiled form, `f(x, current, levels)`.
        uses_current: whether it reads the value without this signal.
    """

    signal: str
    parameter: str
    text: str
    place: Place
    node: Node
    function: MapFunction
    uses_current: bool


@dataclass(frozen=True, slots=True)
class Style:
    """What a prompt style adds to the call; empty parts add nothing."""

    name: str
    preamble: str = ""
    prefix: str = ""
    stop: tuple[str, ...] = ()
    moderation: str = "standard"


@dataclass(frozen=True, slots=True, eq=False)
class StyleRule:
    """Chooses a style where its condition holds; None always holds."""

    style: str
    text: str
    place: Place
    node: Node | None
    function: ConditionFunction | None


@dataclass(frozen=True, slots=True)
class ToolClass:
    """A class of tools and which names belong to it.

    Attributes:
        functions: exact function names.
        patterns: shell-style patterns of function names, tried after every exact name.
        hosted: tool types that the model's provider runs itself, such as `web_search`.
    """

    name: str
    functions: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    hosted: tuple[str, ...] = ()
    risk: Literal["low", "medium", "high"] = "medium"


@dataclass(frozen=True, slots=True)
class Knob:
    """How far feedback may move one parameter, and which way satisfaction moves it."""

    parameter: str
    low: float
    high: float
    rating: float


@dataclass(frozen=True, slots=True)
class ViolationSpec:
    """How a violation tightens.

    Attributes:
        signal: the guard that it raises; its half-life is how the tightening fades.
        low, medium, high: how far one violation of that severity raises it, ratios, none above the next.
        ceiling: no number of violations raises it further.
        widen_above: past this level the next wider scope is raised too; at 1 never.
        ttl_ms: when it is over, whatever the half-life.
    """

    signal: str
    low: float
    medium: float
    high: float
    ceiling: float
    widen_above: float
    ttl_ms: int


@dataclass(frozen=True)
class Policy:
    """A validated policy.

    Attributes:
        signals: specifications by name, highest precedence first.
        parameters: specifications by name, `safety_mode` first.
        rules: maps by (signal, parameter).
        touch_all: whether every parameter is written into the call, touched or not.
        blend: whether numbers are blended over the active style signals instead of decided by one.
        violations: how a violation tightens.
        text: the file's own text.
        source: where it was read from.
    """

    name: str
    signals: Mapping[str, SignalSpec]
    parameters: Mapping[str, ParameterSpec]
    rules: Mapping[tuple[str, str], Rule]
    styles: Mapping[str, Style]
    style_rules: Sequence[StyleRule]
    tool_classes: Mapping[str, ToolClass]
    knobs: Mapping[str, Knob]
    touch_all: bool
    blend: bool
    violations: ViolationSpec
    text: str = field(repr=False)
    source: str

    @cached_property
    def id(self) -> str:
        """`pol_` and 26 characters of the SHA-256 of the file's bytes."""
        return policy_id(self.text)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def guards(self) -> frozenset[str]:
        """Names of the guard signals."""
        return frozenset(name for name, spec in self.signals.items() if spec.role == "guard")

    @cached_property
    def defaults(self) -> Mapping[str, Value]:
        """Default value of each parameter."""
        return {name: spec.default for name, spec in self.parameters.items()}

    def classify_tool(self, function: str) -> str:
        """Return the class of a function's name: exact names first, then patterns; else 'unknown'."""
        found = self._class_by_function.get(function)
        if found is not None:
            return found
        for pattern, name in self._class_patterns:
            if pattern.match(function):
                return name
        return UNKNOWN_CLASS

    def classify_hosted(self, tool_type: str) -> str:
        """Return the class of a tool that the provider runs; else 'unknown'."""
        return self._class_by_hosted.get(tool_type, UNKNOWN_CLASS)

    def allows_tool(self, allowlist: Sequence[str], function: str) -> bool:
        """Return whether a function is on an allowlist of classes and names.

        A function that merely bears a class's name is judged by its own class.
        """
        return self.classify_tool(function) in allowlist or (
            function in allowlist and function not in self.tool_classes and function != UNKNOWN_CLASS
        )

    def allows_hosted(self, allowlist: Sequence[str], tool_type: str) -> bool:
        """Return whether a provider-run tool is on an allowlist, by its class; 'unknown' admits none."""
        found = self.classify_hosted(tool_type)
        return found != UNKNOWN_CLASS and found in allowlist

    def meet_tools(self, a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
        """Return what both allowlists admit, in the order of `a`, then of `b`.

        An entry stays where the other list has it, or where it is a function whose class the other list has.
        """
        kept = [entry for entry in a if entry in b or self._class_admits(b, entry)]
        kept += [entry for entry in b if entry not in a and self._class_admits(a, entry)]
        return tuple(kept)

    def _class_admits(self, allowlist: Sequence[str], entry: str) -> bool:
        is_class = entry in self.tool_classes or entry == UNKNOWN_CLASS
        return not is_class and self.classify_tool(entry) in allowlist

    @cached_property
    def _class_by_function(self) -> dict[str, str]:
        return {function: c.name for c in self.tool_classes.values() for function in c.functions}

    @cached_property
    def _class_patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(fnmatch.translate(p)), c.name) for c in self.tool_classes.values() for p in c.patterns]

    @cached_property
    def _class_by_hosted(self) -> dict[str, str]:
        return {kind: c.name for c in self.tool_classes.values() for kind in c.hosted}


def policy_id(text: str) -> str:
    """Return the id of a policy's text: `pol_` and 26 characters of its SHA-256."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"pol_{encode_base32(int.from_bytes(digest[:16], 'big'))}"
