"""Turns a policy of an older format into the current schema, and says what could not be carried over.

What came of each part: signals become guards or styles; `decay_rate`, a continuous rate per second
(level * e^(-rate * seconds)), becomes a half-life; `max_level` becomes a ceiling inside the expressions; `priority`
becomes precedence; gates become maps of the tools. A map that the current schema refuses, such as a guard's that would
loosen, is left out with the reason that the reader of policies gives.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from lukhas.errors import Conflict, PolicyError
from lukhas.modulation.import_text import Map, NewPolicy, NewSignal, write_policy
from lukhas.modulation.import_tool import carry_tools
from lukhas.modulation.import_value import carry_parameters, carry_styles
from lukhas.modulation.old_expression import Translated, Untranslatable, Variables, translate
from lukhas.modulation.old_policy import Format, OldPolicy, OldSignal, Remark, entries, items, number, read_old
from lukhas.modulation.parameter_reader import KNOB_RANGES, MAX_MS, VIOLATION_SIGNAL
from lukhas.modulation.policy import SAFETY_MODE, TOOLS
from lukhas.modulation.policy_reader import load_policy, parse_policy
from lukhas.modulation.yaml_source import Item, Mistake, Place, YamlMistake, parse_yaml

# The older programs' own order, most important first; further signals come after it, in the file's order.
ORDER: Final = (VIOLATION_SIGNAL, "stress", "ambiguity", "urgency", "novelty", "trust")
_RISK: Final = re.compile(r"(^|_)(risk|threat|danger|harm|violation|toxicity|abuse|unsafe)(_|$)")
_SUFFIX: Final = re.compile(r"_(delta|boost|bias|bounds)\Z")
_START: Final = Place(1, 1)


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        format: 'weight' or 'priority'.
        text: the new policy; one that does not load where there are mistakes.
        left_out: what was not carried over, by its place in the older file.
        changed: what went over as something else.
        added: what the current schema needs and the older file did not have.
        mistakes: why the new text does not load, by its place in the new text; empty where it loads.
    """

    format: Format
    text: str
    left_out: tuple[Remark, ...]
    changed: tuple[Remark, ...]
    added: tuple[str, ...]
    mistakes: tuple[Mistake, ...] = field(default=())


def import_policy(text: str, source: str = "text") -> Imported:
    """Import a policy of an older format.

    Args:
        text: the older file's text.
        source: its name, for messages and for the comments of the new text.

    Raises:
        Conflict: it has the current schema already.
        PolicyError: it is no YAML of the strict form, or no policy of either older format.
    """
    try:
        root = parse_yaml(text)
    except YamlMistake as wrong:
        raise _refuse(source, wrong.mistake) from None
    if _is_current(root):
        raise Conflict(f"{source} is already of the current schema.", hint="Look at it with: lukhas policy show FILE")
    old = read_old(root)
    kind = old.format
    if kind is None or not old.signals:
        known = "signals with 'weight' and 'cooldown_ms', or with 'priority', 'decay_rate' and 'max_level'"
        raise _refuse(source, Mistake(_START, "", f"not a policy of an older format: those have {known}"))
    return _Import(old, kind, source).run()


