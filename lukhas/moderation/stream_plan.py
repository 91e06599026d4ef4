"""The rules of one profile, made ready for streams, with what streams have learnt of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lukhas.moderation.note import Noted
from lukhas.moderation.ruleset import CompiledRule
from lukhas.moderation.watch import Alive, Watch, Watches

# So many steps are remembered, at most some 15 MB; past it they are forgotten and learnt again.
MAX_STEPS: Final = 32_768
# Longer texts are seldom seen twice.
_MAX_KEPT_CHARS: Final = 48


class Node:
    """A state of a stream in which no match is sure: what it keeps, and which rules wait.

    Attributes:
        held: what is kept of the run.
        size: how much of it is not released: the end of `held`.
        alive: which rules wait, by places in `held`.
        steps: by piece, the node that it leads to; where a piece leads elsewhere, it is missing. None where steps are
            not worth keeping.
    """

    __slots__ = ("alive", "held", "size", "steps")

    def __init__(self, held: str, size: int, alive: Alive, steps: dict[str, Node] | None) -> None:
        self.held = held
        self.size = size
        self.alive = alive
        self.steps = steps


class StreamPlan:
    """The rules of one profile, made ready once and shared by all streams.

    What a piece of text does to a state depends on nothing else, so it is remembered: most words have been seen before.

    Attributes:
        withholds: whether any rule keeps text from being released.
        guarded: the rules that block or redact.
        noted: the rules that only report.
        root: the state in which a run begins.
        calm: by piece, the node that it leads to from any node in which nothing waits.
    """

    __slots__ = ("_count", "_nodes", "calm", "guarded", "noted", "root", "withholds")

    def __init__(self, rules: Sequence[CompiledRule], *, timeout_s: float = 0.25) -> None:
        """Make rules ready.

        Args:
            rules: of one profile.
            timeout_s: how long one search of one rule may take; then the stream is blocked.

        Raises:
            ConfigurationError: a rule that blocks or redacts could hold back a stream without end.
        """
        ordered = sorted(rules, key=lambda compiled: compiled.rule.id)
        watches = [Watch(number, compiled, timeout_s) for number, compiled in enumerate(ordered)]
        self.guarded = Watches([watch for watch in watches if watch.withholds], context_chars=1)
        self.noted = Noted([watch for watch in watches if not watch.withholds])
        self.withholds = bool(self.guarded.items)
        self.root = Node("", 0, {}, {})
        self._nodes: dict[tuple[str, int, tuple[tuple[int, tuple[int, int]], ...]], Node] = {}
        self._count = 0
        self.calm: dict[str, Node] = {}

    def reach(self, node: Node, piece: str, held: str, size: int, alive: Alive) -> Node:
        """Return the state that a piece leads to, and remember it where that is worth it."""
        if node.steps is None or len(piece) > _MAX_KEPT_CHARS:
            return self.make(held, size, alive)
        # Where nothing waits and nothing begins, what stands before a piece makes no difference.
        is_calm = not node.size and not node.alive and self.guarded.starts.begins_none(piece[0])
        steps = self.calm if is_calm else node.steps
        if self._count >= MAX_STEPS:
            # Streams under way keep what they stand on.
            self._nodes.clear()
            self.calm.clear()
            self._count = 0
            self.root = Node("", 0, {}, {})
            return self.make(held, size, alive)
        reached = steps[piece] = self.make(held, size, alive)
        self._count += 1
        return reached

    def make(self, held: str, size: int, alive: Alive) -> Node:
        """Return the state of these parts."""
        if len(held) > _MAX_KEPT_CHARS or not self.guarded.far.isdisjoint(alive):
            # Where this leads is hardly seen again, or depends on what came before what is kept.
            return Node(held, size, alive, None)
        key = (held, size, tuple(sorted(alive.items())))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(held, size, alive, {})
        return node
