"""How much work a JSON Schema may cause, found before anything is compiled."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

MAX_SCHEMA_BYTES: Final = 64_000
MAX_SCHEMA_DEPTH: Final = 32
MAX_SCHEMA_NODES: Final = 2_000
MAX_TARGETS: Final = 128
MAX_STEPS: Final = 20_000
MAX_PATTERNS: Final = 32
MAX_PATTERN_CHARS: Final = 1_000

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")


class Cost(NamedTuple):
    """What checking one value by a schema costs at most.

    Attributes:
        steps: subschemas, those that references lead to counted each time.
        patterns: regular expressions.
        look_aheads: those of them that run in an engine that can backtrack.
        is_recursive: whether a reference leads back to where it stands.
        names: the properties that the schema names.
    """

    steps: int = 0
    patterns: int = 0
    look_aheads: int = 0
    is_recursive: bool = False
    names: frozenset[str] = frozenset()


class SchemaRefused(Exception):
    """Why a schema is not taken, as a part of a sentence."""


class _Part(NamedTuple):
    """A subschema without what it refers to: how many nodes it has, and how often it names each target."""

    nodes: int
    targets: Counter[str]


def measure_schema(schema: dict[str, Any], size_bytes: int) -> Cost:
    """Return what a schema may cost.

    Raises:
        SchemaRefused: it is too large, too deep, refers to another document, or its references multiply.
    """
    if size_bytes > MAX_SCHEMA_BYTES:
        raise SchemaRefused(f"they are larger than {MAX_SCHEMA_BYTES:,} bytes")
    scan = _Scan()
    root = scan.read(schema)
    targets = {"#": root}
    waiting = list(root.targets)
    while waiting:
        name = waiting.pop()
        if name in targets:
            continue
        if len(targets) >= MAX_TARGETS:
            raise SchemaRefused(f"they refer to more than {MAX_TARGETS} places")
        targets[name] = scan.read(_resolve(schema, name, scan.anchors))
        waiting += targets[name].targets
    expansion = _Expansion(targets)
    return Cost(
        expansion.count("#"), scan.patterns, 0, is_recursive=expansion.is_recursive, names=frozenset(scan.names)
    )


class _Scan:
    """Walks a schema's document and refuses what it may not hold."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.anchors: dict[str, Any] = {}
        self.patterns = 0
        self._seen: set[int] = set()

    def read(self, schema: Any) -> _Part:
        """Walk one subschema."""
        nodes, targets = 0, Counter[str]()
        waiting: list[tuple[Any, int]] = [(schema, 1)]
        while waiting:
            value, depth = waiting.pop()
            if isinstance(value, list):
                children = cast("list[Any]", value)
            elif isinstance(value, dict):
                node = cast("dict[str, Any]", value)
                nodes += 1
                self._read_node(node, depth, targets)
                children = list(node.values())
            else:
                continue
            if depth > MAX_SCHEMA_DEPTH:
                raise SchemaRefused(f"they are nested deeper than {MAX_SCHEMA_DEPTH} levels")
            if nodes > MAX_SCHEMA_NODES:
                raise SchemaRefused(f"they have more than {MAX_SCHEMA_NODES:,} parts")
            waiting += [(child, depth + 1) for child in children]
        return _Part(nodes, targets)

    def _read_node(self, node: dict[str, Any], depth: int, targets: Counter[str]) -> None:
        for name in _REFERENCES:
            reference = node.get(name)
            if not isinstance(reference, str):
                continue  # a property of this name, or nothing
            if not reference.startswith("#"):
                raise SchemaRefused("they refer to another document; only references such as '#/$defs/name' are taken")
            targets[reference] += 1
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if depth > 1 and isinstance(node.get("$id"), str):
            raise SchemaRefused("a part of them has an '$id'")
        for name in _ANCHORS:
            anchor = node.get(name)
            if isinstance(anchor, str):
                self.anchors[f"#{anchor}"] = node
        properties = node.get("properties")
        if isinstance(properties, dict):
            self.names.update(cast("dict[str, Any]", properties))
        patterns = [node.get("pattern")]
        by_pattern = node.get("patternProperties")
        if isinstance(by_pattern, dict):
            patterns += cast("dict[str, Any]", by_pattern)
        for pattern in patterns:
            if isinstance(pattern, str):
                self.patterns += 1
                if len(pattern) > MAX_PATTERN_CHARS or self.patterns > MAX_PATTERNS:
                    raise SchemaRefused("they have too many patterns, or one that is too long")


def _resolve(schema: dict[str, Any], reference: str, anchors: dict[str, Any]) -> Any:
    if not reference.startswith("#/"):
        # An anchor that is not there is for the compiler to refuse.
        return anchors.get(reference)
    value: Any = schema
    for step in reference[2:].split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(name)
        elif isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 6:
            entries = cast("list[Any]", value)
            value = entries[int(name)] if int(name) < len(entries) else None
        else:
            return None
    return value


class _Expansion:
    """Counts a schema's nodes with every reference followed."""

    def __init__(self, parts: dict[str, _Part]) -> None:
        self.is_recursive = False
        self._parts = parts
        self._known: dict[str, int] = {}
        self._open: set[str] = set()

    def count(self, name: str) -> int:
        """Return the nodes behind one target; a way back to itself counts once, for the validator remembers it."""
        if name in self._open:
            self.is_recursive = True
            return 1
        if name not in self._known:
            self._open.add(name)
            part = self._parts[name]
            steps = part.nodes + sum(times * self.count(target) for target, times in part.targets.items())
            self._open.discard(name)
            if steps > MAX_STEPS:
                raise SchemaRefused("their references multiply beyond what can be checked")
            self._known[name] = steps
        return self._known[name]