class _Import:
    def __init__(self, old: OldPolicy, kind: Format, source: str) -> None:
        self.old = old
        self.kind: Format = kind
        self.packaged = load_policy()
        self.new = NewPolicy(name=old.name or "imported", source=PurePath(source).name, format=kind)
        self.changed: list[Remark] = []
        self.added: list[str] = []
        self.tools: dict[str, None] = {}

    def run(self) -> Imported:
        old, new = self.old, self.new
        self._carry_signals()
        self._carry_maps()
        carry_tools(old, new, self.changed, self.kind, self.tools)
        carry_parameters(old, new, self.changed, self.packaged, self.kind)
        self._add_required()
        carry_styles(old, new, self.changed, self.added, self.kind)
        self._carry_feedback()
        text, mistakes = self._settle()
        return Imported(
            self.kind,
            text,
            tuple(sorted(old.left_out)),
            tuple(sorted(self.changed)),
            tuple(self.added),
            mistakes,
        )

    def _change(self, item: Item, reason: str) -> None:
        self.changed.append(Remark(item.key_place, item.path, reason))

    def _carry_signals(self) -> None:
        for signal in self._ordered():
            made = NewSignal(signal.name, self._role(signal), precedence=0, line=signal.item.key_place.line)
            made.description = signal.description
            for key, low, high in (("weight", 0.001, 1.0), ("min_level", 0.0, 1.0)):
                value = number(signal.fields.get(key))
                if key not in signal.fields:
                    continue
                if value is None or not low <= value <= high:
                    self.old.leave(signal.fields[key], f"it must be a number from {low:g} to {high:g}")
                else:
                    made.fields[key] = value
            self._carry_times(signal, made)
            self.new.signals[signal.name] = made
        section = self.old.sections["signals"]
        self._change(
            section,
            "where several map one parameter, the highest precedence decides, and guards tighten after it; in the "
            "older program the one that came last did",
        )
        count = len(self.new.signals)
        for rank, made in enumerate(self.new.signals.values()):
            made.precedence = 10 * (count - rank)

    def _carry_times(self, signal: OldSignal, made: NewSignal) -> None:
        for key in ("cooldown_ms", "ttl_ms", "half_life_ms"):
            item = signal.fields.get(key)
            value = number(item)
            if item is None:
                continue
            if value is None or not 0 <= value <= MAX_MS or (value < 1 and key != "cooldown_ms"):
                self.old.leave(item, "it must be a number of milliseconds")
            elif key == "cooldown_ms" and made.role == "guard":
                if value:
                    self.old.leave(item, "a guard has no cooldown: its emissions are never ignored")
            else:
                made.fields[key] = round(value)
        rate_item = signal.fields.get("decay_rate")
        rate = number(rate_item)
        if rate_item is None:
            return
        half_life = math.log(2) / rate * 1000 if rate is not None and rate > 0 else math.inf
        if rate == 0:
            made.fields["half_life_ms"] = None
        elif rate is None or rate < 0 or not 1 <= half_life <= MAX_MS:
            self.old.leave(rate_item, "it must be a rate per second, such as 0.1")
        else:
            made.fields["half_life_ms"] = round(half_life)
            self._change(rate_item, f"{rate:g} per second is a half-life of {round(half_life)} ms")

    def _role(self, signal: OldSignal) -> str:
        said = signal.fields.get("role")
        if said is not None and said.value in ("guard", "style"):
            return str(said.value)
        if said is not None:
            self.old.leave(said, "a role is guard or style")
        if signal.name == VIOLATION_SIGNAL:
            return "guard"
        if _RISK.search(signal.name):
            self._change(signal.item, "made a guard, by its name: it may only tighten")
            return "guard"
        return "style"

    def _ordered(self) -> list[OldSignal]:
        signals = list(self.old.signals.values())
        ranks = {name: rank for rank, name in enumerate(ORDER)}
        if self.kind == "weight":
            for signal in signals:
                if signal.name not in ranks:
                    self._change(signal.item, "its precedence is below the six usual signals; the older file has none")
            return sorted(signals, key=lambda signal: ranks.get(signal.name, len(ranks)))
        priorities: dict[str, float] = {}
        for signal in signals:
            item = signal.fields.get("priority")
            value = number(item)
            if value is not None:
                priorities[signal.name] = value
            elif item is not None:
                self.old.leave(item, "it must be a number")
        risk = priorities.get(VIOLATION_SIGNAL)
        is_highest_first = risk is not None and risk == max(priorities.values()) > min(priorities.values())
        sign = -1 if is_highest_first else 1
        last = math.inf
        for signal in signals:
            if "priority" in signal.fields and signal.name in priorities:
                tied = [name for name, value in priorities.items() if value == priorities[signal.name]]
                if tied[0] != signal.name:
                    self._change(signal.fields["priority"], f"as {tied[0]} has it too, it comes after it")
            elif "priority" not in signal.fields:
                self._change(signal.item, "without a priority it comes last")
        if is_highest_first:
            self._change(
                signals[0].item, "the largest priority counts as the most important, since alignment_risk has it"
            )
        return sorted(signals, key=lambda signal: sign * priorities[signal.name] if signal.name in priorities else last)

    def _carry_maps(self) -> None:
        ceilings: dict[str, float] = {}
        for signal in self.old.signals.values():
            item = signal.fields.get("max_level")
            ceiling = number(item)
            if item is not None and (ceiling is None or ceiling <= 0):
                self.old.leave(item, "it must be a level above 0")
            elif ceiling is not None and ceiling < 1:
                ceilings[signal.name] = ceiling
        for (signal, parameter), item in self.old.maps.items():
            own = frozenset({"x", "level"} - (self.old.signals.keys() - {signal})) | {signal}
            limits = {**ceilings, "": ceilings.get(signal, 1.0)}
            found = self._translate(item, Variables(own, limits))
            if found is None:
                continue
            self.tools |= dict.fromkeys(found.tools)
            self.new.maps[signal, parameter] = Map(found.text, item.place.line)
            before = item.value
            if isinstance(before, str) and signal in ceilings and "x" in found.text:
                self._change(item, f"max_level {ceilings[signal]:g} stands in the expression: {found.text}")
            if item.path.rpartition(".")[2] not in (parameter, "expression", "expr", "formula"):
                self._change(item, f"the parameter is called {parameter} here")

    def _translate(self, item: Item, variables: Variables) -> Translated | None:
        value = item.value
        if isinstance(value, list):
            names = [part.value for part in items(item)]
            if all(isinstance(name, str) for name in names):
                value = "[" + ", ".join(map(repr, names)) + "]"
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.old.leave(item, "it is no expression")
            return None
        if isinstance(value, (int, float)):
            return Translated(repr(value))
        try:
            return translate(value.strip(), variables)
        except Untranslatable as wrong:
            column = f", at column {wrong.column} of it" if wrong.column > 1 else ""
            self.old.left_out.append(Remark(item.place, item.path, f"{wrong.reason}{column}: {value.strip()[:80]}"))
            return None

    def _add_required(self) -> None:
        """Add the guard that violations raise, and the safety mode, where the older file has none."""
        new = self.new
        if VIOLATION_SIGNAL not in new.signals:
            highest = max((signal.precedence for signal in new.signals.values()), default=0)
            new.signals[VIOLATION_SIGNAL] = NewSignal(VIOLATION_SIGNAL, "guard", highest + 10, 0)
            for (signal, parameter), rule in self.packaged.rules.items():
                if signal == VIOLATION_SIGNAL and parameter in new.parameters and parameter != TOOLS:
                    new.maps[signal, parameter] = Map(rule.text, 0)
            self.added.append(f"signal {VIOLATION_SIGNAL} with the packaged policy's maps: violations raise it")
        if not any(parameter == SAFETY_MODE for _, parameter in new.maps):
            # The older program chose its strict prompt there.
            text = "strict if x > 0.6 else balanced" if self.kind == "priority" else "strict if x > 0.3 else balanced"
            new.maps[VIOLATION_SIGNAL, SAFETY_MODE] = Map(text, 0)
            self.added.append(f"map {VIOLATION_SIGNAL}.{SAFETY_MODE}: {text}")

    def _carry_feedback(self) -> None:
        section = self.old.sections.get("feedback")
        if section is None:
            return
        table = entries(section)
        holder = next((table[k] for k in ("style_adjustment_bounds", "bounds") if k in table), None)
        for item in table.values():
            if holder is not None and item is not holder:
                self.old.leave(item, "how feedback is learned is not part of a policy here")
        for key, item in entries(holder or section).items():
            name = _SUFFIX.sub("", key)
            pair = [number(part) for part in items(item)]
            low, high = pair if len(pair) == 2 else (None, None)
            if name not in KNOB_RANGES or name not in self.new.parameters:
                self.old.leave(
                    item, "feedback cannot move this here" if name in self.new.parameters else "no parameter"
                )
            elif low is None or high is None or not low <= 0 <= high:
                self.old.leave(item, "it must be a pair such as [-0.2, 0.2]")
            else:
                least, most = KNOB_RANGES[name]
                rating = self.packaged.knobs[name].rating if name in self.packaged.knobs else 0.0
                self.new.feedback[name] = (max(low, least), min(high, most), rating)
                if low < least or high > most:
                    self._change(item, f"feedback moves it by {least:g} to {most:g} at most")

    def _settle(self) -> tuple[str, tuple[Mistake, ...]]:
        """Write the text; leave out, one after another, maps that the current schema refuses."""
        while True:
            text = write_policy(self.new)
            mistakes = find_mistakes(text)
            refused = [(key, wrong) for wrong in mistakes if (key := _map_of(wrong.path)) in self.new.maps]
            if not refused:
                return text, mistakes
            for key, wrong in refused:
                gone = self.new.maps.pop(key, None)
                if gone is None:
                    continue
                self.new.dropped[key] = (gone, wrong.message)
                item = self.old.maps.get(key)
                where = item.place if item is not None else Place(max(gone.line, 1), 1)
                path = item.path if item is not None else wrong.path
                self.old.left_out.append(Remark(where, path, f"{wrong.message} (it was: {gone.text[:80]})"))


def find_mistakes(text: str) -> tuple[Mistake, ...]:
    """Return why a text does not load as a policy; nothing where it does."""
    try:
        parse_policy(text)
    except PolicyError as wrong:
        return tuple(one for one in wrong.mistakes if isinstance(one, Mistake))
    return ()


def _map_of(path: str) -> tuple[str, str]:
    parts = path.split("[")[0].split(".")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "maps" else ("", "")


def _is_current(root: Item) -> bool:
    table = entries(root)
    has_role = any(
        "role" in entries(item) and "priority" not in entries(item) for item in entries(table.get("signals")).values()
    )
    has_type = any("type" in entries(item) for item in entries(table.get("parameters")).values())
    return "style_rules" in table or (has_role and has_type)


def _refuse(source: str, mistake: Mistake) -> PolicyError:
    where = f"{source}:{mistake.place.line}:{mistake.place.column}"
    return PolicyError(f"{where}: {mistake.message}", mistakes=(mistake,))
